//! Reads that see every write confirmed before them, without a log entry (thesis, section 6.4).
//!
//! The leader notes its commit index, then makes sure that it still leads: a majority must answer a message that was
//! sent after the read came. Three things make it right.
//!
//! 1. The index is noted only once an entry of the leader's own term is committed. Before that a new leader may not
//!    know how far its predecessors got.
//! 2. The index is noted before the round starts, and every round has a new number. Messages carry the newest number
//!    and answers repeat it. An answer with number `n` or a later one was sent by a node that, after the round began,
//!    knew of no later term; so did a majority; so no later leader had committed anything when the round began. An
//!    answer to an older message can't be mistaken for it (etcd #20418).
//! 3. A leader that stops leading refuses what waits.
//!
//! Nobody waits for ever: a leader that can commit nothing of its own term, or gets no answers to its rounds, refuses after
//! `election_timeout_max`, and so does a follower whose leader says nothing.
//!
//! All reads that wait share the next round. A follower asks the leader, and answers its own reader when it has applied
//! what the leader said.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::time::Duration;

use super::io::Output;
use super::{Raft, State};
use crate::message::{Message, ReadIndex, ReadIndexReply};
use crate::types::{Index, Member};

/// Who wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A client of this node, with the driver's token.
    Own(u64),
    /// Another node, with its token.
    Peer(Member, u64),
}

/// The leader's side.
#[derive(Default)]
pub(super) struct ReadQueue {
    waiting: Vec<Reader>,
    /// When the first of those that wait is given up, and the others with it.
    waiting_until: Duration,
    /// In the order of their numbers.
    rounds: VecDeque<Round>,
}

struct Round {
    number: u64,
    index: Index,
    readers: Vec<Reader>,
    until: Duration,
}

impl ReadQueue {
    /// A reader that waits until `deadline` at most. Deadlines never go back.
    pub(super) fn add(&mut self, reader: Reader, deadline: Duration) {
        if self.waiting.is_empty() {
            self.waiting_until = deadline;
        }
        self.waiting.push(reader);
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a round with readers has not been answered by a majority yet.
    pub(super) fn is_asking(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// All who wait take part in round `number`, which starts now.
    pub(super) fn start_round(&mut self, number: u64, committed: Index) {
        assert!(self.rounds.back().is_none_or(|round| round.number < number), "each round has a new number");
        let (readers, until) = (mem::take(&mut self.waiting), self.waiting_until);
        self.rounds.push_back(Round { number, index: committed, readers, until });
    }

    /// A majority has answered round `number` or a later one: whoever may read now, and the index to read at.
    pub(super) fn confirmed(&mut self, number: u64) -> Option<(Index, Vec<Reader>)> {
        let round = self.rounds.pop_front_if(|round| round.number <= number)?;
        Some((round.index, round.readers))
    }

    /// When somebody has to be given up, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let waiting = self.is_waiting().then_some(self.waiting_until);
        self.rounds.front().map(|round| round.until).or(waiting)
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<Reader> {
        let mut expired = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.until <= now) {
            expired.extend(round.readers);
        }
        if self.is_waiting() && self.waiting_until <= now {
            expired.append(&mut self.waiting);
        }
        expired
    }

    /// Everyone who has no answer yet.
    pub(super) fn into_readers(self) -> impl Iterator<Item = Reader> {
        self.rounds.into_iter().flat_map(|round| round.readers).chain(self.waiting)
    }
}

/// A follower's side: what it has asked the leader.
#[derive(Default)]
pub(super) struct AskedReads {
    /// By the token of the question: the driver's token, and when it is given up.
    asked: BTreeMap<u64, (u64, Duration)>,
}

impl AskedReads {
    pub(super) fn add(&mut self, question: u64, token: u64, deadline: Duration) {
        self.asked.insert(question, (token, deadline));
    }

    pub(super) fn answered(&mut self, question: u64) -> Option<u64> {
        self.asked.remove(&question).map(|(token, _)| token)
    }

    /// Questions are numbered, and each has the same time, so the first one is the next to be given up.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.asked.first_key_value().map(|(_, (_, deadline))| *deadline)
    }

    pub(super) fn expired(&mut self, now: Duration) -> Option<u64> {
        let first = self.asked.first_entry()?;
        (first.get().1 <= now).then(|| first.remove().0)
    }

    pub(super) fn into_tokens(self) -> impl Iterator<Item = u64> {
        self.asked.into_values().map(|(token, _)| token)
    }
}

impl Raft {
    /// Asks when a read that came before this call may be done. Works on the leader and on followers. Answered by
    /// [`Output::ReadReady`] or [`Output::ReadRejected`] within `election_timeout_max`.
    pub fn read(&mut self, now: Duration, token: u64) {
        self.see(now);
        let question = self.fresh_token();
        let deadline = self.now + self.options.election_timeout_max;
        match &mut self.state {
            State::Leader(leader) => leader.reads.add(Reader::Own(token), deadline),
            State::Follower(follower) if follower.leader.is_some() => {
                let to = follower.leader.expect("just looked");
                follower.reads.add(question, token, deadline);
                let request = ReadIndex { term: self.hard_state.term, token: question };
                self.send(to, Message::ReadIndex(request));
            }
            _ => self.outputs.push_back(Output::ReadRejected { token }),
        }
    }

