//! One test for each rule, with its section of the Raft paper (or of the thesis) in the name.

use bytes::BytesMut;
use tokio_util::codec::Encoder;

use super::lone::{SECOND, append, durable_at, elected, follower, granted, outputs, results, vote};
use super::sim::{STEP, Sim, member};
use super::{id, index};
use crate::codec::{Frame, FrameCodec};
use crate::message::{
    AppendEntriesReply, AppendResult, Forward, Message, PROPOSAL_BYTES_MAX, Proposal, TimeoutNow, VoteReply,
};
use crate::raft::{Options, Output, ProposeError, Raft, Role, SnapshotProgress, TransferError};
use crate::types::{EntryId, Incarnation, Index, Member, Term, kind};

#[test]
fn section_5_1_a_stale_term_is_rejected() {
    let mut raft = follower(0);
    raft.handle_message(SECOND, member(1), append(0, EntryId::ZERO, 0, 1..=1));
    assert_eq!(results(&outputs(&mut raft, SECOND).0), [AppendResult::StaleTerm]);
}

#[test]
fn section_5_2_one_vote_a_term_first_come_first_served_and_only_when_durable() {
    let mut raft = follower(0);
    raft.handle_message(SECOND, member(1), vote(2, EntryId::ZERO));
    let (before, after) = outputs(&mut raft, SECOND);
    assert!(granted(&before).is_empty(), "the vote waits for the disk");
    assert_eq!(granted(&after), [true]);
    raft.handle_message(SECOND, member(2), vote(2, EntryId::ZERO));
    let (before, after) = outputs(&mut raft, SECOND);
    assert_eq!([granted(&before), granted(&after)].concat(), [false]);
}

/// CCF #8094: stepping down within a term must not clear the vote.
/// Or a cluster whose syncs take as long as the election timeout would never elect anyone.
#[test]
fn section_5_2_no_new_term_begins_while_the_last_vote_is_on_its_way_to_the_disk() {
    let write = |raft: &mut Raft| {
        let write = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
            Output::Write(write) => Some(write.into_durable()),
            _ => None,
        });
        write.expect("it has voted")
    };
    let (started, later) = (SECOND * 3, SECOND * 6);
    let may_ask_at = later + Options::default().election_timeout_min;

    let mut candidate = follower(5);
    candidate.handle_timeout(started);
    let yes = VoteReply { term: Term::new(2), granted: true };
    candidate.handle_message(started, member(1), Message::PreVoteReply(yes));
    let voted = write(&mut candidate);
    assert_eq!(candidate.poll_timeout(), None);
    candidate.handle_timeout(later);
    candidate.handle_durable(later, voted);
    let (asked, _) = outputs(&mut candidate, later);
    assert!(matches!(asked[..], [Message::RequestVote(request), _] if request.term == Term::new(2)), "{asked:?}");
    assert!(candidate.poll_timeout() >= Some(may_ask_at), "the others have their time");

    let mut voter = follower(5);
    voter.handle_message(started, member(1), vote(2, id(1, 5)));
    let voted = write(&mut voter);
    assert_eq!(voter.poll_timeout(), None);
    voter.handle_timeout(later);
    voter.handle_durable(later, voted);
    assert_eq!(granted(&outputs(&mut voter, later).0), [true]);
    assert!(voter.poll_timeout() >= Some(may_ask_at), "the candidate has its time");
}

#[test]
fn section_5_2_a_leader_of_the_same_term_does_not_clear_the_vote() {
    let mut raft = follower(0);
    raft.handle_message(SECOND, member(1), vote(2, EntryId::ZERO));
    outputs(&mut raft, SECOND);
    raft.handle_message(SECOND, member(1), append(2, EntryId::ZERO, 0, 1..=1));
    outputs(&mut raft, SECOND);
    raft.handle_message(SECOND, member(2), vote(2, id(2, 9)));
    assert_eq!(granted(&outputs(&mut raft, SECOND).0), [false]);
}

#[test]
fn section_5_3_an_acknowledgement_waits_for_the_disk_and_a_heartbeat_does_not() {
    let mut raft = follower(0);
    raft.handle_message(SECOND, member(1), append(2, EntryId::ZERO, 0, 1..=3));
    let (before, after) = outputs(&mut raft, SECOND);
    assert!(results(&before).iter().all(|result| *result == AppendResult::Alive), "{before:?}");
    assert_eq!(results(&after), [AppendResult::Durable(index(3))]);
}

