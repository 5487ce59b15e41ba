//! Whole nodes, three in one process on one runtime, with logs in memory and a network that is a call or a channel: what it
//! costs a program until one client's commands are applied on the leader, when neither disk nor network costs anything.
//!
//! What makes it fair:
//!
//! - Nothing is durable: a log in memory says at once that it has written.
//! - No byte leaves the process, and a command is a counted reference. openraft's requests are calls; ours encodes and checks
//!   its messages all the same, since its transport is a stream of bytes.
//! - A batch is submitted as a whole by the means that the crate has for it, and only then waited for.
//! - The state machines count commands. Each crate forgets its log by its own rule, from checkpoints of that count.

pub mod kv_repl;
pub mod openraft;

use std::time::Duration;

/// Bytes of a command.
pub const COMMAND_BYTES: usize = kv_repl::three_nodes::COMMAND_BYTES;

/// Three nodes of one kind, with a leader.
pub trait Nodes {
    /// The time that one client, a task on the runtime of the nodes, takes for so many batches: it submits `count` commands
    /// at once on the leader, and waits until they are applied there before it submits the next.
    ///
    /// # Panics
    ///
    /// If one of them was not applied: then nothing was measured.
    fn commit(&self, count: usize, batches: u64) -> Duration;

    /// Ends them, so that the next kind has the machine for itself.
    fn shutdown(self: Box<Self>);
}

/// A kind of node.
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// Three of it, with a leader.
    pub start: fn() -> Box<dyn Nodes>,
}

/// All that are compared.
pub const NODES: [Kind; 2] =
    [Kind { name: "kv-repl", start: kv_repl::start }, Kind { name: "openraft", start: openraft::start }];
