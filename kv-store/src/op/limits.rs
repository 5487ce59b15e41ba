//! The limits of ops, and the errors of what is above them or malformed.

use thiserror::Error;

use super::Op;
use super::condition::{Compare, Condition, Target};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Most keys of one delete or put of many keys, and of all of these in one transaction.
pub const OP_KEYS_MAX: usize = 1 << 20;

/// Most stored pairs that the range deletes of one entry remove, those of a transaction together.
pub const DELETE_RANGE_MAX: u64 = 1 << 20;

/// Most stored pairs that the scans of one entry walk through, those of a transaction together and expired ones included.
pub const SCAN_PAIRS_MAX: u64 = 1 << 20;

/// Most conditions of a transaction.
pub const TRANSACTION_CONDITIONS_MAX: usize = 1 << 16;

/// Most ops of a transaction, those of both branches together.
pub const TRANSACTION_OPS_MAX: usize = 1 << 16;

/// Most bytes of values that a transaction writes: appending to a large value writes all of it, however short the op.
pub const TRANSACTION_VALUE_BYTES_MAX: usize = 64 << 20;

/// Longest encoded op, in bytes: room for the largest value, and well below the largest entry.
pub const OP_BYTES_MAX: usize = 32 << 20;

/// Longest encoded outcome of a scan or a transaction, in bytes.
pub const OUTCOME_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < OP_BYTES_MAX);
const _: () = assert!(OP_BYTES_MAX < kv_wal::record::PAYLOAD_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX + (1 << 10) < OUTCOME_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX < TRANSACTION_VALUE_BYTES_MAX);
// Each change of an entry has a number of 32 bits. Ops that name their keys take a byte for each.
const _: () = assert!((OP_BYTES_MAX as u64) + DELETE_RANGE_MAX < u32::MAX as u64);

/// Why bytes are not an op, or an op has no bytes. The proposer must act: no replica applies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpError {
    /// A key is above [`KEY_BYTES_MAX`].
    #[error("key of {bytes} bytes is above the limit of {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value is above [`VALUE_BYTES_MAX`].
    #[error("value of {bytes} bytes is above the limit of {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The op has more than [`OP_KEYS_MAX`] keys.
    #[error("{count} keys in one op are above the limit of {OP_KEYS_MAX}")]
    TooManyKeys {
        /// How many.
        count: usize,
    },
    /// The transaction has more than [`TRANSACTION_CONDITIONS_MAX`] conditions.
    #[error("{count} conditions in one transaction are above the limit of {TRANSACTION_CONDITIONS_MAX}")]
    TooManyConditions {
        /// How many.
        count: usize,
    },
    /// The transaction has more than [`TRANSACTION_OPS_MAX`] ops.
    #[error("{count} ops in one transaction are above the limit of {TRANSACTION_OPS_MAX}")]
    TooManyOps {
        /// How many.
        count: usize,
    },
    /// The encoded op is above [`OP_BYTES_MAX`].
    #[error("op of {bytes} bytes is above the limit of {OP_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The op stands in a transaction, where it may not.
    #[error("op with tag {tag} is not allowed in a transaction")]
    NotInTransaction {
        /// Its tag.
        tag: u8,
    },
    /// The bytes end before the op does, or a number in them is not written in the one way it may be.
    #[error("op cut short or malformed")]
    Malformed,
    /// There are bytes after the end of the op.
    #[error("{bytes} bytes after the end of the op")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The first byte is a format version this build does not know.
    #[error("op of format version {found}, this build knows {}", super::FORMAT_VERSION)]
    UnknownVersion {
        /// The version.
        found: u8,
    },
    /// The tag is no op this build knows.
    #[error("op has unknown tag {found}")]
    UnknownTag {
        /// The tag.
        found: u8,
    },
    /// The flags of an op have no meaning.
    #[error("op has unknown flags {found:#010b}")]
    UnknownFlags {
        /// The flags.
        found: u8,
    },
}

impl Op<'_> {
    /// Whether the op is within all limits but that of its bytes.
    pub(super) fn check_limits(&self) -> Result<(), OpError> {
        match self {
            Op::Put { key, value, condition, .. } => {
                check_key(key.len())?;
                check_value(value.len())?;
                if let Condition::IfValue(value) = condition { check_value(value.len()) } else { Ok(()) }
            }
            Op::Append { key, value } | Op::SetRange { key, value, .. } => {
                check_key(key.len())?;
                check_value(value.len())
            }
            Op::Delete { keys } => {
                check_key_count(keys.len())?;
                keys.iter().try_for_each(|key| check_key(key.len()))
            }
            Op::PutMany { pairs, .. } => {
                check_key_count(pairs.len())?;
                pairs.iter().try_for_each(|(key, value)| check_key(key.len()).and(check_value(value.len())))
            }
            Op::Take { key }
            | Op::Increment { key, .. }
            | Op::IncrementDecimal { key, .. }
            | Op::SetDeadline { key, .. }
            | Op::Get { key } => check_key(key.len()),
            Op::DeleteRange { from, to } | Op::Scan { from, to, .. } => {
                check_key(from.len())?;
                check_key(to.map_or(0, <[u8]>::len))
            }
            Op::Copy { from, to, .. } => check_key(from.len()).and(check_key(to.len())),
            Op::Clear | Op::SetMemoryLimit { .. } => Ok(()),
            Op::Transaction { conditions, then, otherwise, .. } => {
                check_condition_count(conditions.len())?;
                check_op_count(then.len() + otherwise.len())?;
                check_key_count(then.iter().chain(otherwise).map(Op::listed_keys).sum())?;
                conditions.iter().try_for_each(check_compare)?;
                then.iter().chain(otherwise).try_for_each(Op::check_limits_in_transaction)
            }
        }
    }

    /// How many keys the op lists.
    pub(super) fn listed_keys(&self) -> usize {
        match self {
            Op::Delete { keys } => keys.len(),
            Op::PutMany { pairs, .. } => pairs.len(),
            _ => 0,
        }
    }

    /// No recursion but this one step: what may stand in a transaction holds no ops.
    fn check_limits_in_transaction(&self) -> Result<(), OpError> {
        match self {
            Op::Transaction { .. } | Op::SetMemoryLimit { .. } => Err(OpError::NotInTransaction { tag: self.tag() }),
            _ => self.check_limits(),
        }
    }
}

fn check_compare(compare: &Compare<'_>) -> Result<(), OpError> {
    check_key(compare.key.len())?;
    if let Target::Value(value) = compare.target { check_value(value.len()) } else { Ok(()) }
}

pub(super) fn check_key(bytes: usize) -> Result<(), OpError> {
    if bytes > KEY_BYTES_MAX { Err(OpError::KeyTooLong { bytes }) } else { Ok(()) }
}

pub(super) fn check_value(bytes: usize) -> Result<(), OpError> {
    if bytes > VALUE_BYTES_MAX { Err(OpError::ValueTooLong { bytes }) } else { Ok(()) }
}

pub(super) fn check_key_count(count: usize) -> Result<(), OpError> {
    if count > OP_KEYS_MAX { Err(OpError::TooManyKeys { count }) } else { Ok(()) }
}

pub(super) fn check_condition_count(count: usize) -> Result<(), OpError> {
    if count > TRANSACTION_CONDITIONS_MAX { Err(OpError::TooManyConditions { count }) } else { Ok(()) }
}

pub(super) fn check_op_count(count: usize) -> Result<(), OpError> {
    if count > TRANSACTION_OPS_MAX { Err(OpError::TooManyOps { count }) } else { Ok(()) }
}
