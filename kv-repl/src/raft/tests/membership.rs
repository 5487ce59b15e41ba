//! Changes of membership, one test for each rule (thesis, chapter 4).

use bytes::BytesMut;

use super::lone::{SECOND, append, durable_at, elected, follower, granted, heartbeat, outputs, results, vote};
use super::sim::{STEP, Sim, member};
use super::{id, index};
use crate::message::{AppendEntries, AppendResult, Message, Proposal};
use crate::raft::{ChangeError, Options, ProposeError, Role};
use crate::types::{Configuration, Entry, EntryId, Index, Member, NodeId, Term, kind};

fn of(nodes: &[usize]) -> Configuration {
    Configuration::new(nodes.iter().map(|node| member(*node)).collect())
}

/// AppendEntries of term 2 after entry `prev` of term 1, with a configuration.
fn configuring(prev: u64, configuration: &Configuration) -> Message {
    let payload = configuration.encode();
    let entry = Entry::encode(&mut BytesMut::new(), id(2, prev + 1), 0, kind::CONFIGURATION, &payload);
    Message::AppendEntries(AppendEntries {
        term: Term::new(2),
        prev: if prev == 0 { EntryId::ZERO } else { id(1, prev) },
        committed: Index::ZERO,
        round: 1,
        connection: 1,
        entries: vec![entry].into(),
    })
}

/// Waits until the leader's configuration is this one, and committed.
fn complete(sim: &mut Sim, target: &Configuration) {
    sim.run_until("the change is complete", SECOND * 20, |sim| {
        sim.leader()
            .and_then(|leader| sim.nodes[leader].raft.as_ref())
            .is_some_and(|raft| raft.configuration() == target && raft.is_configuration_committed())
    });
}

/// A leader that has committed something, and whoever is asked for as learners that have caught up.
fn with_learners(sim: &mut Sim, learners: &[usize]) -> usize {
    let leader = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let start = sim.raft(leader).configuration().clone();
    let target = learners.iter().fold(start, |of, node| of.with_learner(member(*node)));
    assert!(sim.change(leader, &target));
    complete(sim, &target);
    let all = sim.committed.len();
    let learned = |sim: &Sim| learners.iter().all(|node| sim.nodes[*node].applied.len() >= all);
    sim.run_until("they learn", SECOND * 20, learned);
    leader
}

/// Asks for a change until it is taken: the leader may not have heard yet that the learners have caught up.
fn change_soon(sim: &mut Sim, leader: usize, target: &Configuration) {
    let end = sim.now + SECOND * 5;
    while !sim.change(leader, target) {
        assert!(sim.now < end, "the learners never catch up");
        sim.step();
    }
}

#[test]
fn thesis_4_1_a_configuration_is_in_force_when_appended_and_no_longer_when_replaced() {
    let mut raft = follower(3);
    let four = of(&[0, 1, 2, 3]);
    raft.handle_message(SECOND, member(1), configuring(3, &four));
    outputs(&mut raft, SECOND);
    assert_eq!((raft.configuration(), raft.is_configuration_committed()), (&four, false));
    raft.handle_message(SECOND, member(2), append(3, id(1, 3), 0, 4..=4));
    assert_eq!(raft.configuration(), &of(&[0, 1, 2]));
}

#[test]
fn thesis_4_1_votes_and_entries_are_exchanged_with_nodes_outside_the_own_configuration() {
    let mut raft = follower(3);
    raft.handle_message(SECOND, member(7), vote(2, id(1, 3)));
    assert_eq!(granted(&outputs(&mut raft, SECOND).1), [true]);
    raft.handle_message(SECOND, member(7), append(2, id(1, 3), 0, 4..=4));
    assert_eq!(results(&outputs(&mut raft, SECOND).1), [AppendResult::Durable(index(4))]);
}

/// What is no configuration would be in force on being appended: it is not appended.
#[test]
fn a_configuration_that_cannot_be_read_is_not_taken() {
    let mut raft = follower(3);
    let mut message = configuring(3, &of(&[0, 1, 2]));
    if let Message::AppendEntries(append) = &mut message {
        let nonsense = Entry::encode(&mut BytesMut::new(), id(2, 4), 0, kind::CONFIGURATION, b"nonsense");
        append.entries = vec![nonsense].into();
    }
    raft.handle_message(SECOND, member(1), message);
    assert_eq!(raft.last(), id(1, 3));
}

