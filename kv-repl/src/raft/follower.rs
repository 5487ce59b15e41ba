//! A follower's side of log replication (Raft paper, section 5.3 and figure 2, "Receiver implementation").
//!
//! Two facts are reported to the leader, and they are kept apart. *Alive*: this node follows it; answered at once,
//! however slow the disk is. *Durable*: the log equals the leader's up to an index, and is on the disk. The second one is
//!
//! ```text
//!   min(durable, matched)      matched: up to here the log equals that of the leader of this term
//! ```
//!
//! and is reported whenever it has grown, so that one sync gives one acknowledgement, however many messages it covers.
//! `matched` is at least the commit index (Leader Completeness, figure 3). It never falls within a term, because entries
//! of the term's one leader never contradict each other.

use super::log::end_of_chain;
use super::read_index::AskedReads;
use super::{Raft, State};
use crate::message::{AppendEntries, AppendEntriesReply, AppendResult, Message, VoteReply};
use crate::planted::{self, Mistake};
use crate::types::{Entries, Entry, EntryId, HardState, Index, Member, Term};

#[derive(Default)]
pub(super) struct Follower {
    pub(super) leader: Option<Member>,
    /// Whom to tell that it has this node's vote, as soon as that is durable.
    pub(super) vote_due: Option<Member>,
    /// Which checkpoint to report as installed, on which connection, as soon as all up to its end is durable.
    pub(super) installed_due: Option<(EntryId, u64)>,
    /// The connection that the last piece of a checkpoint came on.
    pub(super) snapshot_connection: u64,
    /// What has been asked of the leader.
    pub(super) reads: AskedReads,
    /// See the file's documentation. Zero until entries have been accepted.
    matched: Index,
    acknowledged: Index,
    /// Of the last AppendEntries that was accepted.
    round: u64,
    connection: u64,
    /// The last round that was answered.
    answered_round: u64,
}

impl Follower {
    pub(super) fn new(leader: Option<Member>) -> Follower {
        Follower { leader, ..Follower::default() }
    }
}

impl Raft {
    /// Takes `from` for the leader of `term`, which is not behind this node's. False if it can't be: then it is not a
    /// correct node, and what it says is ignored.
    pub(super) fn accept_leader(&mut self, from: Member, term: Term) -> bool {
        let is_current = term == self.hard_state.term;
        if is_current && self.leader() != Some(from.id) && planted::is(Mistake::VoteClearedOnStepDown) {
            self.set_hard_state(HardState { term, voted_for: None });
        }
        let known = if let State::Follower(follower) = &self.state { follower.leader } else { None };
        match &mut self.state {
            State::Leader(_) if is_current => return false,
            State::Follower(follower) if is_current && follower.leader.is_some_and(|leader| leader != from) => {
                return false;
            }
            State::Follower(follower) if is_current => follower.leader = Some(from),
            _ => self.follow(term, Some(from)),
        }
        if known != Some(from) {
            self.tell_marked();
        }
        self.announce();
        self.election_at = self.now + self.election_timeout;
        self.heard_leader_at = Some(self.now);
        true
    }

    pub(super) fn handle_append_entries(&mut self, from: Member, append: AppendEntries) {
        let (round, connection) = (append.round, append.connection);
        if append.term < self.hard_state.term {
            return self.reply_to_append(from, round, connection, AppendResult::StaleTerm);
        }
        if !is_well_formed(&append) || !self.accept_leader(from, append.term) {
            return;
        }
        if self.is_damaged() && !planted::is(Mistake::DamagedAcknowledges) {
            return self.reply_to_append(from, round, connection, AppendResult::Alive);
        }
        let prev = append.prev;
        if prev.index > self.committed && !self.log.contains(prev) {
            let hint = self.log.last_within(prev).unwrap_or(EntryId::ZERO);
            return self.reply_to_append(from, round, connection, AppendResult::Mismatch { refused: prev.index, hint });
        }
        let is_empty = append.entries.is_empty();
        let upto = prev.index.plus(append.entries.len() as u64);
        if !self.take_entries(prev, append.entries) {
            return;
        }
        let State::Follower(follower) = &mut self.state else { return };
        follower.matched = follower.matched.max(upto).max(self.committed);
        let is_answered = round <= follower.answered_round && connection == follower.connection;
        (follower.round, follower.connection) = (round, connection);
        let committed = self.committed.max(append.committed.min(follower.matched));
        let is_news = is_empty && committed > self.committed;
        self.committed = committed;
        // News of what is committed asks nothing, if the leader has had an answer of this round.
        if !(is_news && is_answered) {
            self.answer_append(from, upto, is_empty);
        }
    }

