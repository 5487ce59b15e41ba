//! Logs that have lost entries.

use super::id;
use super::lone::{SECOND, append, granted, heartbeat, outputs, results, vote};
use super::sim::{Sim, member};
use crate::message::{AppendResult, FetchEntries, FetchEntriesReply, FetchResult, InstallSnapshot, Message};
use crate::raft::tests::{entries, index};
use crate::raft::{Boot, LogRead, LogReadResult, Lost, Options, Output, Raft, Role, SnapshotProgress};
use crate::types::{Configuration, Entries, Entry, EntryId, HardState, Index, Term};

use std::time::Duration;

/// A core of three in `term`, whose log ends with entry `last`, with runs of these terms and these losses.
fn with_losses(term: u64, terms: Vec<EntryId>, last: u64, lost: Vec<Lost>) -> Raft {
    let boot = Boot {
        hard_state: HardState { term: Term::new(term), voted_for: None },
        terms,
        last: index(last),
        lost,
        ..Boot::first(Configuration::new((0..3).map(member).collect()))
    };
    let mut raft = Raft::new(member(0), Options::default(), boot, Duration::ZERO);
    (1..3).for_each(|peer| raft.handle_connected(SECOND, member(peer), peer as u64));
    raft
}

fn lost(first: u64, next: EntryId) -> Lost {
    Lost { first: index(first), next }
}

/// Entries 1 to 9 of term 1, of which 4 to 6 are lost.
fn damaged() -> Raft {
    with_losses(1, vec![id(1, 1)], 9, vec![lost(4, id(1, 7))])
}

fn question(messages: &[Message]) -> Option<FetchEntries> {
    messages.iter().find_map(|message| match message {
        Message::FetchEntries(question) => Some(*question),
        _ => None,
    })
}

fn found(entries: Vec<Entry>) -> FetchResult {
    FetchResult::Entries(entries.into())
}

fn answer(raft: &mut Raft, from: usize, token: u64, result: FetchResult) -> Entries {
    let reply = FetchEntriesReply { term: raft.term(), token, result };
    raft.handle_message(SECOND, member(from), Message::FetchEntriesReply(reply));
    let mut repairs = std::iter::from_fn(|| raft.poll_output()).filter_map(|output| match output {
        Output::Repair(entries) => Some(entries),
        _ => None,
    });
    repairs.next().unwrap_or_default()
}

/// Another node, which leads, sends a whole checkpoint.
fn install(raft: &mut Raft, last: EntryId) -> Vec<Output> {
    let data = bytes::Bytes::from_static(b"whole");
    let term = raft.term();
    let piece = InstallSnapshot { term, connection: 1, last, file_bytes: 5, offset: 0, data };
    raft.handle_message(SECOND, member(2), Message::InstallSnapshot(piece));
    let configuration = Configuration::new((0..3).map(member).collect());
    raft.handle_snapshot(SECOND, member(2), SnapshotProgress::Received { last, stamp_ms: 0, configuration });
    std::iter::from_fn(|| raft.poll_output()).collect()
}

#[test]
fn a_damaged_log_votes_by_the_ordinary_rule() {
    for (last, expected) in [(id(1, 8), false), (id(1, 9), true), (id(2, 1), true)] {
        let mut raft = damaged();
        raft.handle_message(SECOND, member(1), vote(3, last));
        let (before, after) = outputs(&mut raft, SECOND);
        assert_eq!([granted(&before), granted(&after)].concat(), [expected], "{last}");
    }
}

#[test]
fn a_damaged_log_acknowledges_nothing_and_does_not_stand_for_election() {
    let mut raft = damaged();
    raft.handle_message(SECOND, member(1), append(1, id(1, 9), 9, 10..=12));
    let (before, after) = outputs(&mut raft, SECOND);
    assert_eq!((results(&before), results(&after)), (vec![AppendResult::Alive], vec![]));
    assert_eq!((raft.last(), raft.committed()), (id(1, 9), Index::ZERO), "nor is anything taken or applied");
    raft.handle_timeout(SECOND * 60);
    outputs(&mut raft, SECOND * 60);
    assert_eq!(raft.role(), Role::Follower);
}