#[test]
fn section_5_3_a_gap_is_refused_and_a_conflict_is_replaced() {
    let mut raft = follower(5);
    raft.handle_message(SECOND, member(1), append(2, id(1, 9), 0, 10..=10));
    let refused = AppendResult::Mismatch { refused: index(9), hint: id(1, 5) };
    assert_eq!(results(&outputs(&mut raft, SECOND).0), [refused]);
    raft.handle_message(SECOND, member(1), append(2, id(1, 3), 0, 4..=4));
    assert_eq!(results(&outputs(&mut raft, SECOND).1), [AppendResult::Durable(index(4))]);
    assert_eq!(raft.last(), id(2, 4), "entry 5 contradicted the leader's log");
}

#[test]
fn section_5_3_a_delayed_message_cuts_nothing_off() {
    let mut raft = follower(0);
    raft.handle_message(SECOND, member(1), append(2, EntryId::ZERO, 0, 1..=5));
    outputs(&mut raft, SECOND);
    raft.handle_message(SECOND, member(1), append(2, EntryId::ZERO, 0, 1..=2));
    outputs(&mut raft, SECOND);
    assert_eq!(raft.last(), id(2, 5));
}

#[test]
fn section_5_4_1_no_vote_for_a_log_that_is_behind() {
    for (last, expected) in [(id(1, 4), false), (id(1, 5), true), (id(2, 1), true), (id(0, 9), false)] {
        let mut raft = follower(5);
        raft.handle_message(SECOND, member(1), vote(3, last));
        let (before, after) = outputs(&mut raft, SECOND);
        assert_eq!([granted(&before), granted(&after)].concat(), [expected], "{last}");
    }
}

/// Figure 8: an entry of an earlier term on a majority is not committed by counting.
#[test]
fn section_5_4_2_only_entries_of_the_own_term_are_committed_by_counting() {
    let mut raft = elected();
    outputs(&mut raft, SECOND * 3);
    durable_at(&mut raft, 1, 5);
    assert_eq!(raft.committed(), Index::ZERO, "entry 5 is of term 1");
    durable_at(&mut raft, 1, 6);
    assert_eq!(raft.committed(), index(6));
}

#[test]
fn section_5_4_2_a_leader_counts_itself_only_when_it_is_durable_and_can_commit_without() {
    let mut raft = elected();
    durable_at(&mut raft, 1, 6);
    assert_eq!(raft.committed(), Index::ZERO, "one follower and an unsynced leader are no majority");
    durable_at(&mut raft, 2, 6);
    assert_eq!(raft.committed(), index(6), "two followers are one");
}

#[test]
fn an_acknowledgement_of_another_connection_or_beyond_the_log_is_ignored() {
    let mut raft = elected();
    outputs(&mut raft, SECOND * 3);
    raft.handle_connected(SECOND * 3, member(1), 7);
    durable_at(&mut raft, 1, 6);
    assert_eq!(raft.committed(), Index::ZERO, "connection 1 is gone");
    durable_at(&mut raft, 2, 60);
    assert_eq!(raft.committed(), Index::ZERO, "nobody holds what was never sent");
}

#[test]
fn what_another_incarnation_of_a_member_answers_does_not_count() {
    let wiped = Member { incarnation: Incarnation::new(1), ..member(1) };
    let mut raft = elected();
    outputs(&mut raft, SECOND * 3);
    raft.handle_connected(SECOND * 3, wiped, 1);
    let reply =
        AppendEntriesReply { term: raft.term(), round: 1, connection: 1, result: AppendResult::Durable(index(6)) };
    raft.handle_message(SECOND * 3, wiped, Message::AppendEntriesReply(reply));
    assert_eq!(raft.committed(), Index::ZERO);

    let mut raft = follower(5);
    raft.handle_timeout(SECOND * 3);
    outputs(&mut raft, SECOND * 3);
    let yes = VoteReply { term: Term::new(2), granted: true };
    raft.handle_message(SECOND * 3, wiped, Message::PreVoteReply(yes));
    assert_eq!(raft.role(), Role::PreCandidate);
    raft.handle_message(SECOND * 3, member(2), Message::PreVoteReply(yes));
    outputs(&mut raft, SECOND * 3);
    raft.handle_message(SECOND * 3, wiped, Message::RequestVoteReply(yes));
    assert_eq!(raft.role(), Role::Candidate);
}

