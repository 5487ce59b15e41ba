//! A log of which entries are lost: it votes as ever, acknowledges nothing, and gets the lost entries back from others.
//!
//! A damaged disk must not make a node forget what it has acknowledged: others may have committed it on that ground. The
//! node still knows its term, its vote and its last entry, so its votes keep their worth (Raft paper, section 5.4.1). What
//! it may not do is stand for election, since it could not send its log, and acknowledge, since entries after a loss are of
//! no use. A node that does not know even that much has to begin again as a new member.
//!
//! ```text
//!   own log     | 4 4 4 ? ? ? 6 6 |       FetchEntries: what is between entry 3 and entry 7 of term 6?
//!   another's   | 4 4 4 4 5 6 6 6 6 |     FetchEntriesReply: 4 5 6
//! ```
//!
//! If another log contains the entry after the loss, index and term, then all entries before it are the same in both (Log
//! Matching, section 5.3): what it has in between is what was lost. This holds for anyone's log, so it needs no leader,
//! and a cluster heals in which every node has lost something else, before anybody can lead it. One range is repaired
//! after the other, piece by piece.
//!
//! If a leader says that its log does not contain the entry after the loss, or begins after the loss, nobody can help: the
//! driver is told to replace the disk. Nothing is lost by that, as the leader was elected by voters none of whom knew more.

use std::time::Duration;

use super::io::{LogReadResult, Lost, Output, ReadLog};
use super::log::end_of_chain;
use super::{Raft, State};
use crate::message::{FetchEntries, FetchEntriesReply, FetchResult, Message};
use crate::types::{Entry, EntryId, Index, Member, Term};

/// What is lost, and how far the repair has got.
pub(super) struct Damage {
    /// In order. The first one is being repaired.
    lost: Vec<Lost>,
    /// First entry of each run of equal terms of what has been repaired of the first range.
    runs: Vec<EntryId>,
    step: Step,
    /// How many questions have been asked: each goes to another node.
    asked: usize,
}

enum Step {
    /// Nobody has been asked yet, or nobody since this moment.
    Waiting(Duration),
    Asked {
        token: u64,
        member: Member,
        until: Duration,
    },
    /// The repair of all before this index is being written.
    Writing(Index),
}

/// A question of another node that waits for the disk.
pub(super) struct Fetching {
    token: u64,
    to: Member,
    request: FetchEntries,
}

impl Damage {
    /// `None` if nothing is lost.
    pub(super) fn new(lost: Vec<Lost>, now: Duration) -> Option<Damage> {
        let step = Step::Waiting(now);
        (!lost.is_empty()).then_some(Damage { lost, runs: Vec::new(), step, asked: 0 })
    }

    fn first(&self) -> Lost {
        *self.lost.first().expect("damage is there until the last range is repaired")
    }

    fn is_lost(&self, range: std::ops::Range<Index>) -> bool {
        self.lost.iter().any(|lost| lost.first < range.end && range.start < lost.next.index)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.step {
            Step::Waiting(until) | Step::Asked { until, .. } => Some(until),
            Step::Writing(_) => None,
        }
    }
}

impl Raft {
    /// Whether entries of this node's log are lost, and not repaired yet.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// Asks for what is lost first, if it is time to.
    pub(super) fn advance_repair(&mut self) {
        let leader = if let State::Follower(follower) = &self.state { follower.leader } else { None };
        let now = self.now;
        let Some(damage) = &mut self.damage else { return };
        if damage.deadline().is_none_or(|at| now < at) {
            return;
        }
        // Every second question is for the leader, whose word is final.
        let others: Vec<Member> = self.connections.keys().copied().collect();
        let leader = leader.filter(|leader| damage.asked.is_multiple_of(2) && others.contains(leader));
        let in_turn = others.get((damage.asked / 2) % others.len().max(1)).copied();
        damage.asked += 1;
        let Some(member) = leader.or(in_turn) else {
            damage.step = Step::Waiting(now + self.options.heartbeat_interval);
            return;
        };
        self.last_token += 1;
        let token = self.last_token;
        damage.step = Step::Asked { token, member, until: now + self.options.election_timeout_max };
        let Lost { first, next } = damage.first();
        let request = FetchEntries { term: self.hard_state.term, token, first, next };
        self.send(member, Message::FetchEntries(request));
    }

