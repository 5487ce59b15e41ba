#![cfg_attr(feature = "durable", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "durable"), doc = "An ordered in-memory key-value state machine.")]
#![forbid(unsafe_code)]

mod apply;
pub mod checkpoint;
mod decimal;
pub mod diff;
mod digest;
#[cfg(feature = "durable")]
mod durable;
mod expiry;
mod op;
mod outcome;
mod pair;
mod read_view;
mod store;
mod tree;
mod wire;

pub use checkpoint::{CheckpointError, CheckpointMeta};
pub use decimal::{DECIMAL_SCALE_MAX, DECIMAL_TEXT_BYTES_MAX, Decimal, DecimalError};
pub use digest::{RangeDigest, Sum};
#[cfg(feature = "durable")]
pub use durable::{
    APPLY_MANY_BYTES_MAX, DamagedCheckpoint, DurableError, DurableStore, Options as DurableOptions, Recovered, Status,
};
pub use kv_wal::{EntryId, Index, Term};
pub use op::{
    Compare, Condition, DELETE_RANGE_MAX, Deadline, DeadlineCondition, Failure, KEY_BYTES_MAX, OP_BYTES_MAX,
    OP_KEYS_MAX, OUTCOME_BYTES_MAX, Op, OpError, PutManyCondition, Relation, SCAN_PAIRS_MAX,
    TRANSACTION_CONDITIONS_MAX, TRANSACTION_OPS_MAX, TRANSACTION_VALUE_BYTES_MAX, Target, VALUE_BYTES_MAX,
};
pub use outcome::{Outcome, OutcomeError};
pub use pair::{Pair, PairRef, Version};
pub use read_view::{LiveRange, PAIR_OVERHEAD_BYTES, ReadView};
pub use store::{EXPIRED_REMOVED_MAX, Store};
pub use tree::Range;
