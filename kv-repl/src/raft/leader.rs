//! A leader's side (Raft paper, sections 5.3, 5.4 and 8, and figure 2, "Leaders").
//!
//! Entries go to the followers and to the leader's own disk at the same time; the leader is one voter among others, and
//! counts itself only when its own write is durable. An entry is committed when a majority has it durably *and* it is of
//! the leader's own term; earlier ones are committed with it (section 5.4.2, figure 8). So that this does not wait for a
//! client, a leader begins with an entry that does nothing (section 8).
//!
//! A leader that has heard nothing from a majority for `election_timeout_max` steps down with its next heartbeat (thesis,
//! section 6.2): it could commit nothing, and its clients had better ask elsewhere.
//!
//! Heartbeats do not depend on the disk, so a leader whose disk hangs would be obeyed for ever, while followers commit
//! what it must keep in memory. It takes no more than `uncommitted_bytes_max` of that, and it steps down when a write has
//! hung for `write_stall_max` and others have committed past it, in favour of one of them: they can do without this node. If they have not, its
//! disk is not the worst, and it stays, so that reads go on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kv_wal::record::HEADER_BYTES;
use thiserror::Error;

use super::agreement::Reports;
use super::io::{LogRead, LogReadResult, Output, ReadLog, SendSnapshot};
use super::lease::Lease;
use super::log::Log;
use super::options::Options;
use super::progress::{Peer, Progress};
use super::read_index::ReadQueue;
use super::transfer::Transfer;
use super::{Raft, State};
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendResult, InstallSnapshotReply, Message, PROPOSAL_BYTES_MAX, Proposal,
    SnapshotResult,
};
use crate::planted::{self, Mistake};
use crate::types::{Configuration, Entries, Entry, EntryId, Index, Kind, Member, NodeId, Term, kind};

pub(super) struct Leader {
    /// The other members of the configuration in force, voters and learners.
    pub(super) peers: BTreeMap<Member, Peer>,
    pub(super) reads: ReadQueue,
    /// First entry of this leader's term.
    first: Index,
    /// Number of the last round; see `read_index`. Every heartbeat is a round.
    round: u64,
    heartbeat_at: Duration,
    /// Bytes of the entries of this term that are not committed.
    uncommitted_bytes: usize,
    pub(super) transfer: Option<Transfer>,
    pub(super) lease: Lease,
    pub(super) reports: Reports,
}

/// Why nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// For the caller: this node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// For the caller, later: too much is waiting to be committed, or to become durable here.
    #[error("{waiting_bytes} bytes wait to be committed or written and {bytes} more are above the limit")]
    Busy {
        /// What waits, in bytes.
        waiting_bytes: usize,
        /// What was to be added.
        bytes: usize,
    },
    /// For the caller, soon: leadership is on its way to another node, and whoever leads then takes it.
    #[error("leadership is being handed to node {to}")]
    Transferring {
        /// That node.
        to: NodeId,
    },
    /// For the operator: this node's log has no room.
    #[error("the disk is full")]
    DiskFull,
    /// For the caller: entries of this kind are for the core to make.
    #[error("entries of kind {} are not proposed", kind.0)]
    Reserved {
        /// The kind.
        kind: Kind,
    },
    /// For the caller: an entry can't hold this.
    #[error("a payload of {bytes} bytes is above the limit of {PROPOSAL_BYTES_MAX}")]
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
    },
}

/// What the leader needs of the rest of the core to send.
struct Sending<'a> {
    term: Term,
    log: &'a Log,
    committed: Index,
    options: &'a Options,
    now: Duration,
    last_token: &'a mut u64,
    outputs: &'a mut VecDeque<Output>,
}