/// Thesis 6.2: a leader that a majority no longer hears steps down.
#[test]
fn thesis_6_2_a_leader_without_a_majority_steps_down() {
    let mut sim = Sim::new(3, 1);
    let leader = sim.elect();
    sim.isolate(leader);
    sim.run_until("it steps down", SECOND * 5, |sim| {
        sim.nodes[leader].raft.as_ref().is_some_and(|raft| raft.role() != Role::Leader)
    });
}

/// Thesis 9.6: a node that was cut off comes back without a higher term.
#[test]
fn thesis_9_6_a_node_that_comes_back_disturbs_nobody() {
    let mut sim = Sim::new(3, 2);
    let leader = sim.elect();
    let away = (leader + 1) % 3;
    sim.isolate(away);
    sim.pass(SECOND * 30);
    let term = sim.raft(leader).term();
    sim.heal_all();
    sim.pass(SECOND * 10);
    assert_eq!(sim.raft(leader).term(), term);
    assert_eq!(sim.leader(), Some(leader));
}

/// openraft #1796: a rejection teaches the higher term, or nodes whose terms have drifted apart never elect anyone.
#[test]
fn thesis_9_6_a_rejected_pre_vote_teaches_the_higher_term() {
    let mut raft = follower(0);
    raft.handle_timeout(SECOND * 3);
    outputs(&mut raft, SECOND * 3);
    let no = VoteReply { term: Term::new(9), granted: false };
    raft.handle_message(SECOND * 3, member(1), Message::PreVoteReply(no));
    assert_eq!(raft.term(), Term::new(9));
}

/// etcd #20418: an answer to a message that was sent before the read does not confirm it.
#[test]
fn thesis_6_4_a_read_is_confirmed_by_its_own_round_only() {
    let mut raft = elected();
    outputs(&mut raft, SECOND * 3);
    durable_at(&mut raft, 1, 6);
    outputs(&mut raft, SECOND * 3);
    raft.read(SECOND * 3, 77);
    let (sent, _) = outputs(&mut raft, SECOND * 3);
    let round = sent.iter().find_map(|message| match message {
        Message::AppendEntries(append) => Some(append.round),
        _ => None,
    });
    let round = round.expect("a round was started");
    assert!(round > 1, "with a number of its own");
    let ready =
        |raft: &mut Raft| std::iter::from_fn(|| raft.poll_output()).any(|o| matches!(o, Output::ReadReady { .. }));
    durable_at(&mut raft, 1, 6);
    assert!(!ready(&mut raft), "an answer to round 1");
    let reply = AppendEntriesReply { term: raft.term(), round, connection: 1, result: AppendResult::Alive };
    raft.handle_message(SECOND * 3, member(1), Message::AppendEntriesReply(reply));
    assert!(ready(&mut raft));
}

/// openraft #1828: the log is compacted, the leader idle, the follower far behind: it must converge all the same.
#[test]
fn section_7_a_follower_behind_a_compacted_idle_leader_converges() {
    let mut sim = Sim::new(3, 3);
    let leader = sim.elect();
    let away = (leader + 1) % 3;
    sim.crash(away);
    for number in 0..50 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes[leader].applied.len() > 50);
    sim.checkpoint(leader);
    let all = sim.committed.len();
    sim.start(away);
    sim.run_until("it converges", SECOND * 10, |sim| sim.nodes[away].applied.len() == all);
}

/// Figure 13, rule 7: what contradicts the checkpoint goes.
#[test]
fn figure_13_a_conflicting_suffix_does_not_survive_a_checkpoint() {
    let mut sim = Sim::new(3, 4);
    let old = sim.elect();
    sim.run_until("the first entry", SECOND * 5, |sim| !sim.committed.is_empty());
    sim.isolate(old);
    for number in 0..10 {
        sim.propose(old, &format!("lost {number}"));
    }
    sim.run_until("another leader", SECOND * 10, |sim| sim.leader().is_some_and(|leader| leader != old));
    let new = sim.leader().expect("just waited for it");
    for number in 0..30 {
        assert!(sim.propose(new, &format!("kept {number}")));
        sim.step();
    }
    sim.run_until("applied", SECOND * 5, |sim| sim.nodes[new].applied.len() > 30);
    (0..3).filter(|node| *node != old).for_each(|node| sim.checkpoint(node));
    let all = sim.committed.len();
    sim.heal_all();
    sim.run_until("it converges", SECOND * 10, |sim| sim.nodes[old].applied.len() >= all);
}