#[test]
fn thesis_4_1_one_change_at_a_time_and_none_before_the_first_commit() {
    let mut raft = elected();
    let (now, target) = (SECOND * 3, of(&[0, 1, 2]).with_learner(member(3)));
    assert_eq!(raft.change_membership(now, &target), Err(ChangeError::TooEarly));
    outputs(&mut raft, now);
    durable_at(&mut raft, 1, 6);
    assert_eq!(raft.change_membership(now, &target), Ok(index(7)));
    let other = of(&[0, 1, 2]).with_learner(member(4));
    assert_eq!(raft.change_membership(now, &other), Err(ChangeError::InProgress { index: index(7) }));
    outputs(&mut raft, now);
    durable_at(&mut raft, 1, 7);
    assert_eq!(raft.change_membership(now, &target), Ok(index(7)), "it is so already");
    assert_eq!(raft.last().index, index(7));
    assert_eq!(raft.change_membership(now, &other), Ok(index(8)));
}

#[test]
fn what_only_the_core_may_append_is_not_proposed() {
    let mut raft = elected();
    for kind in [kind::NOOP, kind::FOUNDING, kind::CONFIGURATION] {
        let proposal = Proposal { kind, payload: of(&[0]).encode() };
        assert_eq!(raft.propose(SECOND * 3, 0, &[proposal]), Err(ProposeError::Reserved { kind }));
    }
}

#[test]
fn thesis_4_2_1_a_newcomer_learns_before_it_votes() {
    let mut sim = Sim::with_spares(3, 1, 20);
    let leader = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let (now, four) = (sim.now, of(&[0, 1, 2, 3]));
    let refused = Err(ChangeError::NotCaughtUp { member: member(3) });
    assert_eq!(sim.raft(leader).change_membership(now, &four), refused);
    sim.isolate(3);
    let learning = of(&[0, 1, 2]).with_learner(member(3));
    assert!(sim.change(leader, &learning));
    complete(&mut sim, &learning);
    let now = sim.now;
    assert_eq!(sim.raft(leader).change_membership(now, &four), refused, "it is to learn, and has not yet");
    sim.heal_all();
    change_soon(&mut sim, leader, &four);
    complete(&mut sim, &four);
    let joint = sim.configuration_at(Index::new(sim.committed.len() as u64 - 1));
    assert!(joint.is_joint(), "by way of the joint configuration");
}

/// Two of four have the entry, one of them a learner: two of three voters do not.
#[test]
fn thesis_4_2_1_a_learner_counts_for_nothing() {
    let mut sim = Sim::with_spares(3, 1, 21);
    let leader = with_learners(&mut sim, &[3]);
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    others.iter().for_each(|node| sim.crash(*node));
    let all = sim.committed.len();
    assert!(sim.propose(leader, "held by leader and learner"));
    sim.pass(SECOND * 30);
    assert_eq!(sim.committed.len(), all);
    assert_eq!(sim.leader(), None, "the learner does not stand, and nobody else can be elected");
    let role = sim.raft(3).role();
    assert_eq!((role, sim.raft(3).poll_timeout()), (Role::Follower, None));
}

#[test]
fn thesis_4_2_2_a_leader_that_is_removed_does_not_count_itself_and_then_goes() {
    let mut sim = Sim::new(3, 22);
    let old = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let left: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    let target = of(&left);
    // Of the two that are left both are needed. One does not answer, and the leader's own disk is no help.
    assert!(sim.change(old, &target));
    sim.run_until("the joint one is committed", SECOND * 5, |sim| sim.committed.len() == 2);
    assert!(sim.committed.len() == 2 && sim.leader() == Some(old));
    sim.cut(left[0], old);
    sim.pass(Options::default().election_timeout_min);
    assert_eq!(sim.raft(old).configuration(), &target, "appended");
    assert_eq!(sim.committed.len(), 2, "and not committed: one of two is no majority");
    sim.heal(left[0], old);
    sim.run_until("another leads", SECOND * 5, |sim| sim.leader().is_some_and(|leader| leader != old));
    complete(&mut sim, &target);
    assert_ne!(sim.raft(old).role(), Role::Leader);
    assert_eq!(sim.raft(old).poll_timeout(), None, "it does not stand for election any more");
}

/// Only a node that is to go has the entry that says so, and the voter that is left lacks it: it can't be elected without
/// the other's vote, and does not get it. So the other must stand for election, though its own vote does not count.
#[test]
fn thesis_4_2_2_a_node_stands_for_election_until_its_removal_is_committed() {
    let mut sim = Sim::new(2, 33);
    let old = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let left = 1 - old;
    let target = of(&[left]);
    assert!(sim.change(old, &target));
    sim.run_until("the joint one is committed", SECOND * 5, |sim| sim.committed.len() == 2);
    sim.isolate(old);
    sim.run_until("the last step is durable at the old one", SECOND, |sim| {
        sim.nodes[old].raft.as_ref().is_some_and(|raft| raft.configuration() == &target && raft.durable() == index(3))
    });
    sim.pass(SECOND * 5);
    assert_eq!(sim.leader(), None);
    sim.heal_all();
    sim.run_until("the one that is left leads", SECOND * 20, |sim| sim.leader() == Some(left));
    complete(&mut sim, &target);
    sim.run_until("nobody else stands any more", SECOND * 5, |sim| {
        sim.nodes[old].raft.as_ref().is_some_and(|raft| raft.poll_timeout().is_none())
    });
}