impl Leader {
    /// A leader whose term begins after the log as it is.
    pub(super) fn new(raft: &Raft) -> Leader {
        let last = raft.log.last().index;
        let others = raft.configurations.effective().members().filter(|member| *member != raft.me);
        let peer = |member: Member| (member, Peer::new(last, raft.connections.get(&member).copied(), raft.now));
        Leader {
            peers: others.map(peer).collect(),
            reads: ReadQueue::default(),
            first: last.next(),
            round: 0,
            heartbeat_at: raft.now,
            uncommitted_bytes: 0,
            transfer: None,
            lease: Lease::default(),
            reports: Reports::default(),
        }
    }

    /// When it has something to do, if nothing happens before.
    pub(super) fn deadline(&self) -> Duration {
        let transfer = self.transfer.as_ref().map(|transfer| transfer.until);
        self.reads.deadline().into_iter().chain(transfer).fold(self.heartbeat_at, Duration::min)
    }

    /// When a majority will have been silent for too long, if it goes on being so. This node never is, to itself.
    fn silent_at(&self, configuration: &Configuration, me: Member, options: &Options) -> Duration {
        let heard_at = self.majority(configuration, me, Duration::MAX, |peer| peer.heard_at);
        heard_at.saturating_add(options.election_timeout_max)
    }

    fn begin_round(&mut self, now: Duration) {
        self.round += 1;
        self.lease.round_begins(self.round, now);
    }

    /// Whether a peer keeps up with the log, so that it can be counted on; see [`Peer::has_caught_up`].
    pub(super) fn has_caught_up(&self, member: Member, timely: Duration) -> bool {
        self.peers.get(&member).is_some_and(|peer| peer.has_caught_up(timely))
    }

    /// First entry of this leader's term.
    pub(super) fn first(&self) -> Index {
        self.first
    }

    pub(super) fn reconnect(&mut self, peer: Member, connection: Option<u64>, last: Index) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.reconnect(connection, last);
        }
    }

    /// All followers that were heard lately hold everything up to here, or are being sent a checkpoint that does.
    pub(super) fn held_by_all(&self, now: Duration, options: &Options) -> Option<Index> {
        self.peers.values().filter(|peer| peer.is_heard(now, options)).map(Peer::holds).min()
    }

    /// What a majority has reached, where this node has reached `own`. A leader that is to leave does not count itself.
    fn majority<T: Ord + Copy>(
        &self,
        configuration: &Configuration,
        me: Member,
        own: T,
        of_peer: impl Fn(&Peer) -> T,
    ) -> T {
        let peer = |member: &Member| self.peers.get(member).expect("every other member is a peer");
        configuration.reached(|member| if member == me { own } else { of_peer(peer(&member)) })
    }
}

impl Raft {
    /// Appends entries with these proposals, all of them or none, and says which the last one is. They have the greater
    /// of `stamp_ms` (the wall clock) and the last stamp in the log, so that stamps never go back. The result is known
    /// when they are applied; another leader may have replaced them by then.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; nothing has been appended then.
    pub fn propose(&mut self, now: Duration, stamp_ms: u64, proposals: &[Proposal]) -> Result<EntryId, ProposeError> {
        self.see(now);
        let leader = self.leader();
        let State::Leader(state) = &self.state else { return Err(ProposeError::NotLeader { leader }) };
        if let Some(bytes) = proposals.iter().map(|one| one.payload.len()).find(|bytes| *bytes > PROPOSAL_BYTES_MAX) {
            return Err(ProposeError::TooLarge { bytes });
        }
        if let Some(kind) = proposals.iter().map(|one| one.kind).find(|kind| kind::is_reserved(*kind)) {
            return Err(ProposeError::Reserved { kind });
        }
        if let Some(to) = state.transfer_to() {
            return Err(ProposeError::Transferring { to });
        }
        if self.is_disk_full {
            return Err(ProposeError::DiskFull);
        }
        let bytes: usize = proposals.iter().map(|one| HEADER_BYTES + one.payload.len()).sum();
        let waiting_bytes = state.uncommitted_bytes.max(self.writes.in_flight_bytes() + self.log.unwritten_bytes());
        if waiting_bytes > 0 && waiting_bytes + bytes > self.options.uncommitted_bytes_max {
            return Err(ProposeError::Busy { waiting_bytes, bytes });
        }
        self.append_proposals(stamp_ms, proposals, bytes);
        Ok(self.log.last())
    }

