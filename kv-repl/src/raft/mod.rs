//! Raft as a state machine that sees no world: time, seed, messages and disk completions go in, [`Output`]s come out.
//!
//! It follows figure 2 of the Raft paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm",
//! extended version), and of Ongaro's thesis sections 3.10 (leadership transfer), 4 (membership), 6.2 (a leader without a
//! majority steps down), 6.4 (ReadIndex) and 9.6 (pre-vote).
//!
//! ```text
//!                 times out             majority would vote         majority voted
//!   Follower -------------------> PreCandidate ----------> Candidate ----------------> Leader
//!      ^                               |                       |                          |
//!      +--- a leader of this term, a later term, or a majority that fell silent (leader) -+
//! ```
//!
//! # Driving it
//!
//! Hand in whatever has happened through the `handle_*` methods, [`Raft::propose`] and [`Raft::read`]; then call
//! [`Raft::poll_output`] until it is empty; then sleep until [`Raft::poll_timeout`] at the latest. What is sent and
//! written is decided only when outputs are asked for, so that many inputs in a row make one write and one message to
//! each peer. Times are durations since any fixed moment and never go back.
//!
//! # What makes acknowledgements true
//!
//! `writes` knows what is durable, and only a [`Durable`] teaches it. Everything that depends on the disk is kept as
//! state ("a vote is due", "acknowledged so far") and let go by one function, `release`, when the disk has got there.

mod agreement;
mod candidate;
mod configurations;
mod damage;
mod follower;
mod io;
mod leader;
mod lease;
mod log;
mod membership;
mod options;
mod progress;
mod read_index;
mod rng;
mod snapshot;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod writes;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Duration;

pub use self::agreement::Agreed;
pub(crate) use self::agreement::MARKS_MAX;
pub use self::io::{
    Apply, Boot, Durable, LogRead, LogReadResult, Lost, Output, ReadLog, Role, RoleChange, SendSnapshot,
    SnapshotProgress, Write,
};
pub use self::leader::ProposeError;
pub use self::membership::ChangeError;
pub use self::options::{Options, OptionsError};
pub use self::status::{PeerProgress, ProgressKind, Status};
pub use self::transfer::TransferError;

use self::candidate::{Candidate, PreCandidate};
use self::configurations::Configurations;
use self::damage::{Damage, Fetching};
use self::follower::Follower;
use self::leader::Leader;
use self::log::Log;
use self::rng::Rng;
use self::writes::Writes;
use crate::message::Message;
use crate::planted::{self, Mistake};
use crate::types::{Entries, Entry, EntryId, HardState, Index, Member, Term};

/// The most terms that a node can have missed. An election a second takes a century for them, so a term that is further
/// ahead is not of this cluster; and a node that believed in one near the end of numbers could never be led again.
const TERMS_MISSED_MAX: u64 = 1 << 32;

/// One node's part in Raft.
pub struct Raft {
    me: Member,
    options: Options,
    configurations: Configurations,
    hard_state: HardState,
    log: Log,
    writes: Writes,
    committed: Index,
    /// Entries up to here have been given out to be applied, or are in a checkpoint that has been.
    handed_out: Index,
    /// The checkpoint that the state machine takes when the reset of the log is durable.
    restore: Option<EntryId>,
    state: State,
    announced: RoleChange,
    /// The latest time that was handed in.
    now: Duration,
    election_at: Duration,
    /// How long a leader may be silent, as it was last drawn.
    election_timeout: Duration,
    /// When a leader was last heard. With leases, at the start: then, since it may have been heard before.
    heard_leader_at: Option<Duration>,
    rng: Rng,
    /// Nodes that messages can be sent to, each with the number of the connection.
    connections: BTreeMap<Member, u64>,
    /// The greatest stamp seen on an entry.
    stamp_ms: u64,
    is_disk_full: bool,
    last_token: u64,
    /// This replica's state is not that of the majority.
    is_diverged: bool,
    /// The last mark that this replica has applied, and its state hash there.
    marked: Option<Agreed>,
    /// What is lost of the log.
    damage: Option<Damage>,
    /// What others have lost of theirs, and this node reads from its disk for them.
    fetching: Vec<Fetching>,
    outputs: VecDeque<Output>,
    /// Something has come in since it was last decided what follows from it.
    has_input: bool,
}

enum State {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Leader),
}

