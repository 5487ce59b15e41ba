//! Elections (Raft paper, section 5.2) and the question before them (thesis, section 9.6).
//!
//! A node that hears no leader first asks whether it would be elected. Only with a majority's yes does it begin a new
//! term, so a node that was cut off and comes back disturbs nobody. A no carries the voter's term: a node whose term is
//! behind learns it, or a cluster whose terms have drifted apart would never elect anyone (openraft #1796).
//!
//! A vote is a promise, so it must outlast a crash: a candidate counts its own, and a voter gives its, only when it is
//! durable. Then no node votes twice in a term, two majorities of a term share a voter, and a term has one leader. A node
//! begins no new term while the disk still has its last vote: on a slow disk no election would ever come to its end.

use std::collections::BTreeSet;

use super::leader::Leader;
use super::{Raft, State};
use crate::message::{Message, VoteReply, VoteRequest};
use crate::planted::{self, Mistake};
use crate::types::{HardState, Member};

/// Who would vote for this node, itself included.
pub(super) struct PreCandidate {
    pub(super) granted: BTreeSet<Member>,
}

/// Who has voted for this node. Empty until its own vote is durable; the others are asked only then.
pub(super) struct Candidate {
    pub(super) granted: BTreeSet<Member>,
    /// The leader has told this node to stand.
    is_ordered: bool,
}

impl Raft {
    /// The election timeout has passed.
    pub(super) fn start_pre_vote(&mut self) {
        self.reset_election_timer();
        self.enter(State::PreCandidate(PreCandidate { granted: BTreeSet::from([self.me]) }));
        let request = VoteRequest { term: self.hard_state.term.next(), last: self.log.last(), is_ordered: false };
        self.send_to_voters(&Message::PreVote(request));
        self.count_pre_votes();
    }

    /// Whether this node would vote for `from`. Says no while it hears a leader: that one is better left alone.
    pub(super) fn handle_pre_vote(&mut self, from: Member, request: VoteRequest) {
        let is_led = matches!(self.state, State::Leader(_)) || self.hears_a_leader();
        let is_newer = request.term > self.hard_state.term && request.last >= self.log.last();
        let granted = is_newer && !is_led;
        let term = if granted { request.term } else { self.hard_state.term };
        self.send(from, Message::PreVoteReply(VoteReply { term, granted }));
    }

    pub(super) fn handle_pre_vote_reply(&mut self, from: Member, reply: VoteReply) {
        let asked = self.hard_state.term.next();
        match &mut self.state {
            State::PreCandidate(candidate) if reply.granted && reply.term == asked => {
                candidate.granted.insert(from);
                self.count_pre_votes();
            }
            State::PreCandidate(_) if planted::is(Mistake::PreVoteTeachesNothing) => {}
            State::PreCandidate(_) if !reply.granted && reply.term > self.hard_state.term => {
                self.follow(reply.term, None);
            }
            _ => {}
        }
    }

    fn count_pre_votes(&mut self) {
        if let State::PreCandidate(candidate) = &self.state
            && self.configurations.effective().is_majority(|voter| candidate.granted.contains(&voter))
        {
            self.start_election(false);
        }
    }

    /// Without asking first: a majority would vote for this node, or the leader has told it to stand.
    pub(super) fn start_election(&mut self, is_ordered: bool) {
        self.reset_election_timer();
        let term = self.hard_state.term.next();
        assert!(term > self.hard_state.term, "no second vote in a term");
        self.set_hard_state(HardState { term, voted_for: Some(self.me) });
        self.enter(State::Candidate(Candidate { granted: BTreeSet::new(), is_ordered }));
    }

    /// Once the candidate's vote for itself is durable, it counts, and the others are asked.
    pub(super) fn release_own_vote(&mut self) {
        let State::Candidate(candidate) = &mut self.state else { return };
        if self.writes.is_hard_state_durable() && candidate.granted.insert(self.me) {
            let is_ordered = candidate.is_ordered;
            let request = VoteRequest { term: self.hard_state.term, last: self.log.last(), is_ordered };
            self.reset_election_timer();
            self.send_to_voters(&Message::RequestVote(request));
            self.count_votes();
        }
    }

    /// Votes for the first candidate of a term whose log is not behind this node's own (section 5.4.1). While it hears a
    /// leader, only if that has told the candidate to stand (thesis, sections 4.2.3 and 6.4.1): a leader of an earlier term
    /// too, whose lease may still run. What it has promised before, it may say again.
    pub(super) fn handle_request_vote(&mut self, from: Member, request: VoteRequest) {
        let is_given = request.term == self.hard_state.term && self.hard_state.voted_for == Some(from);
        if !request.is_ordered && !is_given && self.hears_a_leader() {
            return self.refuse_vote(from);
        }
        if request.term > self.hard_state.term {
            self.follow(request.term, None);
        }
        let is_free = self.hard_state.voted_for.is_none_or(|voted_for| voted_for == from);
        let is_current = request.term == self.hard_state.term;
        let is_led = self.leader().is_some() && !planted::is(Mistake::VoteClearedOnStepDown);
        if !is_current || !is_free || request.last < self.log.last() || is_led {
            return self.refuse_vote(from);
        }
        if self.hard_state.voted_for.is_none() {
            self.set_hard_state(HardState { term: request.term, voted_for: Some(from) });
        }
        self.reset_election_timer();
        if !matches!(self.state, State::Follower(_)) {
            self.follow(request.term, None);
        }
        if let State::Follower(follower) = &mut self.state {
            follower.vote_due = Some(from);
        }
        self.release();
    }

    fn refuse_vote(&mut self, to: Member) {
        let term = self.hard_state.term;
        self.send(to, Message::RequestVoteReply(VoteReply { term, granted: false }));
    }

    pub(super) fn handle_request_vote_reply(&mut self, from: Member, reply: VoteReply) {
        let State::Candidate(candidate) = &mut self.state else { return };
        if reply.term > self.hard_state.term {
            self.follow(reply.term, None);
        } else if reply.granted && reply.term == self.hard_state.term {
            candidate.granted.insert(from);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        if let State::Candidate(candidate) = &self.state
            && self.configurations.effective().is_majority(|voter| candidate.granted.contains(&voter))
        {
            let leader = Leader::new(self);
            self.enter(State::Leader(leader));
            self.start_reign();
        }
    }
}
