//! The core seen from outside, and what must hold of it at any moment.

use std::collections::BTreeSet;

use super::progress::Progress;
use super::{Raft, Role, State};
use crate::types::{Configuration, EntryId, HardState, Index, Member, NodeId, Term};

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub me: Member,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads in this term, if known.
    pub leader: Option<NodeId>,
    /// The entry before the first one in its log.
    pub base: EntryId,
    /// The last entry in its log.
    pub last: EntryId,
    /// Its log is durable up to here.
    pub durable: Index,
    /// Everything up to here is committed.
    pub committed: Index,
    /// Who belongs to the cluster: in force, perhaps not committed yet.
    pub configuration: Configuration,
    /// On a leader, what it knows of each other member; empty elsewhere.
    pub peers: Vec<PeerProgress>,
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub member: Member,
    /// Whether there is a connection to it.
    pub is_connected: bool,
    /// How it is fed.
    pub progress: ProgressKind,
    /// Its log equals the leader's up to here, durably.
    pub match_index: Index,
    /// The next entry it is sent.
    pub next_index: Index,
    /// Messages with entries that it has not acknowledged.
    pub in_flight_messages: usize,
}

/// How a leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressKind {
    /// The last common entry is being looked for.
    Probe,
    /// It is sent entries.
    Replicate,
    /// It is sent a checkpoint.
    Snapshot,
}

impl Raft {
    /// This node.
    pub fn me(&self) -> Member {
        self.me
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Follower(_) => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// The latest term this node knows of.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Term and vote, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Who leads in this term, if known; may be this node.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Follower(follower) => follower.leader.map(|leader| leader.id),
            State::PreCandidate(_) | State::Candidate(_) => None,
            State::Leader(_) => Some(self.me.id),
        }
    }

    /// Everything up to here is committed, as far as this node knows.
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// The last entry in the log, durable or not.
    pub fn last(&self) -> EntryId {
        self.log.last()
    }

    /// The log as it is now is durable up to here.
    pub fn durable(&self) -> Index {
        self.writes.durable()
    }

    /// Whether a checkpoint that was received waits for the disk to be restored; see [`super::Output::Restore`].
    pub fn is_restoring(&self) -> bool {
        self.restore.is_some()
    }

    /// Whether the log has no room.
    pub fn is_disk_full(&self) -> bool {
        self.is_disk_full
    }

    /// Who belongs to the cluster: the configuration in force, which need not be committed yet (thesis, section 4.1).
    pub fn configuration(&self) -> &Configuration {
        self.configurations.effective()
    }

    /// Whether the configuration in force is committed.
    pub fn is_configuration_committed(&self) -> bool {
        self.configurations.index() <= self.committed
    }

    /// Everything at once.
    pub fn status(&self) -> Status {
        Status {
            me: self.me,
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            base: self.log.base(),
            last: self.last(),
            durable: self.durable(),
            committed: self.committed,
            configuration: self.configuration().clone(),
            peers: self.peers(),
        }
    }

    fn peers(&self) -> Vec<PeerProgress> {
        let State::Leader(leader) = &self.state else { return Vec::new() };
        let summary = |(member, peer): (&Member, &super::progress::Peer)| {
            let (progress, in_flight_messages) = match &peer.progress {
                Progress::Probe { .. } => (ProgressKind::Probe, 0),
                Progress::Replicate { in_flight, .. } => (ProgressKind::Replicate, in_flight.len()),
                Progress::Snapshot { .. } => (ProgressKind::Snapshot, 0),
            };
            PeerProgress {
                member: *member,
                is_connected: peer.connection.is_some(),
                progress,
                match_index: peer.match_index,
                next_index: peer.next_index,
                in_flight_messages,
            }
        };
        leader.peers.iter().map(summary).collect()
    }

    /// Checks what must always hold. Costs time in proportion to the entries in memory; for tests and simulations.
    ///
    /// # Panics
    ///
    /// If it does not hold: the core is wrong.
    pub fn invariants(&self) {
        self.log.check();
        let (base, last, durable) = (self.log.base(), self.log.last(), self.writes.durable());
        assert!(last.term <= self.hard_state.term, "no entry is of a later term");
        assert!(base.index <= self.handed_out, "only what was applied is covered by a checkpoint");
        assert!(self.handed_out <= self.committed, "only what is committed is applied");
        assert!(self.committed <= last.index, "only what is in the log is committed");
        assert!(durable <= last.index, "only what is in the log is durable");
        let in_log = self.configurations.in_log();
        let is_within = |(at, _): &(Index, _)| *at > base.index && *at <= last.index;
        assert!(in_log.iter().all(is_within), "configurations are of entries in the log");
        let in_memory = self.log.tail_first();
        assert!(in_memory <= durable.max(base.index).next(), "what is not durable is in memory");
        if let State::Leader(leader) = &self.state {
            assert_eq!(self.hard_state.voted_for, Some(self.me), "a leader has voted for itself");
            let others = |member: &Member| *member != self.me;
            let members: BTreeSet<Member> = self.configuration().members().filter(others).collect();
            assert!(leader.peers.keys().eq(members.iter()), "the peers are the other members");
            assert!(leader.peers.values().all(|peer| peer.match_index <= last.index), "no peer is ahead of the leader");
            assert!(leader.peers.values().all(|peer| peer.next_index > peer.match_index), "nothing is sent twice");
        }
    }
}
