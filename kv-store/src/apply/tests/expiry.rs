//! Deadlines and the replicated clock.

use super::*;
use crate::store::EXPIRED_REMOVED_MAX;

#[test]
fn the_clock_never_goes_back() {
    let mut store = Store::new([1; 32]);
    store.advance_clock(500);
    store.advance_clock(300);
    assert_eq!(store.clock_ms(), 500);
    store.apply(Index::new(1), 400, &Op::Clear.encode().unwrap());
    assert_eq!(store.clock_ms(), 500);
    store.apply(Index::new(2), 501, &Op::Clear.encode().unwrap());
    assert_eq!(store.clock_ms(), 501);
}

#[test]
fn a_pair_is_absent_from_its_deadline_on() {
    let pair = Pair { value: Bytes::new(), version: Version::default(), created: Index::ZERO, deadline_ms: Some(2000) };
    assert_eq!([1999, 2000, 2001].map(|clock_ms| pair.is_expired(clock_ms)), [false, true, true]);

    let mut replica = Replica::new();
    assert_eq!(replica.put_until(b"k", b"v", Deadline::At(2000)), Outcome::Done);
    assert_eq!(replica.store.next_deadline_ms(), Some(2000));
    replica.store.advance_clock(1999);
    assert_eq!(replica.value(b"k"), Some(&b"v"[..]));
    assert_eq!(replica.store.advance_clock(2000), 1);
    assert_eq!(replica.value(b"k"), None);
    assert!(replica.store.is_empty());
    assert_eq!(replica.store.next_deadline_ms(), None);
}

/// More pairs expire at once than an entry removes: they are all absent at once, and go in order.
#[test]
fn expired_pairs_are_absent_before_they_are_removed() {
    let mut replica = Replica::new();
    let total = 2 * EXPIRED_REMOVED_MAX + 10;
    for number in (0..total as u64).rev() {
        // Two and two have one deadline; the keys fall as the deadlines rise.
        let key = (u64::MAX - number).to_be_bytes();
        replica.put_until(&key, b"v", Deadline::At(2000 + number / 2));
    }
    replica.set(b"z", b"stays");
    let before = replica.store.view();
    replica.clock_ms = 9000;
    replica.run(Op::Get { key: b"z" });

    let left = total - EXPIRED_REMOVED_MAX;
    assert_eq!(replica.store.len() as usize, left + 1, "what is stored");
    assert_eq!(replica.store.stored().count(), left + 1);
    assert_eq!(replica.store.range_digest(b"", None).count as usize, left + 1);
    assert_eq!(replica.keys(), [b"z"], "what is there");
    assert_eq!(replica.store.iter().rev().count(), 1);
    assert_eq!(replica.store.next_deadline_ms(), Some(2000 + EXPIRED_REMOVED_MAX as u64 / 2));
    // Of one deadline, the lesser key goes first: the greater number.
    let first = (u64::MAX - EXPIRED_REMOVED_MAX as u64 - 1).to_be_bytes();
    assert!(replica.store.tree.get(&first).is_some());
    assert_eq!(replica.store.get(&first), None);
    assert_eq!(before.iter().count(), total + 1, "a view has the clock of its moment");

    assert_eq!(replica.store.advance_clock(0), EXPIRED_REMOVED_MAX);
    assert_eq!(replica.store.advance_clock(0), 10);
    assert_eq!(replica.store.advance_clock(0), 0);
    assert_eq!(replica.store.len(), 1);
    replica.store.invariants();
}

#[test]
fn removal_is_in_order_of_deadline_and_key() {
    let mut replica = Replica::new();
    for number in 0..EXPIRED_REMOVED_MAX as u8 - 1 {
        replica.put_until(&[b'x', number], b"", Deadline::At(1500));
    }
    for key in [&b"c"[..], b"a", b"b"] {
        replica.put_until(key, b"", Deadline::At(2000));
    }
    assert_eq!(replica.store.advance_clock(2000), EXPIRED_REMOVED_MAX);
    let stored: Vec<_> = replica.store.stored().map(|(key, _)| key).collect();
    assert_eq!(stored, [b"b", b"c"]);
}