#[test]
fn what_is_lost_is_asked_for_until_somebody_has_it_and_taken_only_if_it_can_be_it() {
    let mut raft = damaged();
    let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks");
    assert_eq!((asked.first, asked.next), (index(4), id(1, 7)));
    let wrong = [entries(1, 5..=6), entries(1, 4..=7), entries(2, 4..=6), Vec::new()];
    let mut now = SECOND;
    for entries in wrong {
        now += SECOND * 2;
        raft.handle_timeout(now);
        let token = question(&outputs(&mut raft, now).0).expect("it asks again").token;
        (1..3).for_each(|from| {
            assert!(answer(&mut raft, from, token, found(entries.clone())).is_empty(), "{entries:?}");
        });
    }
    now += SECOND * 2;
    raft.handle_timeout(now);
    let token = question(&outputs(&mut raft, now).0).expect("it asks again").token;
    assert!(answer(&mut raft, 1, token - 1, found(entries(1, 4..=6))).is_empty(), "an old answer");
    let repairs = (1..3).map(|from| answer(&mut raft, from, token, found(entries(1, 4..=5))));
    let repair: Vec<Entry> = repairs.flat_map(|repair| repair.to_vec()).collect();
    assert_eq!(repair, entries(1, 4..=5), "a part is taken too, once");
    raft.handle_repaired(now, &repair);
    let asked = question(&outputs(&mut raft, now).0).expect("it asks for the rest");
    assert_eq!(asked.first, index(6));
    assert!(raft.is_damaged());
    let repairs = (1..3).map(|from| answer(&mut raft, from, asked.token, found(entries(1, 6..=6))));
    let repair: Vec<Entry> = repairs.flat_map(|repair| repair.to_vec()).collect();
    raft.handle_repaired(now, &repair);
    assert!(!raft.is_damaged());
    raft.handle_message(now, member(1), append(1, id(1, 9), 0, 10..=12));
    assert_eq!(results(&outputs(&mut raft, now).1), [AppendResult::Durable(index(12))]);
}

/// Only the leader of this term knows for certain that what is lost need not be kept.
#[test]
fn a_disk_is_given_up_only_on_the_word_of_the_leader() {
    let mut raft = damaged();
    let mut now = SECOND;
    let mut is_given_up = |raft: &mut Raft, term: u64, result: FetchResult| {
        now += SECOND * 2;
        raft.handle_timeout(now);
        let Some(asked) = question(&outputs(raft, now).0) else { return false };
        let reply = FetchEntriesReply { term: Term::new(term), token: asked.token, result };
        raft.handle_message(now, member(2), Message::FetchEntriesReply(reply));
        std::iter::from_fn(|| raft.poll_output()).any(|output| matches!(output, Output::LogLost { .. }))
    };
    raft.handle_message(SECOND, member(2), heartbeat(2, id(1, 9), 0));
    assert!(!is_given_up(&mut raft, 2, FetchResult::Absent), "somebody else may have it");
    assert!(!is_given_up(&mut raft, 1, FetchResult::Needless), "it led once");
    assert!(is_given_up(&mut raft, 2, FetchResult::Needless));
    assert!(!is_given_up(&mut raft, 2, FetchResult::Needless), "once is enough");
}

