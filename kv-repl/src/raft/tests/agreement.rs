//! States compared at marks in the log.

use super::index;
use super::lone::{SECOND, elected, outputs};
use super::sim::{Sim, member};
use crate::message::{Marked, Message, Proposal};
use crate::raft::Role;
use crate::types::kind;

fn mark(sim: &mut Sim, leader: usize) {
    let now = sim.now;
    let mark = Proposal { kind: kind::MARK, payload: bytes::Bytes::new() };
    sim.raft(leader).propose(now, 0, &[mark]).expect("it leads");
}

#[test]
fn what_the_majority_has_is_agreed_on() {
    let mut sim = Sim::new(3, 60);
    let leader = sim.elect();
    mark(&mut sim, leader);
    sim.run_until("all compare", SECOND * 5, |sim| sim.agreed == 3);
    assert!(sim.nodes.iter().all(|node| node.disagreed == 0));
}

/// One follower's state has gone wrong.
#[test]
fn whoever_differs_from_the_majority_learns_it() {
    let mut sim = Sim::new(3, 61);
    let leader = sim.elect();
    let wrong = (leader + 1) % 3;
    sim.nodes[wrong].is_wrong = true;
    mark(&mut sim, leader);
    sim.run_until("all compare", SECOND * 5, |sim| sim.agreed == 3);
    let disagreed: Vec<usize> = sim.nodes.iter().map(|node| node.disagreed).collect();
    assert_eq!(disagreed.iter().sum::<usize>(), 1);
    assert_eq!(disagreed[wrong], 1);
}

/// The leader's own state has gone wrong: its word about the hash would condemn the others.
#[test]
fn a_leader_in_the_minority_makes_way_and_the_next_one_says_what_is_agreed() {
    let mut sim = Sim::new(3, 62);
    let wrong = sim.elect();
    sim.nodes[wrong].is_wrong = true;
    mark(&mut sim, wrong);
    sim.run_until("another leads", SECOND * 5, |sim| sim.leader().is_some_and(|leader| leader != wrong));
    assert_ne!(sim.raft(wrong).role(), Role::Leader);
    sim.run_until("all compare", SECOND * 5, |sim| sim.agreed == 3);
    let disagreed: Vec<usize> = sim.nodes.iter().map(|node| node.disagreed).collect();
    assert_eq!((disagreed.iter().sum::<usize>(), disagreed[wrong]), (1, 1));
}

/// Three states, all different: nobody is right by number, and nothing is said.
#[test]
fn without_a_majority_nothing_is_agreed_on() {
    let mut sim = Sim::new(3, 63);
    let leader = sim.elect();
    sim.nodes[0].is_wrong = true;
    sim.crash(1);
    sim.run_until("a leader", SECOND * 20, |sim| sim.leader().is_some());
    let leader = sim.leader().unwrap_or(leader);
    mark(&mut sim, leader);
    sim.pass(SECOND * 5);
    assert_eq!(sim.agreed, 0);
}

/// The others are always a mark ahead of a leader that is slow to apply.
#[test]
fn a_leader_compares_what_it_has_applied_however_far_the_others_are() {
    let mut raft = elected();
    outputs(&mut raft, SECOND * 3);
    for at in 6..20 {
        for (from, ahead) in [(1, 1), (2, 3)] {
            let marked = Marked { term: raft.term(), index: index(at + ahead), hash: [at as u8 + ahead as u8; 32] };
            raft.handle_message(SECOND * 3, member(from), Message::Marked(marked));
        }
        let before = raft.last();
        raft.handle_marked(SECOND * 3, index(at), [at as u8; 32]);
        outputs(&mut raft, SECOND * 3);
        let has_agreed = raft.last().index > before.index;
        // Each of the others has begun with a later mark than this node.
        assert_eq!((has_agreed, raft.role()), (at > 6, Role::Leader), "at {at}");
    }
    raft.handle_marked(SECOND * 3, index(20), [0; 32]);
    assert_eq!(raft.role(), Role::Follower, "it differs from both");
}