/// An expired pair that is still stored is nothing to every op.
#[test]
fn an_expired_pair_is_absent_to_every_op() {
    let expired = || {
        let mut replica = Replica::new();
        // So many expire before it that it stays stored while the op runs.
        for number in 0..EXPIRED_REMOVED_MAX as u64 {
            replica.put_until(&number.to_be_bytes(), b"", Deadline::At(1500));
        }
        replica.put_until(b"k", b"7", Deadline::At(2000));
        replica.clock_ms = 3000;
        replica
    };
    let set_deadline = |condition, want_value| Op::SetDeadline { key: b"k", deadline: None, condition, want_value };
    let (number, always) = (Decimal::parse(b"0.5").unwrap(), DeadlineCondition::Always);
    let free = PutManyCondition::IfNonePresent;
    for (op, outcome) in [
        (put(b"k", b"v", Condition::IfPresent), Outcome::NotDone),
        (put(b"k", b"v", Condition::IfAbsent), Outcome::Done),
        (put(b"k", b"v", Condition::IfValue(b"7")), Outcome::NotDone),
        (put(b"k", b"v", Condition::IfVersion(Version::default())), Outcome::Done),
        (put_many(&[(b"k", b"v")], free), Outcome::Done),
        (Op::Delete { keys: vec![b"k"] }, Outcome::Count(0)),
        (Op::Take { key: b"k" }, previous(None, false)),
        (Op::DeleteRange { from: b"k", to: None }, Outcome::Count(0)),
        (Op::Increment { key: b"k", by: 1 }, Outcome::Integer(1)),
        (Op::IncrementDecimal { key: b"k", by: number }, Outcome::Decimal(number)),
        (Op::Append { key: b"k", value: b"v" }, Outcome::Length(1)),
        (Op::SetRange { key: b"k", offset: 0, value: b"" }, Outcome::Length(0)),
        (Op::SetRange { key: b"k", offset: 1, value: b"v" }, Outcome::Length(2)),
        (set_deadline(always, false), Outcome::NotDone),
        (set_deadline(always, true), previous(None, false)),
        (Op::Copy { from: b"k", to: b"l", if_absent: false, remove_source: true }, Outcome::NoSource),
        (Op::Get { key: b"k" }, Outcome::Value(None)),
        (Op::Scan { from: b"", to: None, limit: 9 }, Outcome::Pairs(vec![])),
    ] {
        let mut replica = expired();
        let is_write =
            matches!(outcome, Outcome::Done | Outcome::Integer(_) | Outcome::Decimal(_) | Outcome::Length(1..));
        assert_eq!(replica.run(op.clone()), outcome, "{op:?}");
        if is_write {
            assert_eq!(replica.written(b"k").2, replica.index, "{op:?} makes the key anew");
            assert_eq!(replica.deadline(b"k"), None, "{op:?} does not take over the deadline");
        }
    }
    let mut replica = expired();
    replica.put_until(b"k", b"v", Deadline::Keep);
    assert_eq!(replica.deadline(b"k"), None);
    replica.run(Op::Copy { from: b"k", to: b"l", if_absent: false, remove_source: false });
    assert_eq!(replica.keys(), [b"k", b"l"]);
}

#[test]
fn a_deadline_that_has_passed_means_written_and_gone() {
    let mut replica = Replica::new();
    for deadline_ms in [0, 999, 1000] {
        replica.set(b"k", b"v");
        assert_eq!(replica.put_until(b"k", b"w", Deadline::At(deadline_ms)), Outcome::Done);
        assert!(replica.store.is_empty());
        replica.set(b"k", b"v");
        let (deadline, condition) = (Some(deadline_ms), DeadlineCondition::Always);
        let op = Op::SetDeadline { key: b"k", deadline, condition, want_value: true };
        assert_eq!(replica.run(op), previous(Some(b"v"), true));
        assert!(replica.store.is_empty());
    }
    assert_eq!(replica.put_until(b"k", b"w", Deadline::At(1001)), Outcome::Done);
    assert_eq!(replica.store.len(), 1);
}