/// A follower with entries 1 to 9 of term 1 and 10 to 20 of term 2 on its disk, whose core has 10 to 25 of term 3 in place
/// of the latter; and is asked for what is between entry 4 and entry 16 of term 3.
#[test]
fn what_the_disk_holds_is_compared_with_what_the_core_knows() {
    let read = |found: Vec<Entry>| {
        let boot = Boot {
            hard_state: HardState { term: Term::new(2), voted_for: None },
            terms: vec![id(1, 1), id(2, 10)],
            last: index(20),
            ..Boot::first(Configuration::new((0..3).map(member).collect()))
        };
        let mut raft = Raft::new(member(0), Options::default(), boot, Duration::ZERO);
        raft.handle_message(SECOND, member(1), append(3, id(1, 9), 0, 10..=25));
        let asked = FetchEntries { term: Term::new(3), token: 5, first: index(5), next: id(3, 16) };
        raft.handle_message(SECOND, member(2), Message::FetchEntries(asked));
        let asked = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
            Output::ReadLog(request) => Some(request),
            _ => None,
        });
        let asked = asked.expect("it is not in memory");
        assert_eq!((asked.from, asked.peer), (index(5), member(2)));
        let read = LogRead { peer: asked.peer, token: asked.token, result: LogReadResult::Entries(found.into()) };
        raft.handle_log_read(SECOND, read);
        let reply = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
            Output::Send { message: Message::FetchEntriesReply(reply), .. } => Some(reply.result),
            _ => None,
        });
        reply.expect("it answers")
    };
    let old = [entries(1, 5..=9), entries(2, 10..=20)].concat();
    assert_eq!(read(old), found(entries(1, 5..=9)), "the overwriting is not durable yet");
    let new = [entries(1, 5..=9), entries(3, 10..=20)].concat();
    assert_eq!(read(new), found([entries(1, 5..=9), entries(3, 10..=15)].concat()));
    assert_eq!(read(entries(2, 5..=9)), FetchResult::Damaged, "nothing of it is in this log");
}

/// Entries of a term before that of the entry before the loss would end the node, now and at each later start.
#[test]
fn what_cannot_follow_the_entry_before_the_loss_is_not_taken() {
    let mut raft = with_losses(3, vec![id(2, 1), id(3, 7)], 9, vec![lost(4, id(3, 7))]);
    let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks");
    assert!(answer(&mut raft, 1, asked.token, found(entries(1, 4..=6))).is_empty());
    let repair = answer(&mut raft, 1, asked.token, found(entries(3, 4..=4)));
    raft.handle_repaired(SECOND, &repair);
    let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks for the rest");
    assert!(answer(&mut raft, 1, asked.token, found(entries(2, 5..=6))).is_empty(), "nor after a part");
    let repair = answer(&mut raft, 2, asked.token, found(entries(3, 5..=6)));
    raft.handle_repaired(SECOND, &repair);
    assert!(!raft.is_damaged());
}

/// The leader's checkpoint is installed between the order to repair entries 4 and 5, and the report that it is done.
#[test]
fn a_checkpoint_may_come_while_a_repair_is_being_written() {
    for (upto, still_lost) in [(4, Some(6)), (5, Some(6)), (6, None), (8, None), (9, None)] {
        let mut raft = damaged();
        raft.handle_message(SECOND, member(2), heartbeat(2, id(1, 9), 0));
        let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks");
        let repair = answer(&mut raft, 1, asked.token, found(entries(1, 4..=5)));
        assert_eq!(repair.len(), 2);
        let done = install(&mut raft, id(1, upto));
        let at = |is: fn(&Output) -> bool| done.iter().position(is).expect("it is put out");
        let forget = at(|output| matches!(output, Output::ForgetPrefix(_)));
        assert!(forget < at(|output| matches!(output, Output::Restore { .. })));
        raft.handle_repaired(SECOND, &repair);
        assert_eq!((raft.is_damaged(), raft.committed()), (still_lost.is_some(), index(upto)));
        if let Some(first) = still_lost {
            let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks for the rest");
            assert_eq!((asked.first, asked.next), (index(first), id(1, 7)));
            let repair = answer(&mut raft, 1, asked.token, found(entries(1, first..=6)));
            raft.handle_repaired(SECOND, &repair);
        }
        raft.handle_message(SECOND, member(2), append(2, id(1, 9), 9, 10..=10));
        assert_eq!(results(&outputs(&mut raft, SECOND).1), [AppendResult::Durable(index(10))], "{upto}");
        raft.invariants();
    }
}