    /// Appends an entry that the core itself has something to say with.
    pub(super) fn append_own(&mut self, kind: Kind, payload: Bytes) {
        let bytes = HEADER_BYTES + payload.len();
        self.append_proposals(0, &[Proposal { kind, payload }], bytes);
    }

    /// Encodes all entries into one piece of memory.
    fn append_proposals(&mut self, stamp_ms: u64, proposals: &[Proposal], bytes: usize) {
        let stamp_ms = stamp_ms.max(self.stamp_ms);
        let term = self.hard_state.term;
        let mut index = self.log.last().index;
        let mut buffer = BytesMut::with_capacity(bytes);
        let encode = |proposal: &Proposal| {
            index = index.next();
            Entry::encode(&mut buffer, EntryId::new(term, index), stamp_ms, proposal.kind, &proposal.payload)
        };
        let entries: Entries = proposals.iter().map(encode).collect();
        self.append(entries);
        if let State::Leader(leader) = &mut self.state {
            leader.uncommitted_bytes += bytes;
        }
    }

    /// The first things a leader does: an entry of its own term, and a word to everybody.
    pub(super) fn start_reign(&mut self) {
        self.append_own(kind::NOOP, Bytes::new());
        self.handle_leader_timeout();
        self.tell_marked();
    }

    /// Sends heartbeats when they are due, or steps down then if a majority has been silent for too long. Steps down when it
    /// goes on without this node's disk.
    pub(super) fn handle_leader_timeout(&mut self) {
        let is_outrun = self.is_stalled() && self.committed > self.writes.durable();
        let State::Leader(leader) = &mut self.state else { return };
        if is_outrun {
            return self.abdicate();
        }
        if self.now >= leader.heartbeat_at {
            if self.now >= leader.silent_at(self.configurations.effective(), self.me, &self.options) {
                return self.follow(self.hard_state.term, None);
            }
            leader.heartbeat_at = self.now + self.options.heartbeat_interval;
            leader.begin_round(self.now);
            self.let_newcomers_in();
        }
        self.refuse_expired_reads();
    }

    pub(super) fn handle_append_entries_reply(&mut self, from: Member, reply: AppendEntriesReply) {
        let now = self.now;
        let timely = self.timely();
        let Some((round, peer, log)) = self.replying_peer(from, reply.term, reply.connection) else { return };
        if reply.result == AppendResult::StaleTerm || reply.round > round {
            return;
        }
        peer.answered_round = peer.answered_round.max(reply.round);
        match reply.result {
            AppendResult::Durable(index) => {
                peer.acknowledged(index, log);
                peer.advance_catch_up(log.last().index, now, timely);
                if index > self.committed {
                    self.advance_commit();
                }
            }
            AppendResult::Mismatch { refused, hint } => peer.refused(refused, hint, log),
            AppendResult::Alive | AppendResult::StaleTerm => {}
        }
        self.confirm_reads();
    }

    pub(super) fn handle_install_snapshot_reply(&mut self, from: Member, reply: InstallSnapshotReply) {
        let now = self.now;
        let (soon, later) = (now + self.options.heartbeat_interval, now + self.options.election_timeout_max);
        let Some((_, peer, log)) = self.replying_peer(from, reply.term, reply.connection) else { return };
        match reply.result {
            SnapshotResult::Continue { offset } => peer.snapshot_wanted(reply.last, offset, now),
            SnapshotResult::Installed => {
                peer.acknowledged(reply.last.index, log);
                // If that was not enough, the log has been cut beyond that checkpoint meanwhile, or has a hole beyond it.
                peer.restart_snapshot(soon);
            }
            SnapshotResult::Failed => {
                // All of it was sent for nothing, and all of it will be again.
                peer.restart_snapshot(later);
                self.outputs.push_back(Output::VerifySnapshot { last: reply.last });
            }
            SnapshotResult::StaleTerm => {}
        }
        self.advance_commit();
    }

