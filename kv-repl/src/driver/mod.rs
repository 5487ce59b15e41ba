//! Runs the Raft core: a thin tokio driver with three threads (log, applier, checkpoints) and a task for each peer.
//!
//! In reading order: [`traits`] are the seams, `config` and `identity` say who a node is, `founding` how a cluster
//! begins, `replicated` and `sessions` what is agreed on, `origin` and `reads` how clients' work reaches the leader,
//! `task` is the one loop, `replica` the handle.

mod applier;
mod apply_queue;
mod boot;
mod checkpoints;
mod clock;
pub(crate) mod config;
mod defaults;
pub(crate) mod founding;
pub(crate) mod host;
pub(crate) mod identity;
mod log_writer;
mod marks;
mod origin;
pub(crate) mod peers;
mod reads;
pub(crate) mod replica;
mod replicated;
mod sessions;
mod shared;
#[cfg(feature = "testing")]
pub(crate) mod simulated;
mod snapshots;
mod start;
mod task;
mod tasks;
#[cfg(test)]
mod testing;
pub(crate) mod threads;
pub(crate) mod traits;

pub use replicated::state_hash;
pub use shared::Mark;