/// Also if the log is longer than the checkpoint: what it has after that was never committed.
#[test]
fn figure_13_nor_does_a_longer_one() {
    let mut raft = follower(9);
    let configuration = raft.configuration().clone();
    let received = SnapshotProgress::Received { last: id(2, 5), stamp_ms: 0, configuration };
    raft.handle_snapshot(SECOND, member(1), received);
    assert_eq!(raft.last(), id(2, 5));
    let write = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
        Output::Write(write) => Some(write),
        _ => None,
    });
    assert_eq!(write.expect("the log begins anew").reset, Some(id(2, 5)));
}

#[test]
fn a_single_voter_elects_itself_and_commits() {
    let mut sim = Sim::new(1, 5);
    let leader = sim.elect();
    assert!(sim.propose(leader, "alone"));
    sim.run_until("it is applied", STEP * 100, |sim| sim.committed.len() == 2);
}

/// It is a majority by itself, so it never misses one.
#[test]
fn a_single_voter_leads_on() {
    let mut sim = Sim::new(1, 6);
    let leader = sim.elect();
    let term = sim.raft(leader).term();
    let until = sim.now + SECOND * 30;
    while sim.now < until {
        sim.step();
        assert_eq!(sim.raft(leader).role(), Role::Leader);
    }
    assert_eq!(sim.raft(leader).term(), term);
}

/// What followers commit while the leader's own disk hangs is kept in memory there, so there is an end to it; and then
/// another one leads, in whose log new entries become durable.
#[test]
fn a_leader_whose_disk_hangs_takes_no_more_than_the_limit_and_makes_way() {
    let mut sim = Sim::new(3, 7);
    let old = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    sim.nodes[old].hangs = true;
    let payload = "x".repeat(1 << 20);
    let taken = (0..1000).take_while(|_| {
        sim.step();
        sim.propose(old, &payload)
    });
    assert!(taken.count() < 64);
    assert_eq!(sim.raft(old).role(), Role::Leader, "it is only busy yet");
    sim.run_until("all it took is committed", SECOND * 5, |sim| sim.committed.len() > 60);
    sim.run_until("it steps down", SECOND * 20, |sim| sim.nodes[old].raft.as_ref().unwrap().role() != Role::Leader);
    let timeout = Options::default().election_timeout_min;
    sim.run_until("it has told another one to lead", timeout, |sim| sim.leader().is_some_and(|leader| leader != old));
    let new = sim.leader().expect("just waited for it");
    assert!(sim.propose(new, "goes on"));
    sim.nodes[old].hangs = false;
    let all = sim.committed.len() + 1;
    sim.run_until("all converge", SECOND * 20, |sim| sim.nodes.iter().all(|node| node.applied.len() > all));
}

/// With nobody whose disk does better there is no use in stepping down: reads go on.
#[test]
fn a_leader_whose_disk_hangs_stays_if_nobody_commits_without_it() {
    let mut sim = Sim::new(3, 8);
    let leader = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| sim.nodes.iter().all(|node| !node.applied.is_empty()));
    sim.nodes.iter_mut().for_each(|node| node.hangs = true);
    assert!(sim.propose(leader, "written nowhere"));
    sim.pass(SECOND * 30);
    assert_eq!(sim.leader(), Some(leader));
    sim.read(leader);
    sim.run_until("the read is answered", SECOND * 5, |sim| sim.reads_answered == 1);
}

/// One entry in the middle of the log has become unreadable: a checkpoint must take the follower over it, and the newest one
/// ends before. Nothing is committed meanwhile: there are only these two.
#[test]
fn section_7_an_unreadable_entry_is_passed_by_a_checkpoint() {
    let mut sim = Sim::new(3, 9);
    let leader = sim.elect();
    let away = (leader + 1) % 3;
    sim.run_until("its term begins", SECOND * 5, |sim| sim.nodes[away].applied.len() == 1);
    sim.crash(away);
    for number in 0..50 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
        if number == 10 {
            sim.run_until("applied", SECOND * 5, |sim| sim.nodes[leader].applied.len() > 5);
            sim.checkpoint(leader);
        }
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes[leader].applied.len() > 50);
    assert_eq!(sim.spoil(leader, [20]), 1);
    sim.crash((leader + 2) % 3);
    sim.start(away);
    sim.run_until("it gets as far as that", SECOND * 10, |sim| sim.nodes[away].applied.len() >= 19);
    assert!(sim.propose(leader, "needs both"));
    sim.run_until("it converges", SECOND * 10, |sim| sim.nodes[away].applied.len() == 52);
}