    /// The peer that an answer is about, if this node leads in the answer's term and sent the question on the present
    /// connection. A later term ends the reign.
    fn replying_peer(&mut self, from: Member, term: Term, connection: u64) -> Option<(u64, &mut Peer, &Log)> {
        if term > self.hard_state.term && matches!(self.state, State::Leader(_)) {
            self.follow(term, None);
        }
        let State::Leader(leader) = &mut self.state else { return None };
        let peer = leader.peers.get_mut(&from)?;
        let is_present = term == self.hard_state.term && peer.connection == Some(connection);
        if !is_present && !planted::is(Mistake::StaleAcknowledgement) {
            return None;
        }
        peer.heard_at = self.now;
        Some((leader.round, peer, &self.log))
    }

    /// Commits what a majority has durably, if it is of this term (section 5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let own = self.writes.durable();
        let reached = leader.majority(self.configurations.effective(), self.me, own, |peer| peer.match_index);
        let is_own_term = self.log.term(reached) == Some(self.hard_state.term);
        if reached <= self.committed || !(is_own_term || planted::is(Mistake::OldTermCommittedByCounting)) {
            return;
        }
        // All of this term is in memory until it has been committed and handed out.
        let newly_of_term = self.log.tail_from(self.committed.next().max(leader.first));
        let newly_committed = newly_of_term.take_while(|entry| entry.index() <= reached);
        leader.uncommitted_bytes -= newly_committed.map(|entry| entry.frame().len()).sum::<usize>();
        self.committed = reached;
    }

    fn confirm_reads(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if !leader.reads.is_asking() && !leader.lease.is_asking() {
            return;
        }
        let own = leader.round;
        let round = leader.majority(self.configurations.effective(), self.me, own, |peer| peer.answered_round);
        leader.lease.round_answered(round);
        let round = if planted::is(Mistake::ReadWithoutConfirmation) { u64::MAX } else { round };
        while let State::Leader(leader) = &mut self.state
            && let Some((index, readers)) = leader.reads.confirmed(round)
        {
            for reader in readers {
                self.answer_reader(reader, Some(index));
            }
        }
    }

    /// Entries for another node have been read from the disk, or are not there any more.
    pub fn handle_log_read(&mut self, now: Duration, read: LogRead) {
        self.see(now);
        self.finish_fetch(read.token, &read.result);
        let send_at = self.now + self.options.heartbeat_interval;
        let State::Leader(leader) = &mut self.state else { return };
        let round = leader.round;
        let Some(peer) = leader.peers.get_mut(&read.peer) else { return };
        let Progress::Replicate { reading, .. } = &mut peer.progress else { return };
        let Some((_, from)) = reading.take_if(|(token, _)| *token == read.token) else { return };
        // Acknowledged from another message while it was being read, or cut off: decide anew.
        if from != peer.next_index || from <= self.log.base().index {
            return;
        }
        let LogReadResult::Entries(entries) = read.result else {
            if from <= self.handed_out {
                return peer.need_snapshot(from, send_at);
            }
            // Asked for no more.
            *reading = Some((read.token, from));
            return self.outputs.push_back(Output::Unreadable { first: from });
        };
        assert!(
            entries.iter().all(|entry| self.log.contains(entry.id())),
            "the disk holds the log that the core knows"
        );
        let mut sending = Sending {
            term: self.hard_state.term,
            log: &self.log,
            committed: self.committed,
            options: &self.options,
            now: self.now,
            last_token: &mut self.last_token,
            outputs: &mut self.outputs,
        };
        sending.entries(read.peer, peer, round, entries);
    }

    /// Sends every follower what it has not been sent.
    pub(super) fn flush_leader(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.reads.is_waiting() && self.committed >= leader.first {
            leader.begin_round(self.now);
            leader.reads.start_round(leader.round, self.committed);
        }
        let round = leader.round;
        let mut sending = Sending {
            term: self.hard_state.term,
            log: &self.log,
            committed: self.committed,
            options: &self.options,
            now: self.now,
            last_token: &mut self.last_token,
            outputs: &mut self.outputs,
        };
        for (to, peer) in &mut leader.peers {
            sending.feed(*to, peer, round);
        }
        self.advance_transfer();
        // A single voter is a majority.
        self.confirm_reads();
    }
}