    /// Skips what is in the log already, and takes the rest in place of what contradicts it. A message that was delayed
    /// may be a part of what is in the log: nothing is cut off for that (section 5.3, figure 2, rule 3). False if they
    /// contradict what is committed: then they are not from a correct leader.
    fn take_entries(&mut self, prev: EntryId, entries: Entries) -> bool {
        let is_new = |entry: &Entry| entry.index() > self.committed && !self.log.contains(entry.id());
        let Some(first) = entries.iter().position(is_new) else { return true };
        let before = first.checked_sub(1).map_or(prev, |at| entries[at].id());
        if !self.log.contains(before) {
            return false;
        }
        self.append(entries.part(first..entries.len()));
        true
    }

    /// Answers entries up to `upto`. If they are durable that is the answer. If not, an empty message, or one of a new
    /// round, is answered at once; for the others the acknowledgement that follows the sync will do.
    fn answer_append(&mut self, leader: Member, upto: Index, is_empty: bool) {
        let durable = self.durable_match();
        let State::Follower(follower) = &mut self.state else { return };
        let (round, connection) = (follower.round, follower.connection);
        let result = if durable >= upto {
            follower.acknowledged = durable;
            AppendResult::Durable(durable)
        } else if is_empty || round > follower.answered_round {
            AppendResult::Alive
        } else {
            return;
        };
        follower.answered_round = follower.answered_round.max(round);
        self.reply_to_append(leader, round, connection, result);
    }

    /// Up to where the log is the leader's and durable. Nothing, while the term that this is said in is not durable.
    fn durable_match(&self) -> Index {
        match &self.state {
            State::Follower(follower) if planted::is(Mistake::AcknowledgedBeforeSync) => follower.matched,
            State::Follower(follower) if self.writes.is_hard_state_durable() => {
                follower.matched.min(self.writes.durable())
            }
            _ => Index::ZERO,
        }
    }

    /// Lets go what waited for the disk.
    pub(super) fn release_follower(&mut self) {
        if !self.writes.is_hard_state_durable() && !planted::is(Mistake::VoteBeforeSync) {
            return;
        }
        let term = self.hard_state.term;
        let durable = self.durable_match();
        let State::Follower(follower) = &mut self.state else { return };
        if let Some(candidate) = follower.vote_due.take() {
            // From now on the candidate has its time.
            self.reset_election_timer();
            self.send(candidate, Message::RequestVoteReply(VoteReply { term, granted: true }));
        }
        self.release_installed();
        let State::Follower(follower) = &mut self.state else { return };
        if let Some(leader) = follower.leader.filter(|_| durable > follower.acknowledged) {
            follower.acknowledged = durable;
            let (round, connection) = (follower.round, follower.connection);
            self.reply_to_append(leader, round, connection, AppendResult::Durable(durable));
        }
    }

    fn reply_to_append(&mut self, to: Member, round: u64, connection: u64, result: AppendResult) {
        let reply = AppendEntriesReply { term: self.hard_state.term, round, connection, result };
        self.send(to, Message::AppendEntriesReply(reply));
    }
}

/// Whether these can be entries of the sender's log after `prev`.
fn is_well_formed(append: &AppendEntries) -> bool {
    end_of_chain(append.prev, &append.entries).is_some_and(|last| last.term <= append.term)
}