/// The same, with a checkpoint that contradicts the log: others have committed other entries than those that are being
/// repaired, or than those of a later term before the loss. None of it was ever committed.
#[test]
fn a_checkpoint_may_contradict_the_repair_that_is_being_written() {
    let cases = [(1, 1, (2, 4)), (1, 1, (2, 5)), (3, 3, (2, 4)), (3, 3, (2, 6)), (1, 3, (1, 4)), (1, 3, (1, 6))];
    for (before, repaired, (term, upto)) in cases {
        let mut raft = with_losses(
            4,
            if before == 1 { vec![id(1, 1), id(4, 7)] } else { vec![id(1, 1), id(before, 3), id(4, 7)] },
            9,
            vec![lost(4, id(4, 7))],
        );
        let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks");
        let repair = answer(&mut raft, 1, asked.token, found(entries(repaired, 4..=5)));
        assert_eq!(repair.len(), 2, "after term {before}");
        let done = install(&mut raft, id(term, upto));
        let is_reset = |output: &Output| matches!(output, Output::Write(write) if write.reset == Some(id(term, upto)));
        assert!(done.iter().any(is_reset), "nothing of that log is kept: {done:?}");
        raft.handle_repaired(SECOND, &repair);
        assert_eq!((raft.is_damaged(), raft.last(), raft.committed()), (false, id(term, upto), index(upto)));
        raft.invariants();
    }
}

/// What is written of another range says nothing of this one.
#[test]
fn a_repair_before_a_known_entry_is_not_what_comes_before_the_loss() {
    let mut raft =
        with_losses(4, vec![id(1, 1), id(3, 6), id(4, 13)], 15, vec![lost(4, id(3, 6)), lost(10, id(4, 13))]);
    let asked = question(&outputs(&mut raft, SECOND).0).expect("it asks");
    assert_eq!(answer(&mut raft, 1, asked.token, found(entries(1, 4..=5))).len(), 2);
    install(&mut raft, id(2, 11));
    assert_eq!(raft.last(), id(2, 11), "entry 9 is of term 3");
}

/// A large answer over a slow network takes longer than the one who asks waits before it asks the next.
#[test]
fn an_answer_may_come_late_and_from_anyone_who_was_asked() {
    let mut raft = damaged();
    let first = question(&outputs(&mut raft, SECOND).0).expect("it asks");
    raft.handle_timeout(SECOND * 10);
    let second = question(&outputs(&mut raft, SECOND * 10).0).expect("it asks again");
    assert_eq!(first, second);
    let repair = answer(&mut raft, 1, first.token, found(entries(1, 4..=5)));
    raft.handle_repaired(SECOND, &repair);
    let third = question(&outputs(&mut raft, SECOND * 10).0).expect("it asks for the rest");
    assert!(answer(&mut raft, 2, first.token, found(entries(1, 6..=6))).is_empty(), "of another question");
    assert_ne!(third.token, first.token);
}

/// Every node has lost something else. Nobody can stand for election, and all can help each other.
#[test]
fn a_cluster_heals_in_which_every_log_is_damaged() {
    let mut sim = Sim::new(3, 40);
    let leader = sim.elect();
    for number in 0..60 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 61));
    sim.lose(0, 5..10);
    sim.lose(1, [3, 12, 40]);
    sim.lose(2, 20..35);
    (0..3).for_each(|node| sim.start(node));
    assert!((0..3).all(|node| sim.raft(node).is_damaged()));
    sim.run_until("all are whole", SECOND * 30, |sim| (0..3).all(|node| !sim.has_lost(node)));
    assert_eq!((sim.repaired, sim.given_up), (5 + 3 + 15, 0));
    let leader = sim.elect();
    assert!(sim.propose(leader, "goes on"));
    sim.run_until("all converge", SECOND * 10, |sim| sim.nodes.iter().all(|node| node.applied.len() == 63));
}