/// A server that does not know that it has been removed.
#[test]
fn thesis_4_2_3_a_removed_node_disturbs_nobody() {
    let mut sim = Sim::new(3, 23);
    let leader = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let removed = (leader + 1) % 3;
    sim.isolate(removed);
    let target = sim.raft(leader).configuration().without(member(removed).id);
    assert!(sim.change(leader, &target));
    complete(&mut sim, &target);
    let term = sim.raft(leader).term();
    sim.heal_all();
    sim.pass(SECOND * 30);
    assert_eq!((sim.leader(), sim.raft(leader).term()), (Some(leader), term));
    assert!(sim.raft(removed).configuration().is_voter(member(removed)), "nobody has told it");
}

/// Any change at once: every voter is another one afterwards.
#[test]
fn thesis_4_3_all_voters_are_exchanged_in_one_change() {
    let mut sim = Sim::with_spares(3, 3, 24);
    let leader = with_learners(&mut sim, &[3, 4, 5]);
    let target = of(&[3, 4, 5]);
    change_soon(&mut sim, leader, &target);
    complete(&mut sim, &target);
    (0..3).for_each(|node| sim.crash(node));
    let new = sim.elect();
    assert!(new >= 3);
    let all = sim.committed.len();
    assert!(sim.propose(new, "goes on"));
    sim.run_until("it is committed", SECOND * 10, |sim| sim.committed.len() > all);
}

/// While the configuration is joint neither the old voters nor the new ones decide alone.
#[test]
fn thesis_4_3_a_joint_configuration_needs_both_majorities() {
    for away in [[1, 2], [4, 5]] {
        let mut sim = Sim::with_spares(3, 3, 25);
        let leader = with_learners(&mut sim, &[3, 4, 5]);
        let (now, target) = (sim.now, of(&[3, 4, 5]));
        if leader != 0 {
            sim.raft(leader).transfer_leadership(now, member(0).id).expect("it is connected");
            sim.run_until("node 0 leads", SECOND * 5, |sim| sim.leader() == Some(0));
            sim.step();
            let term = sim.raft(0).term();
            let begun = |sim: &Sim| sim.committed.last().is_some_and(|last| last.term() == term);
            sim.run_until("its term begins", SECOND * 5, begun);
        }
        change_soon(&mut sim, 0, &target);
        away.iter().for_each(|node| sim.crash(*node));
        let all = sim.committed.len();
        sim.pass(SECOND * 30);
        assert_eq!(sim.committed.len(), all, "without {away:?}");
        away.iter().for_each(|node| sim.start(*node));
        let leader = sim.elect();
        // If nobody else had the entry, a new leader does not have it either.
        if !sim.raft(leader).configuration().is_joint() {
            change_soon(&mut sim, leader, &target);
        }
        complete(&mut sim, &target);
    }
}

/// The leader fails between the two steps.
#[test]
fn thesis_4_3_a_new_leader_completes_a_joint_configuration() {
    let mut sim = Sim::with_spares(3, 1, 26);
    let old = with_learners(&mut sim, &[3]);
    let target = of(&[0, 1, 2, 3]).without(member((old + 1) % 3).id);
    change_soon(&mut sim, old, &target);
    let joint_at = sim.committed.len() + 1;
    sim.run_until("the joint one is committed", SECOND * 5, |sim| sim.committed.len() >= joint_at);
    assert!(sim.configuration_at(Index::new(joint_at as u64)).is_joint());
    sim.crash(old);
    complete(&mut sim, &target);
    assert_ne!(sim.leader(), Some(old));
}

#[test]
fn a_change_that_would_leave_nobody_to_commit_is_refused() {
    let mut sim = Sim::new(3, 27);
    let leader = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let (gone, left) = ((leader + 1) % 3, (leader + 2) % 3);
    sim.crash(gone);
    sim.pass(SECOND * 3);
    let (now, target) = (sim.now, of(&[leader, gone]));
    assert_eq!(sim.raft(leader).change_membership(now, &target), Err(ChangeError::NoMajority));
    assert!(sim.change(leader, &of(&[leader, left])), "the one that is gone can be removed");
}

/// A voter that answers, and whose disk takes nothing any more, does not help to commit what comes next.
#[test]
fn a_change_that_needs_a_hung_disk_is_refused() {
    let mut sim = Sim::new(3, 34);
    let leader = with_learners(&mut sim, &[]);
    let (hung, well) = ((leader + 1) % 3, (leader + 2) % 3);
    sim.run_until("all have all", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 1));
    sim.nodes[hung].hangs = true;
    assert!(sim.propose(leader, "committed by the other two"));
    sim.pass(SECOND * 3);
    let (now, needs_it) = (sim.now, of(&[leader, hung]));
    assert_eq!(sim.raft(leader).change_membership(now, &needs_it), Err(ChangeError::NoMajority));
    let without = of(&[leader, well]);
    assert!(sim.change(leader, &without));
    complete(&mut sim, &without);
}

