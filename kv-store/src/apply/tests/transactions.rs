//! Transactions: what they do, and that undoing one leaves nothing.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::op::{Compare, Failure, Relation, TRANSACTION_VALUE_BYTES_MAX, Target};

fn all<'a>(then: Vec<Op<'a>>, failure: Failure) -> Op<'a> {
    Op::Transaction { conditions: vec![], then, otherwise: vec![], failure }
}

fn is_value<'a>(key: &'a [u8], value: &'a [u8]) -> Compare<'a> {
    Compare { key, target: Target::Value(value), relation: Relation::Equal }
}

fn done(held: bool, outcomes: Vec<Outcome>) -> Outcome {
    Outcome::Transaction { held, outcomes }
}

#[test]
fn conditions_choose_the_branch() {
    let mut replica = Replica::new();
    replica.set(b"a", b"1");
    let run = |replica: &mut Replica, conditions| {
        let then = vec![Op::Append { key: b"yes", value: b"x" }];
        let otherwise = vec![Op::Append { key: b"no", value: b"x" }, Op::Get { key: b"b" }];
        replica.run(Op::Transaction { conditions, then, otherwise, failure: Failure::Undo })
    };
    let length = Outcome::Length;
    assert_eq!(run(&mut replica, vec![]), done(true, vec![length(1)]));
    assert_eq!(run(&mut replica, vec![is_value(b"a", b"1")]), done(true, vec![length(2)]));
    let two = vec![is_value(b"a", b"1"), is_value(b"b", b"1")];
    assert_eq!(run(&mut replica, two), done(false, vec![length(1), Outcome::Value(None)]));
}

/// Each op sees what those before it did; the conditions see the state before all of them.
#[test]
fn ops_see_each_other_and_are_numbered_through() {
    let mut replica = Replica::new();
    let outcome = replica.run(Op::Transaction {
        conditions: vec![Compare { key: b"a", target: Target::Present, relation: Relation::NotEqual }],
        then: vec![
            put_many(&[(b"a", b"1"), (b"b", b"2")], PutManyCondition::Always),
            Op::Increment { key: b"a", by: 4 },
            Op::Delete { keys: vec![b"b", b"absent"] },
            Op::Copy { from: b"a", to: b"c", if_absent: true, remove_source: false },
            Op::Clear,
            put(b"d", b"1", Condition::IfPresent),
            put(b"d", b"1", Condition::Always),
        ],
        otherwise: vec![],
        failure: Failure::Undo,
    });
    let (count, integer) = (Outcome::Count(1), Outcome::Integer(5));
    let (not_done, ok) = (Outcome::NotDone, || Outcome::Done);
    assert_eq!(outcome, done(true, vec![ok(), integer, count, ok(), ok(), not_done, ok()]));
    // Two puts, the increment, one key removed, the copy, the clear.
    assert_eq!(replica.written(b"d"), (1, 6, 1));
}

#[test]
fn an_op_that_cannot_be_done_undoes_all_or_stands_among_the_others() {
    let mut replica = Replica::new();
    replica.set(b"a", b"text");
    let ops = || vec![put(b"b", b"1", Condition::Always), Op::Increment { key: b"a", by: 1 }, Op::Take { key: b"a" }];
    let before = replica.store.digest();
    let failed = Outcome::Failed { op: 1, outcome: Box::new(Outcome::NotAnInteger) };
    assert_eq!(replica.run(all(ops(), Failure::Undo)), failed);
    assert_eq!(replica.store.digest(), before);
    let outcomes = vec![Outcome::Done, Outcome::NotAnInteger, previous(Some(b"text"), true)];
    assert_eq!(replica.run(all(ops(), Failure::GoOn)), done(true, outcomes));
    assert_eq!(replica.keys(), [b"b"]);
}

#[test]
fn every_failure_undoes() {
    let mut replica = Replica::new();
    replica.set(b"text", b"text");
    replica.set(b"max", MAX);
    replica.run(Op::SetMemoryLimit { bytes: Some(replica.store.memory_bytes() + 200) });
    let before = replica.store.digest();
    let by = Decimal::default();
    for (op, outcome) in [
        (Op::Increment { key: b"text", by: 1 }, Outcome::NotAnInteger),
        (Op::Increment { key: b"max", by: 1 }, Outcome::Overflow),
        (Op::IncrementDecimal { key: b"text", by }, Outcome::NotANumber),
        (Op::SetRange { key: b"text", offset: u64::MAX, value: b"x" }, Outcome::TooLarge),
        (Op::Copy { from: b"none", to: b"x", if_absent: false, remove_source: false }, Outcome::NoSource),
        (put(b"large", &[0; 300], Condition::Always), Outcome::OutOfMemory),
    ] {
        let outcome = Outcome::Failed { op: 2, outcome: Box::new(outcome) };
        let ops = vec![Op::Delete { keys: vec![b"none"] }, put(b"new", b"", Condition::Always), op];
        assert_eq!(replica.run(all(ops, Failure::Undo)), outcome);
        assert_eq!(replica.store.digest(), before);
    }
}