/// NATS (Jepsen, 2025): a damaged log must not lead the others into forgetting what was acknowledged. Here the only whole
/// copy is on a node that is away: the two damaged ones wait for it, rather than go on without.
#[test]
fn what_only_an_absent_node_has_is_waited_for() {
    let mut sim = Sim::new(3, 41);
    let leader = sim.elect();
    for number in 0..20 {
        assert!(sim.propose(leader, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 21));
    sim.crash(0);
    sim.lose(1, [10]);
    sim.lose(2, [10]);
    (1..3).for_each(|node| sim.start(node));
    sim.pass(SECOND * 60);
    assert_eq!((sim.leader(), sim.given_up), (None, 0));
    sim.start(0);
    sim.run_until("all are whole", SECOND * 30, |sim| (0..3).all(|node| !sim.has_lost(node)));
    sim.run_until("all converge", SECOND * 30, |sim| sim.nodes.iter().all(|node| node.applied.len() == 22));
}

/// What is lost is covered by the leader's checkpoint, and in nobody's log any more.
#[test]
fn a_log_that_nobody_can_repair_takes_a_checkpoint() {
    for third_is_there in [true, false] {
        let mut sim = Sim::new(3, 42);
        let leader = sim.elect();
        for number in 0..60 {
            assert!(sim.propose(leader, &format!("command {number}")));
            sim.step();
        }
        sim.run_until("all is applied", SECOND * 5, |sim| sim.nodes.iter().all(|node| node.applied.len() == 61));
        let (away, third) = ((leader + 1) % 3, (leader + 2) % 3);
        sim.lose(away, 10..30);
        (0..3).filter(|node| *node != away).for_each(|node| sim.checkpoint(node));
        if !third_is_there {
            // Nothing can be committed before the damaged one is whole.
            sim.crash(third);
        }
        sim.start(away);
        sim.run_until("it is whole", SECOND * 60, |sim| !sim.has_lost(away));
        let leader = sim.elect();
        assert!(sim.propose(leader, "goes on"));
        let all = 62;
        sim.run_until("and converges", SECOND * 30, |sim| sim.nodes[away].applied.len() >= all);
        assert_eq!((sim.given_up, sim.repaired), (0, 0));
    }
}

/// A leader was cut off, and an entry of what it could not commit is lost: then nobody has what came before the rest of it.
/// It is known that it need not be kept only when the others are a majority without it.
#[test]
fn a_log_that_holds_what_was_never_committed_is_given_up() {
    let mut sim = Sim::new(3, 44);
    let old = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| sim.committed.len() == 1);
    let others = [(old + 1) % 3, (old + 2) % 3];
    sim.isolate(old);
    for number in 0..20 {
        assert!(sim.propose(old, &format!("never committed {number}")));
        sim.step();
    }
    sim.pass(SECOND * 5);
    let new = sim.leader().filter(|leader| *leader != old).expect("another one leads");
    sim.propose(new, "committed");
    sim.pass(SECOND);
    sim.lose(old, [10]);
    let third = others[usize::from(others[0] == new)];
    sim.crash(third);
    sim.heal_all();
    sim.start(old);
    sim.pass(SECOND * 30);
    assert_eq!(sim.given_up, 0, "with one that is down and one that has forgotten there would never be a leader");
    sim.start(third);
    sim.run_until("it begins again", SECOND * 30, |sim| sim.given_up == 1);
    let all = sim.committed.len();
    sim.run_until("and converges", SECOND * 30, |sim| sim.nodes[old].applied.len() >= all);
}

/// The repair of a range that spans terms and a change of membership gives back both.
#[test]
fn terms_and_configurations_are_known_again_after_a_repair() {
    let mut sim = Sim::with_spares(3, 1, 43);
    let first = sim.elect();
    sim.run_until("its term begins", SECOND * 5, |sim| !sim.committed.is_empty());
    let target = Configuration::new((0..3).map(member).collect()).with_learner(member(3));
    assert!(sim.change(first, &target));
    sim.crash(first);
    let second = sim.elect();
    sim.start(first);
    for number in 0..20 {
        assert!(sim.propose(second, &format!("command {number}")));
        sim.step();
    }
    sim.run_until("all is applied", SECOND * 5, |sim| (0..3).all(|node| sim.nodes[node].applied.len() > 20));
    sim.lose(first, 1..15);
    sim.start(first);
    sim.run_until("it is whole", SECOND * 30, |sim| !sim.has_lost(first));
    // The simulation compares the configuration in force with that of snapshot and log at each step.
    sim.pass(SECOND);
    sim.raft(first).invariants();
    sim.crash(second);
    sim.run_until("either leads", SECOND * 20, |sim| sim.leader().is_some_and(|leader| leader != second));
}
