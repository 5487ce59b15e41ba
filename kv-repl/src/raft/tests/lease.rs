//! Leases and what voters owe them (thesis, sections 4.2.3 and 6.4.1).

use std::time::Duration;

use super::lone::{SECOND, durable_at, elected_with, follower_with, granted, heartbeat, outputs};
use super::sim::{Sim, member};
use super::{id, index};
use crate::message::{Message, VoteReply, VoteRequest};
use crate::raft::{Options, Raft};
use crate::types::Term;

const MS: Duration = Duration::from_millis(1);

fn leased() -> Options {
    Options { lease: Some(MS * 400), ..Options::default() }
}

fn vote(term: u64, is_ordered: bool) -> Message {
    Message::RequestVote(VoteRequest { term: Term::new(term), last: id(9, 99), is_ordered })
}

fn votes(raft: &mut Raft, now: Duration, request: Message) -> Vec<bool> {
    raft.handle_message(now, member(2), request);
    let (before, after) = outputs(raft, now);
    [granted(&before), granted(&after)].concat()
}

#[test]
fn thesis_6_4_1_a_lease_runs_from_the_moment_of_sending_and_ends() {
    let mut raft = elected_with(leased());
    let sent = SECOND * 3;
    outputs(&mut raft, sent);
    assert_eq!(raft.lease_read(sent), None, "nobody has answered");
    let answered = sent + MS * 300;
    let reply = |raft: &mut Raft| durable_at(raft, 1, 6);
    raft.handle_timeout(answered);
    reply(&mut raft);
    outputs(&mut raft, answered);
    assert_eq!(raft.lease_read(answered), Some(index(6)));
    assert_eq!(raft.lease_read(sent + MS * 399), Some(index(6)));
    assert_eq!(raft.lease_read(sent + MS * 400), None, "the answer came later, but to what was sent then");
}

#[test]
fn there_is_no_lease_unless_it_is_asked_for() {
    let mut raft = elected_with(Options::default());
    outputs(&mut raft, SECOND * 3);
    durable_at(&mut raft, 1, 6);
    assert_eq!(raft.lease_read(SECOND * 3), None);
}

/// openraft #1747: the other may be elected at any time, also when the transfer has been given up.
#[test]
fn a_lease_does_not_survive_an_order_to_stand_for_election() {
    let mut raft = elected_with(leased());
    let now = SECOND * 3;
    outputs(&mut raft, now);
    durable_at(&mut raft, 1, 6);
    outputs(&mut raft, now);
    assert_eq!(raft.lease_read(now), Some(index(6)));
    raft.transfer_leadership(now, member(1).id).expect("it is connected");
    outputs(&mut raft, now);
    assert_eq!(raft.lease_read(now), None);
    let later = now + Options::default().election_timeout_max;
    raft.handle_timeout(later);
    durable_at(&mut raft, 1, 6);
    outputs(&mut raft, later);
    assert_eq!((raft.transfer_to(), raft.lease_read(later)), (None, None));
}

#[test]
fn thesis_4_2_3_who_hears_a_leader_votes_only_for_whom_the_leader_has_told_to_stand() {
    let mut raft = follower_with(3, Options::default());
    let heard = SECOND * 5;
    raft.handle_message(heard, member(1), heartbeat(1, id(1, 3), 0));
    outputs(&mut raft, heard);
    assert_eq!(votes(&mut raft, heard + MS * 499, vote(2, false)), [false]);
    assert_eq!(raft.term(), Term::new(1), "nor does it take the term");
    assert_eq!(votes(&mut raft, heard + MS * 499, vote(2, true)), [true]);
    let mut raft = follower_with(3, Options::default());
    raft.handle_message(heard, member(1), heartbeat(1, id(1, 3), 0));
    outputs(&mut raft, heard);
    assert_eq!(votes(&mut raft, heard + MS * 500, vote(2, false)), [true], "it has been silent for long enough");
}

/// A leader of an earlier term may still answer from its lease, however this node has come to the later one.
#[test]
fn thesis_4_2_3_nor_does_it_in_a_term_that_it_has_reached_without_voting() {
    let now = SECOND * 5;
    let mut raft = follower_with(3, leased());
    raft.handle_message(now, member(1), heartbeat(1, id(1, 3), 0));
    outputs(&mut raft, now);
    let behind = VoteRequest { term: Term::new(2), last: id(1, 2), is_ordered: true };
    assert_eq!(votes(&mut raft, now, Message::RequestVote(behind)), [false]);
    assert_eq!(raft.term(), Term::new(2));
    assert_eq!(votes(&mut raft, now + MS, vote(2, false)), [false]);

    let mut raft = follower_with(3, leased());
    raft.handle_timeout(now);
    raft.handle_message(now, member(1), heartbeat(1, id(1, 3), 0));
    outputs(&mut raft, now);
    let late = Message::PreVoteReply(VoteReply { term: Term::new(2), granted: false });
    raft.handle_message(now, member(2), late);
    assert_eq!(raft.leader(), Some(member(1).id), "it asks no more");
    assert_eq!(votes(&mut raft, now + MS, vote(2, false)), [false]);
}

/// The answer may have been lost, and a promise stays one.
#[test]
fn a_vote_that_has_been_given_is_given_again() {
    // It has just started, so it acts as if it had heard a leader.
    let mut raft = follower_with(3, leased());
    assert_eq!(votes(&mut raft, MS, vote(2, true)), [true]);
    assert_eq!(votes(&mut raft, MS, vote(2, false)), [true]);
}

/// It may have heard a leader a moment before it went down.
#[test]
fn with_leases_a_voter_that_has_just_started_waits() {
    assert_eq!(votes(&mut follower_with(3, leased()), MS * 499, vote(2, false)), [false]);
    assert_eq!(votes(&mut follower_with(3, leased()), MS * 500, vote(2, false)), [true]);
    assert_eq!(votes(&mut follower_with(3, Options::default()), MS, vote(2, false)), [true]);
}

/// A leader that is cut off answers from its lease for as long as it runs, and no longer.
#[test]
fn thesis_6_4_1_a_deposed_leader_has_no_lease() {
    let mut sim = Sim::with_options(3, 0, 50, leased());
    let old = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    sim.isolate(old);
    sim.run_until("another leads", SECOND * 10, |sim| sim.leader().is_some_and(|leader| leader != old));
    let now = sim.now;
    assert_eq!(sim.raft(old).lease_read(now), None);
}
