#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod resp;

mod command;

mod backend;
mod client;
mod hex;
mod node;
mod node_status;
mod session;
#[cfg(test)]
mod single;

pub mod cli;
pub mod server;

pub use backend::Backend;
pub use node::{About, CLIENTS_COUNT_MAX, Node};
pub use node_status::{NodeStatus, PeerAddress};

/// The version of Redis whose behaviour clients may expect. They choose features by it.
pub const REDIS_VERSION: &str = "7.2.4";

/// What the server calls itself.
pub const SERVER_NAME: &str = "kv-node";