impl Sending<'_> {
    /// Sends entries as far as the window goes; if there are none, a new round or a new commit index alone, so that the
    /// follower learns of it at once.
    fn feed(&mut self, to: Member, peer: &mut Peer, round: u64) {
        if peer.connection.is_none() {
            return;
        }
        let is_behind = peer.next_index <= self.log.base().index;
        if is_behind {
            peer.need_snapshot(self.log.base().index, self.now + self.options.heartbeat_interval);
        }
        let last = self.log.last().index;
        while peer.has_window(self.options.inflight_messages_max) {
            let is_probe = matches!(peer.progress, Progress::Probe { .. });
            if !is_probe && peer.next_index > last {
                break;
            }
            let entries = self.log.entries(peer.next_index, self.options.message_bytes_max);
            if is_probe || !entries.is_empty() {
                self.entries(to, peer, round, entries);
            } else {
                self.read_log(to, peer);
            }
        }
        let is_commit_news =
            peer.told_committed < self.committed && matches!(peer.progress, Progress::Replicate { .. });
        if peer.told_round < round || is_commit_news {
            self.append(to, peer, round, Entries::default());
        }
        self.snapshot(to, peer);
    }

    fn entries(&mut self, to: Member, peer: &mut Peer, round: u64, entries: Entries) {
        let last = entries.last().map_or(peer.next_index.prev(), Entry::index);
        self.append(to, peer, round, entries);
        peer.sent(last, self.now);
    }

    fn append(&mut self, to: Member, peer: &mut Peer, round: u64, entries: Entries) {
        let Some(connection) = peer.connection else { return };
        // While a checkpoint is on its way the message only says that this node leads: before the first entry all logs
        // agree.
        let prev_index = match peer.progress {
            Progress::Snapshot { .. } => Index::ZERO,
            Progress::Probe { .. } | Progress::Replicate { .. } => peer.next_index.prev(),
        };
        let prev_term = if prev_index == Index::ZERO { Some(Term::ZERO) } else { self.log.term(prev_index) };
        let prev = EntryId::new(prev_term.expect("a follower before the base gets a snapshot"), prev_index);
        let (term, committed) = (self.term, self.committed);
        let message = Message::AppendEntries(AppendEntries { term, prev, committed, round, connection, entries });
        self.outputs.push_back(Output::Send { to, message });
        (peer.told_round, peer.told_committed) = (round, committed);
    }

    fn read_log(&mut self, to: Member, peer: &mut Peer) {
        let Progress::Replicate { reading, .. } = &mut peer.progress else { return };
        *self.last_token += 1;
        let (token, bytes_max) = (*self.last_token, self.options.message_bytes_max);
        *reading = Some((token, peer.next_index));
        self.outputs.push_back(Output::ReadLog(ReadLog { peer: to, token, from: peer.next_index, bytes_max }));
    }

    /// Asks for a piece of a checkpoint to be sent, when it is time to.
    fn snapshot(&mut self, to: Member, peer: &mut Peer) {
        let Some(connection) = peer.connection else { return };
        if let Progress::Snapshot { needed, wanted, send_at } = &mut peer.progress
            && self.now >= *send_at
        {
            *send_at = self.now + self.options.election_timeout_max;
            let request = SendSnapshot { to, term: self.term, connection, wanted: *wanted, needed: *needed };
            self.outputs.push_back(Output::SendSnapshot(request));
        }
    }
}