/// A leader that has just started cannot give an entry that nobody knows to be committed. It starts again, damaged, and gets
/// the entry back from a follower that has it, though that could not be elected.
#[test]
fn section_7_no_checkpoint_stands_for_what_may_not_be_committed() {
    let mut sim = Sim::new(3, 12);
    let old = sim.elect();
    let (behind, has_it) = ((old + 1) % 3, (old + 2) % 3);
    sim.run_until("its term begins", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 1));
    sim.crash(behind);
    for number in 0..30 {
        assert!(sim.propose(old, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes[has_it].applied.len() == 31);
    sim.isolate(old);
    for number in 0..10 {
        assert!(sim.propose(old, &format!("not committed {number}")));
        sim.step();
    }
    sim.run_until("it is durable", SECOND, |sim| sim.log_of(old).1 == index(41));
    [old, has_it].into_iter().for_each(|node| sim.crash(node));
    sim.heal_all();
    [behind, old].into_iter().for_each(|node| sim.start(node));
    assert_eq!(sim.spoil_unapplied(old, 20), 1);
    sim.run_until("it has started again", SECOND * 20, |sim| {
        sim.nodes[old].raft.as_ref().is_some_and(crate::raft::Raft::is_damaged)
    });
    sim.start(has_it);
    sim.run_until("it is whole", SECOND * 20, |sim| !sim.has_lost(old));
    let leader = sim.elect();
    assert!(sim.propose(leader, "goes on"));
    sim.run_until("all converge", SECOND * 20, |sim| {
        sim.nodes.iter().all(|node| node.applied.len() == sim.committed.len())
    });
}

/// Two have lost the same entry, and the third is not there. The one that leads found it lost only when it was asked for it.
#[test]
fn section_7_a_checkpoint_replaces_what_nobody_can_read() {
    let mut sim = Sim::new(3, 11);
    let leader = sim.elect();
    for number in 0..50 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 51));
    let damaged = (leader + 1) % 3;
    assert_eq!(sim.spoil(leader, [20]), 1);
    sim.crash((leader + 2) % 3);
    sim.lose(damaged, [20]);
    sim.start(damaged);
    assert!(sim.propose(leader, "needs both"));
    sim.run_until("it converges", SECOND * 10, |sim| sim.nodes[damaged].applied.len() == 52);
    assert_eq!((sim.covered, sim.leader()), (1, Some(leader)));
}

/// What is accepted can be replicated: the longest payload fits in a frame, in both messages that carry it.
#[test]
fn the_longest_proposal_can_be_sent() {
    let propose = |bytes: usize| {
        let mut raft = elected();
        outputs(&mut raft, SECOND * 3);
        durable_at(&mut raft, 1, 6);
        let proposal = Proposal { kind: kind::COMMAND, payload: vec![0; bytes].into() };
        let proposed = raft.propose(SECOND * 3, 0, std::slice::from_ref(&proposal));
        let (sent, _) = outputs(&mut raft, SECOND * 3);
        let forward = Message::Forward(Forward { term: raft.term(), proposals: vec![proposal] });
        (proposed, [sent, vec![forward]].concat())
    };
    let (proposed, messages) = propose(PROPOSAL_BYTES_MAX);
    assert_eq!(proposed, Ok(id(2, 7)));
    let carries = |message: &&Message| matches!(message, Message::AppendEntries(append) if !append.entries.is_empty());
    assert!(messages.iter().any(|message| carries(&message)));
    for message in messages {
        FrameCodec::default().encode(Frame::Message(message), &mut BytesMut::new()).expect("it fits in a frame");
    }
    let (refused, _) = propose(PROPOSAL_BYTES_MAX + 1);
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes: PROPOSAL_BYTES_MAX + 1 }));
}

/// A transfer that takes longer than the leader takes to write checkpoints and truncate its log must end all the same.
#[test]
fn section_7_a_slow_transfer_is_not_overtaken_by_the_log() {
    let mut sim = Sim::new(3, 10);
    sim.checkpoint_pieces = 200;
    let leader = sim.elect();
    let away = (leader + 1) % 3;
    sim.crash(away);
    let work = |sim: &mut Sim| {
        for number in 0..20 {
            assert!(sim.propose(leader, &format!("command {number}")));
            sim.step();
        }
        sim.checkpoint(leader);
    };
    (0..3).for_each(|_| work(&mut sim));
    sim.start(away);
    for _ in 0..200 {
        work(&mut sim);
    }
    let behind = sim.nodes[leader].applied.len() - sim.nodes[away].applied.len();
    assert!(behind < 100, "{behind} entries behind");
}

