//! Raft cores without I/O, three in one process, each driven by a plain loop on disks and over a network that take no time:
//! what is measured is how long they think about commands until all three nodes have applied them.
//!
//! What makes it fair:
//!
//! - Nothing is durable: a write counts as such as soon as the core has asked for it, whichever core that is.
//! - Messages are handed over as values, in the order they were sent. Nothing is encoded for a wire.
//! - A batch is proposed as a whole, by the means that the core has for it, before anything is asked of it.
//! - Logs are kept in memory and forgotten when they have grown, after as many entries for each core.

pub mod kv_repl;
pub mod raft_rs;

/// Bytes of a command.
pub const COMMAND_BYTES: usize = kv_repl::three_cores::COMMAND_BYTES;
/// A log forgets what has been applied when it has grown to this many entries.
pub const LOG_ENTRIES_MAX: usize = 8192;

/// Three cores of one kind, with a leader.
pub trait Cores {
    /// Proposes `count` commands at once, and returns when all three nodes have applied them.
    ///
    /// # Panics
    ///
    /// If they have not: then nothing was measured.
    fn commit(&mut self, count: usize);
}

/// A kind of core.
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// Three of it, with a leader.
    pub start: fn() -> Box<dyn Cores>,
}

/// All that are compared.
pub const CORES: [Kind; 2] =
    [Kind { name: "kv-repl", start: kv_repl::start }, Kind { name: "raft-rs", start: raft_rs::start }];