#[test]
fn outcomes_have_a_limit_whatever_the_failure() {
    let mut replica = Replica::new();
    replica.set(b"k", &vec![0; VALUE_BYTES_MAX]);
    let before = replica.store.digest();
    let get = Op::Get { key: b"k" };
    for failure in [Failure::Undo, Failure::GoOn] {
        let two = vec![put(b"a", b"", Condition::Always), get.clone(), get.clone()];
        assert_eq!(replica.run(all(two, failure)), Outcome::TooLarge);
        assert_eq!(replica.store.digest(), before);
        let outcome = replica.run(all(vec![get.clone()], failure));
        assert!(!outcome.is_failure() && outcome.encoded_bytes() <= OUTCOME_BYTES_MAX);
    }
}

/// Short ops that write much each are bounded together.
#[test]
fn bytes_written_have_a_limit_whatever_the_failure() {
    let mut replica = Replica::new();
    replica.set(b"k", &vec![0; VALUE_BYTES_MAX - 100]);
    let before = replica.store.digest();
    let appends = |count| vec![Op::Append { key: b"k", value: b"x" }; count];
    let count = TRANSACTION_VALUE_BYTES_MAX / VALUE_BYTES_MAX;
    assert_eq!(replica.run(all(appends(count + 1), Failure::GoOn)), Outcome::TooLarge);
    assert_eq!(replica.store.digest(), before);
    assert!(!replica.run(all(appends(count), Failure::GoOn)).is_failure());
}

/// What is undone is everything but the clock and what has expired.
#[test]
fn undoing_leaves_the_clock_and_what_has_expired_removed() {
    let mut replica = Replica::new();
    replica.put_until(b"k", b"v", Deadline::At(1500));
    replica.clock_ms = 2000;
    let fails = Op::Copy { from: b"none", to: b"x", if_absent: false, remove_source: false };
    assert!(replica.run(all(vec![fails], Failure::Undo)).is_failure());
    assert_eq!((replica.store.clock_ms(), replica.store.len()), (2000, 0));
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    (0u8..40).prop_map(|number| vec![b'k', number])
}

proptest! {
    /// Hash, deadlines and memory are what they were, down to the order in which pairs then expire.
    #[test]
    fn an_undone_transaction_leaves_no_trace(
        stored in vec((key(), 1100u64..1400), 0..60),
        steps in vec((key(), key(), 0u8..9, 900u64..1500), 0..40),
    ) {
        let mut replica = Replica::new();
        stored.iter().for_each(|(key, deadline_ms)| drop(replica.put_until(key, b"5", Deadline::At(*deadline_ms))));
        let mut twin = Store::of_state(replica.store.view());
        let mut ops: Vec<_> = steps.iter().map(|(a, b, choice, deadline_ms)| match choice {
            0 => Op::Put { key: a, value: b, condition: Condition::Always, deadline: Deadline::At(*deadline_ms), want_previous: true },
            1 => Op::Delete { keys: vec![a, b] },
            2 => Op::DeleteRange { from: a, to: Some(b) },
            3 => Op::SetDeadline { key: a, deadline: Some(*deadline_ms), condition: DeadlineCondition::Always, want_value: false },
            4 => Op::SetDeadline { key: a, deadline: None, condition: DeadlineCondition::Always, want_value: false },
            5 => put_many(&[(a, b), (b, a)], PutManyCondition::Always),
            6 => Op::Append { key: a, value: b },
            7 => Op::Take { key: a },
            _ => Op::Clear,
        }).collect();
        ops.push(Op::Copy { from: b"none", to: b"x", if_absent: false, remove_source: false });
        let number = ops.len() as u32 - 1;
        let outcome = Outcome::Failed { op: number, outcome: Box::new(Outcome::NoSource) };
        prop_assert_eq!(replica.run(all(ops, Failure::Undo)), outcome);
        twin.advance_clock(replica.clock_ms);
        for stamp_ms in (1000..1500).step_by(50) {
            prop_assert_eq!(replica.store.advance_clock(stamp_ms), twin.advance_clock(stamp_ms));
            prop_assert_eq!(replica.store.digest(), twin.digest());
            prop_assert_eq!(replica.store.memory_bytes(), twin.memory_bytes());
            prop_assert_eq!(replica.store.next_deadline_ms(), twin.next_deadline_ms());
            replica.store.invariants();
        }
    }
}