/// The next leader is who was chosen, one term later, with everything the old one had; meanwhile nothing new is taken.
#[test]
fn thesis_3_10_leadership_goes_to_whom_it_is_given() {
    let mut sim = Sim::new(3, 10);
    let old = sim.elect();
    let to = (old + 1) % 3;
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    sim.isolate(to);
    for number in 0..50 {
        assert!(sim.propose(old, &format!("command {number}")));
        sim.step();
    }
    sim.heal_all();
    let (now, term) = (sim.now, sim.raft(old).term());
    // It is behind, and gets what it lacks first.
    sim.raft(old).transfer_leadership(now, member(to).id).unwrap();
    assert_eq!(
        sim.raft(old).propose(now, 0, &[]),
        Err(ProposeError::Transferring { to: member(to).id }),
        "what would come behind it"
    );
    sim.run_until("it leads", SECOND, |sim| sim.leader() == Some(to));
    assert_eq!(sim.raft(to).term(), term.next(), "one election, at once");
    assert_eq!(sim.raft(to).last().index, index(52), "all commands, and the entry of each reign");
    assert!(sim.propose(to, "goes on"));
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 53));
}

/// Neither a node that is away nor a message that is lost leaves the cluster without a leader.
#[test]
fn thesis_3_10_a_transfer_that_does_not_succeed_is_given_up() {
    let mut sim = Sim::new(3, 11);
    let leader = sim.elect();
    let (behind, other) = ((leader + 1) % 3, (leader + 2) % 3);
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let (now, term) = (sim.now, sim.raft(leader).term());
    let to = member(behind).id;
    sim.raft(leader).transfer_leadership(now, to).unwrap();
    sim.cut(leader, behind);
    sim.cut(behind, leader);
    let later = sim.now + Options::default().election_timeout_max * 2;
    sim.run_until("it is given up", SECOND * 10, |sim| sim.now > later);
    assert_eq!((sim.leader(), sim.raft(leader).term()), (Some(leader), term), "the old leader goes on");
    assert!(sim.propose(leader, "goes on"));
    let now = sim.now;
    let refused = |raft: &mut Raft, to| raft.transfer_leadership(now, to).unwrap_err();
    sim.raft(leader).handle_disconnected(now, member(behind));
    assert_eq!(refused(sim.raft(leader), to), TransferError::NotConnected { to });
    let me = member(leader).id;
    assert_eq!(refused(sim.raft(leader), me), TransferError::NotAnotherVoter { to: me });
    assert_eq!(refused(sim.raft(other), me), TransferError::NotLeader { leader: Some(me) });
}

/// TimeoutNow counts only from the leader of the present term.
#[test]
fn thesis_3_10_nobody_else_can_call_an_election() {
    let order = |term| Message::TimeoutNow(TimeoutNow { term: Term::new(term) });
    let mut raft = follower(3);
    raft.handle_message(SECOND, member(1), order(1));
    assert_eq!(raft.role(), Role::Follower, "no leader is known");
    raft.handle_message(SECOND, member(1), append(1, id(1, 3), 3, 4..=4));
    outputs(&mut raft, SECOND);
    for (from, term) in [(2, 1), (1, 0), (1, 2)] {
        raft.handle_message(SECOND, member(from), order(term));
        assert_eq!(raft.role(), Role::Follower, "from {from} in term {term}");
    }
    raft.handle_message(SECOND, member(1), order(1));
    assert_eq!(raft.role(), Role::Candidate);
    let (before, after) = outputs(&mut raft, SECOND);
    let asks = |messages: &[Message]| messages.iter().filter(|m| matches!(m, Message::RequestVote(_))).count();
    assert_eq!((asks(&before), asks(&after)), (0, 2), "its own vote is durable first");
}

/// Who has been away may have come back with a damaged log: what it acknowledged before does not make it the best one.
#[test]
fn section_3_10_leadership_is_handed_to_one_that_keeps_up() {
    let mut raft = elected();
    let later = SECOND * 3;
    durable_at(&mut raft, 1, 6);
    durable_at(&mut raft, 2, 5);
    assert_eq!(raft.successor(), Some(member(1).id), "it has the longest log");
    raft.handle_disconnected(later, member(1));
    assert_eq!(raft.successor(), Some(member(2).id), "who is not there is none");
    raft.handle_connected(later, member(1), 9);
    assert_eq!(raft.successor(), Some(member(2).id), "nothing is known of it since it came back");
}
