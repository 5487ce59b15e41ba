#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod codec;
mod configuration;
mod driver;
mod entries;
pub mod message;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod quorum;
pub mod raft;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod types;

pub use driver::config::{ReplicaConfig, StartError};
pub use driver::founding::FoundingRecord;
pub use driver::replica::{COMMAND_BYTES_MAX, PeerStatus, ReadError, Replica, Status, TransferError, WriteError};
pub use driver::traits::{BoxError, CheckpointMeta, Log, LogDamage, LogError, LogReader, StateMachine};
pub use driver::{Mark, state_hash};
pub use raft::Role;
pub use types::NodeId;
