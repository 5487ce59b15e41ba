//! Raft replication of a state machine: a core without I/O, a tokio driver, tokio-util codecs.

#![forbid(unsafe_code)]

pub mod message;
pub mod raft;
pub mod types;