/// The configuration of a node that was restored from a checkpoint is the checkpoint's.
#[test]
fn section_7_a_checkpoint_brings_the_configuration() {
    let mut sim = Sim::with_spares(3, 1, 28);
    let leader = with_learners(&mut sim, &[]);
    for number in 0..50 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes[leader].applied.len() > 50);
    sim.checkpoint(leader);
    with_learners(&mut sim, &[3]);
    assert!(sim.nodes[3].raft.as_ref().is_some_and(|raft| raft.status().base.index > index(50)), "not by the log");
    change_soon(&mut sim, leader, &of(&[0, 1, 2, 3]));
    complete(&mut sim, &of(&[0, 1, 2, 3]));
}

fn wiped(sim: &mut Sim, node: usize) -> Member {
    sim.wipe(node);
    sim.start(node);
    sim.nodes[node].me
}

/// etcd #10166, openraft #898, TigerBeetle #2996: a node comes back with an empty disk, under its old name.
#[test]
fn a_wiped_node_takes_its_own_place_again_by_itself() {
    let mut sim = Sim::new(3, 29);
    let leader = sim.elect();
    for number in 0..20 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    let node = (leader + 1) % 3;
    let new = wiped(&mut sim, node);
    let target = of(&[0, 1, 2]).with_voter(new);
    complete(&mut sim, &target);
    let all = sim.committed.len();
    sim.run_until("it has everything", SECOND * 10, |sim| sim.nodes[node].applied.len() == all);
    // And again.
    let again = wiped(&mut sim, node);
    complete(&mut sim, &of(&[0, 1, 2]).with_voter(again));
}

/// The leader itself is wiped: the others elect one of themselves, and let it in again.
#[test]
fn a_wiped_leader_takes_its_own_place_again_by_itself() {
    let mut sim = Sim::new(3, 30);
    let leader = sim.elect();
    assert!(sim.propose(leader, "kept"));
    sim.run_until("it is committed", SECOND * 5, |sim| sim.committed.len() == 2);
    let new = wiped(&mut sim, leader);
    complete(&mut sim, &of(&[0, 1, 2]).with_voter(new));
    assert!(sim.committed.iter().any(|entry| &entry.payload()[..] == b"kept"));
}

/// What a majority held is gone with it. Nobody may go on as if it had not been.
#[test]
fn with_a_majority_wiped_nobody_leads() {
    let mut sim = Sim::new(3, 31);
    let leader = sim.elect();
    assert!(sim.propose(leader, "lost but for one disk"));
    sim.run_until("it is committed", SECOND * 5, |sim| sim.committed.len() == 2);
    for nth in 0..2 {
        wiped(&mut sim, (leader + nth) % 3);
    }
    sim.pass(SECOND * 60);
    assert_eq!(sim.leader(), None);
    let roles = |sim: &Sim| sim.nodes.iter().filter_map(|node| node.raft.as_ref().map(|raft| raft.role())).max();
    assert!(roles(&sim) <= Some(Role::PreCandidate), "nor stands for election");
}

/// A node that has been put out is a stranger: it does not come in again by being there.
#[test]
fn nobody_is_let_in_unasked() {
    let mut sim = Sim::with_spares(3, 1, 32);
    let leader = sim.elect();
    sim.pass(SECOND * 10);
    assert_eq!(sim.raft(leader).configuration(), &of(&[0, 1, 2]));
    assert_eq!(sim.committed.len(), 1);
}

/// A follower that is promoted has an election timeout from then on.
#[test]
fn a_node_that_comes_to_vote_stands_for_election_when_its_leader_is_gone() {
    let mut raft = follower(3);
    raft.handle_message(SECOND, member(1), configuring(3, &of(&[1, 2])));
    outputs(&mut raft, SECOND);
    let news = heartbeat(2, id(2, 4), 4);
    raft.handle_message(SECOND, member(1), news);
    outputs(&mut raft, SECOND);
    assert_eq!(raft.poll_timeout(), None);
    let mut message = configuring(4, &of(&[0, 1, 2]));
    if let Message::AppendEntries(append) = &mut message {
        append.prev = id(2, 4);
    }
    raft.handle_message(SECOND * 9, member(1), message);
    outputs(&mut raft, SECOND * 9);
    assert!(raft.poll_timeout().is_some_and(|at| at > SECOND * 9 + STEP));
    assert_eq!(raft.status().configuration.voter(NodeId::new(1)), Some(member(0)));
}
