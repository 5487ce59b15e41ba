//! A replicated mutation and its bytes.
//!
//! An op is encoded once, by the node that accepts the command, travels as the payload of an entry, and is decoded by
//! every replica when it applies the entry. Decoding borrows: keys and values are slices of the entry.

mod condition;
mod format;
mod limits;

pub use condition::{Compare, Condition, Deadline, DeadlineCondition, Failure, PutManyCondition, Relation, Target};
pub use limits::{
    DELETE_RANGE_MAX, KEY_BYTES_MAX, OP_BYTES_MAX, OP_KEYS_MAX, OUTCOME_BYTES_MAX, OpError, SCAN_PAIRS_MAX,
    TRANSACTION_CONDITIONS_MAX, TRANSACTION_OPS_MAX, TRANSACTION_VALUE_BYTES_MAX, VALUE_BYTES_MAX,
};

use format::FORMAT_VERSION;

use crate::decimal::Decimal;

/// A mutation that all replicas apply, or a read at its place in the log. Borrows its keys and values.
///
/// A pair that has expired is absent to every op. An op that writes may also answer
/// [`OutOfMemory`](crate::Outcome::OutOfMemory) if there is a memory limit; whatever it answers instead of what it is
/// there for, it has changed nothing then.
///
/// ```
/// use kv_store::{Condition, Deadline, Op};
///
/// let op = Op::Put {
///     key: b"greeting",
///     value: b"hello",
///     condition: Condition::IfAbsent,
///     deadline: Deadline::None,
///     want_previous: false,
/// };
/// let bytes = op.encode().unwrap();
/// assert_eq!(Op::decode(&bytes).unwrap(), op);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets a key (Redis: SET). Outcome `Done` or `NotDone`, or `Previous` if that was wanted.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value it gets.
        value: &'a [u8],
        /// When it gets it.
        condition: Condition<'a>,
        /// When the pair expires.
        deadline: Deadline,
        /// Whether to answer with the value before.
        want_previous: bool,
    },
    /// Removes keys (Redis: DEL). Outcome `Count` of those that were present.
    Delete {
        /// The keys. One that occurs twice counts once.
        keys: Vec<&'a [u8]>,
    },
    /// Removes a key and answers what it had (Redis: GETDEL). Outcome `Previous`, done if the key was present.
    Take {
        /// The key.
        key: &'a [u8],
    },
    /// Removes a range, all of it or nothing. Outcome `Count` of the keys that were present, or `TooLarge` if more than
    /// [`DELETE_RANGE_MAX`] pairs are stored in it, expired ones included: the proposer cuts such a range at the key
    /// that [`nth`](crate::ReadView::nth) gives.
    DeleteRange {
        /// The first key that may be in the range.
        from: &'a [u8],
        /// The first key that is not; `None` has no end.
        to: Option<&'a [u8]>,
    },
    /// Adds to a whole number (Redis: INCRBY); an absent key counts as 0; the deadline stays. Outcome `Integer`, the new
    /// number, or `NotAnInteger` or `Overflow`.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What to add.
        by: i64,
    },
    /// Adds to a decimal number, exactly (Redis: INCRBYFLOAT, which rounds); an absent key counts as 0; the deadline
    /// stays. Outcome `Decimal`, the new number, or `NotANumber` or `Overflow`.
    IncrementDecimal {
        /// The key.
        key: &'a [u8],
        /// What to add.
        by: Decimal,
    },
    /// Adds to the end of a value (Redis: APPEND); an absent key counts as empty; the deadline stays. Outcome `Length`,
    /// the new length, or `TooLarge`.
    Append {
        /// The key.
        key: &'a [u8],
        /// What to add.
        value: &'a [u8],
    },
    /// Writes over a part of a value (Redis: SETRANGE), with zeros from its end to `offset`; an absent key counts as
    /// empty; the deadline stays. Outcome `Length`, the new length, or `TooLarge`. An empty part changes nothing and is
    /// never too large.
    SetRange {
        /// The key.
        key: &'a [u8],
        /// Where the part begins, in bytes.
        offset: u64,
        /// The part.
        value: &'a [u8],
    },
    /// Sets keys, all or none (Redis: MSET, MSETNX); none of them expires. Of a key that occurs twice the later value
    /// wins. Outcome `Done` or `NotDone`.
    PutMany {
        /// Keys and their values.
        pairs: Vec<(&'a [u8], &'a [u8])>,
        /// When they are set.
        condition: PutManyCondition,
    },
    /// Sets or takes away the deadline of a pair (Redis: the EXPIRE family, PERSIST, GETEX). Outcome `Done`, or `NotDone`
    /// if the key is absent or the condition does not hold, or `Previous` if the value was wanted. A deadline that has
    /// passed already removes the pair. The pair is written: its version is a new one.
    SetDeadline {
        /// The key.
        key: &'a [u8],
        /// The new deadline; `None` takes it away.
        deadline: Option<u64>,
        /// When it is set.
        condition: DeadlineCondition,
        /// Whether to answer with the value.
        want_value: bool,
    },
    /// Gives a key the value and the deadline of another (Redis: COPY, RENAME, RENAMENX). Outcome `Done`, `NotDone` if
    /// `to` is present and must not be, or `NoSource`. A key copied to itself stays as it is: `Done`, or `NotDone`.
    Copy {
        /// The key that has them.
        from: &'a [u8],
        /// The key that gets them.
        to: &'a [u8],
        /// Whether `to` must be absent.
        if_absent: bool,
        /// Whether `from` is removed.
        remove_source: bool,
    },
    /// Reads a key at this place in the log, as transactions need. Outcome `Value`.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Reads a range at this place in the log, as transactions need. Outcome `Pairs`, or `TooLarge` if that would be
    /// above [`OUTCOME_BYTES_MAX`], or if more than [`SCAN_PAIRS_MAX`] stored pairs had to be walked through.
    Scan {
        /// The first key that may be in the range.
        from: &'a [u8],
        /// The first key that is not; `None` has no end.
        to: Option<&'a [u8]>,
        /// Most pairs to answer with.
        limit: u32,
    },
    /// Removes everything (Redis: FLUSHALL). Outcome `Done`.
    Clear,
    /// Sets above what [`memory_bytes`](crate::ReadView::memory_bytes) no write may grow; what is above it already
    /// stays. Outcome `Done`.
    SetMemoryLimit {
        /// The limit; `None` takes it away.
        bytes: Option<u64>,
    },
    /// Does ops one after the other, with nothing between them; which ones depends on conditions (etcd: Txn; Redis:
    /// EXEC). Outcome `Transaction`, or `Failed` if an op cannot be done and its failure undoes all. A transaction whose
    /// outcomes are above [`OUTCOME_BYTES_MAX`], or which writes more than [`TRANSACTION_VALUE_BYTES_MAX`] bytes of
    /// values, is undone whatever `failure` says, and answers `TooLarge`.
    Transaction {
        /// What must hold, all of it, of the state before the first op.
        conditions: Vec<Compare<'a>>,
        /// What is done if it does: any ops but `Transaction` and `SetMemoryLimit`.
        then: Vec<Op<'a>>,
        /// What is done if not.
        otherwise: Vec<Op<'a>>,
        /// What becomes of it if an op cannot be done, which is if [`is_failure`](crate::Outcome::is_failure) says so of
        /// its outcome.
        failure: Failure,
    },
}

#[cfg(test)]
mod tests;
