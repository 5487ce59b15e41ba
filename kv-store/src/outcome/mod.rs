//! What applying an op answers, and its bytes: an outcome travels back to the node that proposed, and sessions keep it
//! for a retry.

mod format;

use bytes::Bytes;
use thiserror::Error;

use crate::decimal::Decimal;
use crate::pair::Pair;

pub(crate) use format::item_bytes;

/// What applying an op answers. Part of the replicated state machine: the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write happened.
    Done,
    /// The condition did not hold; nothing changed.
    NotDone,
    /// Answer to an op that wanted the value before.
    Previous {
        /// The value before, if there was one.
        value: Option<Bytes>,
        /// Whether the condition held and the write happened.
        done: bool,
    },
    /// How many keys a delete removed.
    Count(u64),
    /// The number after an increment.
    Integer(i64),
    /// The number after a decimal increment.
    Decimal(Decimal),
    /// The length of the value after an append or a write to a part of it, in bytes.
    Length(u64),
    /// The pair of a key, if it is present.
    Value(Option<Pair>),
    /// Keys of a range with their pairs, in order.
    Pairs(Vec<(Bytes, Pair)>),
    /// What a transaction did.
    Transaction {
        /// Whether the conditions held, so that `then` was done and not `otherwise`.
        held: bool,
        /// What each op answered. Those of a transaction that goes on after failures may be failures.
        outcomes: Vec<Outcome>,
    },
    /// An op of a transaction could not be done, so nothing of it was.
    Failed {
        /// Which op of the branch, counted from 0.
        op: u32,
        /// What it answered.
        outcome: Box<Outcome>,
    },
    /// The value to increment is not a decimal 64-bit integer; nothing changed.
    NotAnInteger,
    /// The value to increment is not a decimal number; nothing changed.
    NotANumber,
    /// The increment would leave the range of numbers; nothing changed.
    Overflow,
    /// A value would grow above [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX), or what is asked is above another limit on
    /// one op or transaction; nothing changed.
    TooLarge,
    /// The pair to copy is absent; nothing changed.
    NoSource,
    /// The state would grow above its memory limit; nothing changed.
    OutOfMemory,
    /// The command is no op that this build knows; nothing changed.
    Invalid,
}

/// Bytes that are no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes are no outcome of this format")]
pub struct OutcomeError {
    /// How many bytes there were.
    pub bytes: usize,
}

impl Outcome {
    /// Whether the op could not be done, so that it undoes its transaction. A condition that does not hold is no
    /// failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Outcome::NotAnInteger
            | Outcome::NotANumber
            | Outcome::Overflow
            | Outcome::TooLarge
            | Outcome::NoSource
            | Outcome::OutOfMemory
            | Outcome::Invalid
            | Outcome::Failed { .. } => true,
            Outcome::Done
            | Outcome::NotDone
            | Outcome::Previous { .. }
            | Outcome::Count(_)
            | Outcome::Integer(_)
            | Outcome::Decimal(_)
            | Outcome::Length(_)
            | Outcome::Value(_)
            | Outcome::Pairs(_)
            | Outcome::Transaction { .. } => false,
        }
    }
}