impl Raft {
    /// A node that has just started, as a follower. What its state machine holds is committed.
    ///
    /// # Panics
    ///
    /// If `options` are not valid or the parts of `boot` contradict each other.
    pub fn new(me: Member, options: Options, boot: Boot, now: Duration) -> Raft {
        options.validate().expect("options are checked by whoever takes them from outside");
        assert!(boot.base.index <= boot.applied, "the checkpoint reaches the log");
        assert!(boot.applied <= boot.last, "a log that ends before the checkpoint is reset first");
        let is_in_log = |(at, _): &(Index, _)| *at > boot.applied && *at <= boot.last;
        assert!(boot.configurations.iter().all(is_in_log), "what the checkpoint covers is in its configuration");
        let log = Log::with_losses(boot.base, boot.terms, boot.last, &boot.lost);
        assert!(boot.lost.iter().all(|lost| lost.first > boot.applied), "what the checkpoint covers is not missed");
        // A checkpoint can be ahead of the hard state. In a term that is not in it, this node has not voted.
        let mut hard_state = boot.hard_state;
        if hard_state.term < log.last().term {
            hard_state = HardState { term: log.last().term, voted_for: None };
        }
        let mut rng = Rng::new(&[options.seed, me.id.get(), me.incarnation.get()]);
        // Not from 0: an answer to a question of the process before this one must not be taken for one of this one's.
        let last_token = rng.next() >> 1;
        let heard_leader_at = options.lease.map(|_| now);
        let mut raft = Raft {
            me,
            options,
            configurations: Configurations::new(boot.configuration, boot.configurations),
            hard_state,
            writes: Writes::new(log.last().index),
            log,
            committed: boot.applied,
            handed_out: boot.applied,
            restore: None,
            state: State::Follower(Follower::new(None)),
            announced: RoleChange { role: Role::Follower, term: hard_state.term, leader: None },
            now,
            election_at: now,
            election_timeout: Duration::ZERO,
            heard_leader_at,
            rng,
            connections: BTreeMap::new(),
            stamp_ms: boot.stamp_ms,
            is_disk_full: false,
            last_token,
            is_diverged: boot.is_diverged,
            marked: None,
            damage: Damage::new(boot.lost, now),
            fetching: Vec::new(),
            outputs: VecDeque::new(),
            has_input: true,
        };
        raft.reset_election_timer();
        raft
    }

    /// Takes a message. Questions and entries are taken from anyone: whoever sends them may be a member by a configuration
    /// that this node has not received yet (thesis, section 4.1). Answers count only from members of the configuration in
    /// force, incarnation included: a node that lost its disk must not be taken for the one that once voted and
    /// acknowledged. Ignored is what comes from this node itself, or with a term that cannot be true.
    pub fn handle_message(&mut self, now: Duration, from: Member, message: Message) {
        self.see(now);
        let effective = self.configurations.effective();
        let from = match effective.voter(from.id) {
            Some(voter) if planted::is(Mistake::WipedNodeVotes) => voter,
            _ => from,
        };
        if from.id == self.me.id || (is_counted(&message) && !self.configurations.effective().is_member(from)) {
            return;
        }
        if message.term().get().saturating_sub(self.hard_state.term.get()) > TERMS_MISSED_MAX {
            return;
        }
        match message {
            Message::PreVote(request) => self.handle_pre_vote(from, request),
            Message::PreVoteReply(reply) => self.handle_pre_vote_reply(from, reply),
            Message::RequestVote(request) => self.handle_request_vote(from, request),
            Message::RequestVoteReply(reply) => self.handle_request_vote_reply(from, reply),
            Message::TimeoutNow(order) => self.handle_timeout_now(from, order),
            Message::AppendEntries(append) => self.handle_append_entries(from, append),
            Message::AppendEntriesReply(reply) => self.handle_append_entries_reply(from, reply),
            Message::InstallSnapshot(piece) => self.handle_install_snapshot(from, piece),
            Message::InstallSnapshotReply(reply) => self.handle_install_snapshot_reply(from, reply),
            Message::Marked(marked) => self.handle_marked_message(from, marked),
            Message::FetchEntries(request) => self.handle_fetch_entries(from, request),
            Message::FetchEntriesReply(reply) => self.handle_fetch_entries_reply(reply),
            Message::ReadIndex(request) => self.handle_read_index(from, request),
            Message::ReadIndexReply(reply) => self.handle_read_index_reply(from, reply),
            // Proposals need a time stamp, and the driver has the clock: it proposes them.
            Message::Forward(_) => {}
        }
    }