    /// Another node has lost entries: gives what this one has in their place.
    pub(super) fn handle_fetch_entries(&mut self, from: Member, request: FetchEntries) {
        let FetchEntries { first, next, .. } = request;
        let is_lost = self.damage.as_ref().is_some_and(|damage| damage.is_lost(first..next.index.next()));
        let result = if is_lost {
            FetchResult::Damaged
        } else if first >= next.index || first <= self.log.base().index || !self.log.contains(next) {
            FetchResult::Absent
        } else {
            match self.log.entries(first, self.options.message_bytes_max) {
                entries if entries.is_empty() => return self.fetch_from_disk(from, request),
                entries => FetchResult::Entries(entries),
            }
        };
        self.reply_to_fetch(from, &request, result);
    }

    fn fetch_from_disk(&mut self, to: Member, request: FetchEntries) {
        let token = self.fresh_token();
        // One question a node: what it asked before it does not wait for any more.
        self.fetching.retain(|other| other.to != to);
        self.fetching.push(Fetching { token, to, request });
        let bytes_max = self.options.message_bytes_max;
        self.outputs.push_back(Output::ReadLog(ReadLog { peer: to, token, from: request.first, bytes_max }));
    }

    /// Takes what has been read from the disk, if it was read for this.
    pub(super) fn finish_fetch(&mut self, token: u64, result: &LogReadResult) {
        let Some(at) = self.fetching.iter().position(|fetching| fetching.token == token) else { return };
        let Fetching { to, request, .. } = self.fetching.swap_remove(at);
        let result = match result {
            LogReadResult::Entries(entries) => FetchResult::Entries(entries.clone()),
            LogReadResult::Gone => FetchResult::Damaged,
        };
        self.reply_to_fetch(to, &request, result);
    }

    fn reply_to_fetch(&mut self, to: Member, request: &FetchEntries, mut result: FetchResult) {
        if let FetchResult::Entries(entries) = &mut result {
            entries.retain(|entry| entry.index() < request.next.index);
        }
        let reply = FetchEntriesReply { term: self.hard_state.term, token: request.token, result };
        self.send(to, Message::FetchEntriesReply(reply));
    }

    pub(super) fn handle_fetch_entries_reply(&mut self, from: Member, reply: FetchEntriesReply) {
        let is_leader = matches!(&self.state, State::Follower(follower) if follower.leader == Some(from))
            && reply.term == self.hard_state.term;
        let pause = self.now + self.options.heartbeat_interval;
        let Some(damage) = &mut self.damage else { return };
        match damage.step {
            Step::Asked { token, member, .. } if token == reply.token && member == from => {}
            _ => return,
        }
        let Lost { first, next } = damage.first();
        damage.step = Step::Waiting(pause);
        match reply.result {
            FetchResult::Entries(entries) if are_between(first, next, &entries) => {
                damage.step = Step::Writing(entries[entries.len() - 1].index().next());
                self.outputs.push_back(Output::Repair(entries));
            }
            FetchResult::Absent if is_leader => self.outputs.push_back(Output::LogLost { first }),
            // Somebody else may have it.
            FetchResult::Entries(_) | FetchResult::Absent | FetchResult::Damaged => {}
        }
    }

    /// The entries of an [`Output::Repair`] are durable in their old places.
    ///
    /// # Panics
    ///
    /// If they are not those that were to be written.
    pub fn handle_repaired(&mut self, now: Duration, entries: &[Entry]) {
        self.see(now);
        let (Some(damage), Some(last)) = (&mut self.damage, entries.last()) else { return };
        let end = last.index().next();
        assert!(matches!(damage.step, Step::Writing(expected) if expected == end), "what was asked for is repaired");
        for entry in entries {
            if damage.runs.last().is_none_or(|run| run.term != entry.term()) {
                damage.runs.push(entry.id());
            }
        }
        damage.step = Step::Waiting(self.now);
        self.stamp_ms = entries.iter().map(Entry::stamp_ms).fold(self.stamp_ms, u64::max);
        self.configurations.insert(entries);
        let lost = &mut damage.lost[0];
        let range_first = damage.runs[0].index;
        lost.first = end;
        if end == lost.next.index {
            self.log.fill(range_first, &damage.runs, lost.next);
            damage.runs.clear();
            damage.lost.remove(0);
            if damage.lost.is_empty() {
                self.damage = None;
                self.reset_election_timer();
            }
        }
    }
}

/// Whether these can be entries of one log that begin at `first` and end before `next`.
fn are_between(first: Index, next: EntryId, entries: &[Entry]) -> bool {
    let before = EntryId::new(Term::ZERO, first.prev());
    let is_before_next = |last: EntryId| last.index < next.index && last.term <= next.term;
    !entries.is_empty() && end_of_chain(before, entries).is_some_and(is_before_next)
}
