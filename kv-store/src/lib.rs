#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod apply;
pub mod checkpoint;
pub mod diff;
mod digest;
mod op;
mod outcome;
mod pair;
mod read_view;
mod store;
mod tree;
mod wire;

pub use checkpoint::{CheckpointError, CheckpointMeta};
pub use digest::{RangeDigest, Sum};
pub use kv_wal::{EntryId, Index, Term};
pub use op::{Condition, KEY_BYTES_MAX, OP_BYTES_MAX, OP_KEYS_MAX, Op, OpError, VALUE_BYTES_MAX};
pub use outcome::{Outcome, OutcomeError};
pub use pair::{Pair, Version};
pub use read_view::ReadView;
pub use store::Store;
pub use tree::Range;