/// Which ops keep the deadline of a key, and which take it away.
#[test]
fn what_becomes_of_the_deadline() {
    let keep = Some(5000);
    for (op, deadline) in [
        (put(b"k", b"v", Condition::Always), None),
        (put_many(&[(b"k", b"v")], PutManyCondition::Always), None),
        (Op::Increment { key: b"k", by: 1 }, keep),
        (Op::IncrementDecimal { key: b"k", by: Decimal::default() }, keep),
        (Op::Append { key: b"k", value: b"1" }, keep),
        (Op::SetRange { key: b"k", offset: 0, value: b"1" }, keep),
        (Op::SetRange { key: b"k", offset: 0, value: b"" }, keep),
        (Op::Copy { from: b"forever", to: b"k", if_absent: false, remove_source: true }, None),
    ] {
        let mut replica = Replica::new();
        replica.set(b"forever", b"1");
        replica.put_until(b"k", b"7", Deadline::At(5000));
        replica.run(op.clone());
        assert_eq!(replica.deadline(b"k"), deadline, "{op:?}");
        assert_eq!(replica.store.next_deadline_ms(), deadline, "{op:?}");
    }
    let mut replica = Replica::new();
    replica.put_until(b"k", b"v", Deadline::At(5000));
    replica.put_until(b"k", b"v", Deadline::Keep);
    assert_eq!(replica.deadline(b"k"), keep);
    replica.put_until(b"k", b"v", Deadline::At(6000));
    assert_eq!(replica.deadline(b"k"), Some(6000));
}

#[test]
fn a_deadline_is_set_changed_and_taken_away() {
    let mut replica = Replica::new();
    let set = |deadline, condition, want_value| Op::SetDeadline { key: b"k", deadline, condition, want_value };
    assert_eq!(replica.run(set(Some(5000), DeadlineCondition::Always, false)), Outcome::NotDone);
    replica.set(b"k", b"v");
    assert_eq!(replica.run(set(Some(5000), DeadlineCondition::IfAny, false)), Outcome::NotDone);
    assert_eq!(replica.run(set(None, DeadlineCondition::IfAny, false)), Outcome::NotDone);
    assert_eq!(replica.run(set(Some(5000), DeadlineCondition::IfNone, false)), Outcome::Done);
    assert_eq!(replica.written(b"k"), (5, 0, 2), "a write, of the pair that was there");
    assert_eq!(replica.run(set(Some(4000), DeadlineCondition::IfLater, true)), previous(Some(b"v"), false));
    assert_eq!(replica.run(set(Some(4000), DeadlineCondition::IfEarlier, true)), previous(Some(b"v"), true));
    assert_eq!(replica.deadline(b"k"), Some(4000));
    assert_eq!(replica.run(set(None, DeadlineCondition::IfAny, false)), Outcome::Done);
    assert_eq!(replica.deadline(b"k"), None);
}

/// Replicas that see other clock entries between the commands hold other pairs, until they have seen the same entries;
/// what clients are answered is the same.
#[test]
fn when_expired_pairs_are_removed_shows_in_no_outcome() {
    let (mut a, mut b) = (Replica::new(), Replica::new());
    for number in 0..300u64 {
        let deadline = Deadline::At(2000 + number % 7);
        a.put_until(&number.to_be_bytes(), b"v", deadline);
        b.put_until(&number.to_be_bytes(), b"v", deadline);
    }
    (a.clock_ms, b.clock_ms) = (2003, 2003);
    while b.store.advance_clock(2003) > 0 {}
    assert_ne!(a.store.len(), b.store.len());
    for number in 0..300u64 {
        let key = number.to_be_bytes();
        let op = if number % 2 == 0 { Op::Take { key: &key } } else { Op::Increment { key: &key, by: 1 } };
        assert_eq!(a.run(op.clone()), b.run(op));
    }
}