    /// Does what is due. Harmless if nothing is.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.see(now);
        match self.state {
            State::Leader(_) => self.handle_leader_timeout(),
            _ if self.election_deadline().is_some_and(|at| self.now >= at) => self.start_pre_vote(),
            _ => self.refuse_expired_reads(),
        }
    }

    /// Takes the proof that a write, and all before it, are durable.
    pub fn handle_durable(&mut self, now: Duration, done: Durable) {
        self.see(now);
        self.writes.complete(&done);
        self.release();
    }

    /// The log has no room for what it has been given, or has room again. Meanwhile proposals are refused; everything else
    /// goes on, and a leader whom the others can do without makes way when `write_stall_max` has passed.
    pub fn handle_disk_full(&mut self, now: Duration, is_full: bool) {
        self.see(now);
        self.is_disk_full = is_full;
    }

    /// The connection that messages to `peer` are sent on is now this one. Numbers grow. What was sent before may be
    /// lost. A node is there with one disk at a time: a connection to it with another one has ended.
    pub fn handle_connected(&mut self, now: Duration, peer: Member, connection: u64) {
        self.see(now);
        let gone = self.connections.keys().copied().find(|other| other.id == peer.id && *other != peer);
        gone.into_iter().for_each(|gone| self.handle_disconnected(now, gone));
        self.connections.insert(peer, connection);
        self.set_connection(peer, Some(connection));
    }

    /// There is no connection to `peer` any more.
    pub fn handle_disconnected(&mut self, now: Duration, peer: Member) {
        self.see(now);
        self.connections.remove(&peer);
        self.set_connection(peer, None);
    }

    fn set_connection(&mut self, peer: Member, connection: Option<u64>) {
        let last = self.log.last().index;
        if let State::Leader(leader) = &mut self.state {
            leader.reconnect(peer, connection, last);
        }
        self.interrupt_transfer(peer);
        self.refuse_reads_asked_of(peer);
    }

    /// Checkpoints cover the log up to and including `base`. Says whether it can be removed now, and forgets it then. Not
    /// if the log begins later already, what the checkpoints hold has not been handed out to be applied, or the entry at
    /// `base` is still to be written.
    ///
    /// # Panics
    ///
    /// If `base` is another entry than the log's.
    #[must_use = "the log on the disk is removed only if it is forgotten here"]
    pub fn handle_truncated(&mut self, base: EntryId) -> bool {
        let is_written = base.index < self.log.first_unwritten();
        let is_covered = base.index > self.log.base().index && base.index <= self.handed_out && is_written;
        if is_covered {
            self.has_input = true;
            self.log.truncate_prefix(base);
            self.configurations.truncate_prefix(base.index);
        }
        is_covered
    }

    /// A leader's log had better not be truncated beyond this: a follower that is being sent a checkpoint would need
    /// another one as soon as it has it, and one that is being sent entries would need a checkpoint. For how long that is
    /// kept up is for the driver to say, who knows how large the log may grow.
    pub fn truncation_floor(&self) -> Index {
        let State::Leader(leader) = &self.state else { return Index::new(u64::MAX) };
        leader.held_by_all(self.now, &self.options).unwrap_or(Index::new(u64::MAX))
    }

    /// The next thing to do, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && mem::take(&mut self.has_input) {
            self.flush();
        } else if cfg!(debug_assertions) && self.outputs.is_empty() {
            self.flush();
            assert!(self.outputs.is_empty(), "nothing follows from nothing");
        }
        self.outputs.pop_front()
    }

    /// When to call [`Raft::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.state {
            State::Leader(leader) => Some(leader.deadline()),
            State::Follower(follower) => {
                let repair = self.damage.as_ref().and_then(Damage::deadline);
                self.election_deadline().into_iter().chain(follower.reads.deadline()).chain(repair).min()
            }
            State::PreCandidate(_) | State::Candidate(_) => self.election_deadline(),
        }
    }

    /// When to ask whether this node would be elected. Not while its last vote is on its way to the disk.
    fn election_deadline(&self) -> Option<Duration> {
        (self.may_campaign() && self.writes.is_hard_state_durable()).then_some(self.election_at)
    }

    /// Decides what to write, send and apply, now that all inputs are in.
    fn flush(&mut self) {
        self.advance_membership();
        self.advance_repair();
        if let Some(write) = self.writes.take(self.now, self.log.take_unwritten()) {
            self.outputs.push_back(Output::Write(write));
        }
        self.flush_leader();
        self.hand_out();
        self.log.shrink_tail(self.handed_out.min(self.writes.durable()), self.options.tail_bytes_max);
    }

    /// Gives out what has been committed. Nothing while a checkpoint waits to be restored: it comes first.
    fn hand_out(&mut self) {
        if self.handed_out >= self.committed || self.restore.is_some() {
            return;
        }
        let (first, last) = (self.handed_out.next(), self.committed);
        let tail_first = self.log.tail_first();
        if first < tail_first {
            let last = last.min(tail_first.prev());
            assert!(last <= self.writes.durable(), "what is not durable stays in memory");
            self.outputs.push_back(Output::Apply(Apply::Stored { first, last }));
        }
        let pieces: Vec<Entries> = self.log.pieces(first.max(tail_first), last).collect();
        if !pieces.is_empty() {
            self.outputs.push_back(Output::Apply(Apply::Entries(pieces)));
        }
        self.handed_out = last;
    }

    /// Lets go what waited for the disk, as far as the disk has got.
    fn release(&mut self) {
        if self.writes.is_reset_durable()
            && let Some(last) = self.restore.take()
        {
            self.outputs.push_back(Output::Restore { last });
        }
        match &self.state {
            State::Follower(_) => self.release_follower(),
            State::PreCandidate(_) => {}
            State::Candidate(_) => self.release_own_vote(),
            State::Leader(_) => self.advance_commit(),
        }
    }

    /// Goes on as a follower, of `leader` if it is known. The vote is forgotten only with its term: a node that steps
    /// down within a term has still voted in it (CCF #8094).
    fn follow(&mut self, term: Term, leader: Option<Member>) {
        assert!(term >= self.hard_state.term, "terms never go back");
        if term > self.hard_state.term || planted::is(Mistake::VoteClearedOnStepDown) {
            self.set_hard_state(HardState { term, voted_for: None });
        }
        if matches!(self.state, State::Leader(_)) {
            self.reset_election_timer();
        }
        self.enter(State::Follower(Follower::new(leader)));
    }

    fn enter(&mut self, state: State) {
        let ended = mem::replace(&mut self.state, state);
        self.refuse_readers(ended);
        self.announce();
    }

    fn announce(&mut self) {
        let change = RoleChange { role: self.role(), term: self.term(), leader: self.leader() };
        if self.announced != change {
            self.announced = change;
            self.outputs.push_back(Output::Role(change));
        }
    }

    fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
        self.writes.set_hard_state(hard_state);
    }

    /// Takes entries into the log, in place of whatever is there from the first of them on.
    fn append(&mut self, entries: Entries) {
        let Some((first, last)) = entries.first().zip(entries.last()).map(|(a, b)| (a.index(), b.index())) else {
            return;
        };
        assert!(first > self.committed, "what is committed is never replaced");
        self.stamp_ms = entries.iter().map(Entry::stamp_ms).fold(self.stamp_ms, u64::max);
        let may_differ = self.configurations.append(&entries);
        self.writes.append(first, last);
        self.log.append(entries);
        if may_differ {
            self.configuration_changed();
        }
    }

    fn see(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.has_input = true;
    }

    /// A new timeout is drawn whenever there is no leader, so that split votes don't repeat (Raft paper, section 5.2).
    fn reset_election_timer(&mut self) {
        let (min, max) = (self.options.election_timeout_min, self.options.election_timeout_max);
        self.election_timeout = self.rng.between(min, max);
        self.election_at = self.now + self.election_timeout;
    }

    /// A node that does not vote follows, and that is all. But one that is being removed stands for election until it knows
    /// that its removal is committed, since perhaps nobody else has the entry; its own vote does not count then (thesis,
    /// section 4.2.2). One whose disk hangs, has lost entries, or whose state is wrong, had better not
    /// lead.
    fn may_campaign(&self) -> bool {
        let may_vote = self.configurations.possible(self.committed).any(|one| one.is_voter(self.me));
        may_vote && !self.is_stalled() && !self.is_damaged() && !self.is_diverged
    }

    /// Whether the disk has had a write for too long.
    fn is_stalled(&self) -> bool {
        let stalled_at = self.writes.oldest_since().map(|since| since.saturating_add(self.options.write_stall_max));
        stalled_at.is_some_and(|at| self.now >= at)
    }

    /// Whether a leader was heard so lately that it is better left alone.
    fn hears_a_leader(&self) -> bool {
        !planted::is(Mistake::VoteClearedOnStepDown)
            && self.heard_leader_at.is_some_and(|at| self.now < at + self.options.election_timeout_min)
    }

    fn fresh_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn send(&mut self, to: Member, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Sends the same to every other voter.
    fn send_to_voters(&mut self, message: &Message) {
        for to in self.configurations.effective().all_voters().filter(|voter| *voter != self.me) {
            self.outputs.push_back(Output::Send { to, message: message.clone() });
        }
    }
}

/// Whether a message counts for something that takes a majority. `ReadIndexReply` does not: it is the leader's alone.
fn is_counted(message: &Message) -> bool {
    matches!(
        message,
        Message::PreVoteReply(_)
            | Message::RequestVoteReply(_)
            | Message::AppendEntriesReply(_)
            | Message::InstallSnapshotReply(_)
            | Message::Marked(_)
    )
}
