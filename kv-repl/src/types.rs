//! The words of Raft as types: nodes, members, hard state, configuration, kinds of entries.

use std::fmt;

pub use kv_wal::record::{Entry, EntryId, Index, Kind, Term};

pub use crate::configuration::{Configuration, MEMBERS_MAX};
pub use crate::entries::Entries;

/// The number an operator gives a node. At least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// Drawn at random by a node with an empty disk, and stored. A node that lost its disk comes back with another one, so
/// that nobody takes it for the node that once voted and acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

/// A node with one particular disk. Votes and acknowledgements count only if they come from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node's number.
    pub id: NodeId,
    /// Which of its disks.
    pub incarnation: Incarnation,
}

/// What a node must have durable before any reply that depends on it (Raft paper, figure 2, persistent state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term the node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<Member>,
}

impl NodeId {
    /// The node with this number.
    pub const fn new(value: u64) -> Self {
        NodeId(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Incarnation {
    /// The incarnation with this number.
    pub const fn new(value: u64) -> Self {
        Incarnation(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Member {
    /// Node `id` with the disk `incarnation`.
    pub const fn new(id: NodeId, incarnation: Incarnation) -> Self {
        Member { id, incarnation }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.incarnation)
    }
}

/// The kinds of entries that replication itself knows. The log stores them without looking.
pub mod kind {
    use super::Kind;

    /// A new leader's first entry (Raft paper, section 8).
    pub const NOOP: Kind = Kind(0);
    /// A command for the state machine, within a session.
    pub const COMMAND: Kind = Kind(1);
    /// The first entry of every log: who the founding members are and which secret they share.
    pub const FOUNDING: Kind = Kind(2);
    /// Opens the session of a node process; an older session of the same node ends.
    pub const SESSION: Kind = Kind(3);
    /// Each replica notes its state hash when it applies this.
    pub const MARK: Kind = Kind(4);
    /// Takes the number of a command that its client has given up, in place of the command.
    pub const SKIP: Kind = Kind(5);
    /// Who votes and who learns from here on (thesis, chapter 4).
    pub const CONFIGURATION: Kind = Kind(6);
    /// The state hash that a majority had at a mark: see [`Agreed`](crate::raft::Agreed).
    pub const AGREED: Kind = Kind(7);

    /// Nothing but its stamp: a deadline of the state machine has passed, and no command came.
    pub const CLOCK: Kind = Kind(8);

    /// Whether only the core makes entries of this kind, or the founder.
    pub fn is_reserved(kind: Kind) -> bool {
        matches!(kind, NOOP | FOUNDING | CONFIGURATION | AGREED)
    }

    /// Whether a node may ask the leader to append this: the rest is only for leaders and founders to make.
    pub fn is_forwarded(kind: Kind) -> bool {
        matches!(kind, COMMAND | SESSION | MARK | SKIP)
    }
}