    pub(super) fn handle_read_index(&mut self, from: Member, request: ReadIndex) {
        let deadline = self.now + self.options.election_timeout_max;
        match &mut self.state {
            State::Leader(leader) if request.term == self.hard_state.term => {
                leader.reads.add(Reader::Peer(from, request.token), deadline);
            }
            _ => self.answer_reader(Reader::Peer(from, request.token), None),
        }
    }

    pub(super) fn handle_read_index_reply(&mut self, from: Member, reply: ReadIndexReply) {
        let State::Follower(follower) = &mut self.state else { return };
        if follower.leader != Some(from) {
            return;
        }
        if let Some(token) = follower.reads.answered(reply.token) {
            self.answer_reader(Reader::Own(token), reply.index);
        }
    }

    pub(super) fn answer_reader(&mut self, reader: Reader, index: Option<Index>) {
        match (reader, index) {
            (Reader::Own(token), Some(index)) => self.outputs.push_back(Output::ReadReady { token, index }),
            (Reader::Own(token), None) => self.outputs.push_back(Output::ReadRejected { token }),
            (Reader::Peer(to, token), index) => {
                let reply = ReadIndexReply { term: self.hard_state.term, token, index };
                self.send(to, Message::ReadIndexReply(reply));
            }
        }
    }

    /// Refuses what waited for an answer in a state that has ended.
    pub(super) fn refuse_readers(&mut self, ended: State) {
        match ended {
            State::Leader(leader) => leader.reads.into_readers().for_each(|reader| self.answer_reader(reader, None)),
            State::Follower(follower) => self.refuse_asked(follower.reads),
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
    }

    /// The connection to `peer` is another one: what was asked on the old one may be lost.
    pub(super) fn refuse_reads_asked_of(&mut self, peer: Member) {
        if let State::Follower(follower) = &mut self.state
            && follower.leader == Some(peer)
        {
            let asked = mem::take(&mut follower.reads);
            self.refuse_asked(asked);
        }
    }

    fn refuse_asked(&mut self, asked: AskedReads) {
        asked.into_tokens().for_each(|token| self.answer_reader(Reader::Own(token), None));
    }

    /// Gives up questions that nobody answered in time.
    pub(super) fn refuse_expired_reads(&mut self) {
        let now = self.now;
        if let State::Leader(leader) = &mut self.state {
            leader.reads.expired(now).into_iter().for_each(|reader| self.answer_reader(reader, None));
        }
        while let State::Follower(follower) = &mut self.state {
            let Some(token) = follower.reads.expired(now) else { return };
            self.answer_reader(Reader::Own(token), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::tests::index;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn all_that_wait_share_the_next_round() {
        let mut queue = ReadQueue::default();
        queue.add(Reader::Own(1), SOON);
        queue.add(Reader::Own(2), SOON);
        queue.start_round(5, index(10));
        queue.add(Reader::Own(3), SOON);
        assert!(queue.is_waiting());
        assert_eq!(queue.confirmed(4), None, "an answer to an older round");
        assert_eq!(queue.confirmed(5), Some((index(10), vec![Reader::Own(1), Reader::Own(2)])));
        assert_eq!(queue.confirmed(9), None, "who came later waits for its own round");
    }

    #[test]
    fn a_later_round_confirms_earlier_ones_at_their_own_index() {
        let mut queue = ReadQueue::default();
        queue.add(Reader::Own(1), SOON);
        queue.start_round(1, index(10));
        queue.add(Reader::Own(2), SOON);
        queue.start_round(2, index(20));
        assert_eq!(queue.confirmed(2), Some((index(10), vec![Reader::Own(1)])));
        assert_eq!(queue.confirmed(2), Some((index(20), vec![Reader::Own(2)])));
        assert_eq!(queue.confirmed(2), None);
    }

    #[test]
    fn nobody_is_forgotten() {
        let mut queue = ReadQueue::default();
        queue.add(Reader::Own(1), SOON);
        queue.start_round(1, index(10));
        queue.add(Reader::Own(2), SOON);
        assert_eq!(queue.into_readers().collect::<Vec<_>>(), [Reader::Own(1), Reader::Own(2)]);
    }

    #[test]
    fn who_waits_too_long_is_given_up() {
        let mut queue = ReadQueue::default();
        assert_eq!(queue.deadline(), None);
        queue.add(Reader::Own(1), SOON);
        queue.start_round(1, index(10));
        queue.add(Reader::Own(2), SOON * 2);
        queue.add(Reader::Own(3), SOON * 3);
        assert_eq!(queue.deadline(), Some(SOON));
        assert_eq!(queue.expired(SOON), [Reader::Own(1)]);
        assert_eq!(queue.confirmed(1), None);
        assert_eq!(queue.deadline(), Some(SOON * 2));
        assert_eq!(queue.expired(SOON * 2), [Reader::Own(2), Reader::Own(3)], "they share the next round, or none");
        assert_eq!(queue.deadline(), None);
    }
}
