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
//! If the leader's log begins after the loss, or has lost the same, it sends a checkpoint: what is lost up to there is not
//! missed then. If its log does not contain the entry after the loss, what is lost was never committed: the driver is told
//! to replace the disk, provided that the leader has a majority without this node.
//!
//! A checkpoint may end with an entry that is lost here. The log then begins after it, though it may have had another entry
//! in that place. In that case it was never committed what follows, no leader has it, and it is given up or replaced like
//! any other suffix; until then this node is counted on for no more than before.

use std::time::Duration;

use super::io::{LogReadResult, Lost, Output, ReadLog};
use super::log::{Log, end_of_chain};
use super::{Raft, State};
use crate::message::{FetchEntries, FetchEntriesReply, FetchResult, Message};
use crate::types::{Configuration, Entries, Entry, EntryId, Index, Member};

/// What is lost, and how far the repair has got.
pub(super) struct Damage {
    /// In order. The first one is being repaired, from its front.
    lost: Vec<Lost>,
    step: Step,
    /// How many times somebody has been asked: each time it is another node.
    asked: usize,
    /// Of the present question. It is the same for all that are asked, and as long as nobody has answered it: a large
    /// answer may take longer than the patience of the one who asks.
    token: Option<u64>,
}

enum Step {
    /// Somebody is asked at this moment.
    Asking(Duration),
    /// This repair is being written.
    Writing(Entries),
    /// The driver has been told that nobody can help.
    Hopeless,
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
        let step = Step::Asking(now);
        (!lost.is_empty()).then_some(Damage { lost, step, asked: 0, token: None })
    }

    fn first(&self) -> Lost {
        *self.lost.first().expect("damage is there until the last range is repaired")
    }

    fn is_lost(&self, range: std::ops::Range<Index>) -> bool {
        self.lost.iter().any(|lost| lost.first < range.end && range.start < lost.next.index)
    }

    /// The range that this entry is in.
    fn around(&self, index: Index) -> Option<Lost> {
        self.lost.iter().find(|lost| lost.first <= index && index < lost.next.index).copied()
    }

    /// The last entry up to `index` of the repair that is being written.
    fn written_up_to(&self, index: Index) -> Option<EntryId> {
        let Step::Writing(repair) = &self.step else { return None };
        repair.iter().rev().map(Entry::id).find(|entry| entry.index <= index)
    }

    /// Nothing up to here is missed any more.
    fn forget(&mut self, upto: Index) {
        self.lost.retain(|lost| lost.next.index > upto.next());
        if let Some(first) = self.lost.first_mut() {
            first.first = first.first.max(upto.next());
        }
        self.token = None;
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.step {
            Step::Asking(at) => Some(at),
            Step::Writing(_) | Step::Hopeless => None,
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
        // Every second question is for the leader, who has a checkpoint, and whose word is final.
        let others: Vec<Member> = self.connections.keys().copied().collect();
        let leader = leader.filter(|leader| damage.asked.is_multiple_of(2) && others.contains(leader));
        let in_turn = others.get((damage.asked / 2) % others.len().max(1)).copied();
        damage.asked += 1;
        let Some(member) = leader.or(in_turn) else {
            damage.step = Step::Asking(now + self.options.heartbeat_interval);
            return;
        };
        self.last_token += 1;
        let token = *damage.token.get_or_insert(self.last_token);
        damage.step = Step::Asking(now + self.options.election_timeout_max);
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
        } else if first >= next.index {
            FetchResult::Absent
        } else if first <= self.log.base().index {
            self.offer_checkpoint(from, self.log.base().index);
            FetchResult::Absent
        } else if !self.log.contains(next) {
            if self.can_do_without(from) { FetchResult::Needless } else { FetchResult::Absent }
        } else {
            match self.log.entries(first, self.options.message_bytes_max) {
                entries if entries.is_empty() => return self.fetch_from_disk(from, request),
                entries => FetchResult::Entries(entries),
            }
        };
        self.reply_to_fetch(from, &request, result);
    }

    /// Sends a follower a checkpoint that reaches over the entry `needed`, if this node leads.
    fn offer_checkpoint(&mut self, to: Member, needed: Index) {
        let State::Leader(leader) = &mut self.state else { return };
        if let Some(peer) = leader.peers.get_mut(&to) {
            peer.need_snapshot(needed, self.now);
        }
    }

    /// Whether this node leads, and has a majority without `member`: the log that everybody will have is this one then.
    fn can_do_without(&self, member: Member) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let effective = self.configurations.effective();
        let has_committed = self.committed >= leader.first();
        let is_there = |voter| voter != member && self.is_there(leader, voter);
        has_committed && effective.is_member(member) && effective.is_majority(is_there)
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
        let mut found = match result {
            LogReadResult::Entries(entries) => entries.clone(),
            LogReadResult::Gone => {
                // Perhaps nobody has it any more.
                if request.first <= self.handed_out {
                    self.offer_checkpoint(to, request.first);
                }
                Entries::default()
            }
        };
        // The disk may hold an older log than the one that contains the entry after the loss, or by now a newer one.
        let is_same = |entry: &Entry| self.log.contains(entry.id());
        found = found.part(0..found.iter().position(|entry| !is_same(entry)).unwrap_or(found.len()));
        let is_proven = self.log.contains(request.next) && !found.is_empty();
        let result = if is_proven { FetchResult::Entries(found) } else { FetchResult::Damaged };
        self.reply_to_fetch(to, &request, result);
    }

    fn reply_to_fetch(&mut self, to: Member, request: &FetchEntries, mut result: FetchResult) {
        if let FetchResult::Entries(entries) = &mut result {
            *entries = entries.part(0..entries.partition_point(|entry| entry.index() < request.next.index));
        }
        let reply = FetchEntriesReply { term: self.hard_state.term, token: request.token, result };
        self.send(to, Message::FetchEntriesReply(reply));
    }

    pub(super) fn handle_fetch_entries_reply(&mut self, reply: FetchEntriesReply) {
        let pause = self.now + self.options.heartbeat_interval;
        let is_of_this_term = reply.term == self.hard_state.term;
        let Some(damage) = self.damage.as_mut().filter(|damage| damage.token == Some(reply.token)) else { return };
        let Step::Asking(at) = &mut damage.step else { return };
        *at = pause.min(*at);
        let Lost { first, next } = damage.first();
        let before = EntryId::new(self.log.term(first.prev()).expect("what is lost is in the log"), first.prev());
        match reply.result {
            FetchResult::Entries(entries) if are_between(before, next, &entries) => {
                damage.token = None;
                damage.step = Step::Writing(entries.clone());
                self.outputs.push_back(Output::Repair(entries));
            }
            FetchResult::Needless if is_of_this_term => {
                damage.step = Step::Hopeless;
                self.outputs.push_back(Output::LogLost { first });
            }
            // Somebody else may have it.
            FetchResult::Entries(_) | FetchResult::Needless | FetchResult::Absent | FetchResult::Damaged => {}
        }
    }

    /// A checkpoint of committed entries has been received: of what is lost, nothing up to its end is missed any more. Says
    /// whether the log keeps what comes after it: unless it is certain that this contradicts it.
    pub(super) fn cover_damage(&mut self, checkpoint: EntryId, configuration: &Configuration) -> bool {
        let Some(damage) = &mut self.damage else { return self.log.contains(checkpoint) };
        let hole = damage.around(checkpoint.index);
        let may_fit = hole.map_or(self.log.contains(checkpoint), |hole| may_be_in(&self.log, damage, hole, checkpoint));
        if may_fit {
            damage.forget(checkpoint.index);
            match hole {
                Some(hole) => self.log.begin_in_loss(checkpoint, hole.next, &damage.lost),
                None => self.log.truncate_prefix(checkpoint),
            }
            self.configurations.rebase(checkpoint.index, configuration.clone());
            self.outputs.push_back(Output::ForgetPrefix(checkpoint));
        } else {
            damage.lost.clear();
        }
        self.end_damage();
        may_fit
    }

    fn end_damage(&mut self) {
        if self.damage.as_ref().is_some_and(|damage| damage.lost.is_empty()) {
            self.damage = None;
            self.reset_election_timer();
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
        let is_expected = matches!(&damage.step, Step::Writing(repair) if repair.last() == Some(last));
        assert!(is_expected, "what was asked for is repaired");
        damage.step = Step::Asking(self.now);
        // A checkpoint may have come meanwhile.
        let is_missed = |entry: &&Entry| entry.index() > self.log.base().index;
        let missed: Vec<Entry> = entries.iter().filter(is_missed).cloned().collect();
        let Some(first) = missed.first().map(Entry::index) else { return };
        let mut runs: Vec<EntryId> = missed.iter().map(Entry::id).collect();
        runs.dedup_by_key(|run| run.term);
        self.stamp_ms = missed.iter().map(Entry::stamp_ms).fold(self.stamp_ms, u64::max);
        self.configurations.insert(&missed);
        self.log.fill(first, &runs, damage.first().next);
        damage.forget(last.index());
        self.end_damage();
    }
}

/// Whether the lost entry in this one's place may be this one: terms never go back, and one that is being repaired is known.
fn may_be_in(log: &Log, damage: &Damage, hole: Lost, entry: EntryId) -> bool {
    let before = hole.first.prev();
    let known = EntryId::new(log.term(before).expect("what is lost is in the log"), before);
    let repaired = damage.written_up_to(entry.index).filter(|repaired| repaired.index > known.index);
    let before = repaired.unwrap_or(known);
    let is_in_order = before.term <= entry.term && entry.term <= hole.next.term;
    is_in_order && (before.index < entry.index || before == entry)
}

/// Whether these can be entries of one log that follow `before` and end before `next`.
fn are_between(before: EntryId, next: EntryId, entries: &[Entry]) -> bool {
    let is_before_next = |last: EntryId| last.index < next.index && last.term <= next.term;
    !entries.is_empty() && end_of_chain(before, entries).is_some_and(is_before_next)
}
