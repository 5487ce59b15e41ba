//! The memory limit.

use super::*;
use crate::read_view::PAIR_OVERHEAD_BYTES;

const PAIR_BYTES: u64 = PAIR_OVERHEAD_BYTES + 2;

/// Three pairs of one byte each for key and value, and room for `room` bytes more.
fn limited(room: u64) -> Replica {
    let mut replica = Replica::new();
    for key in [b"a", b"b", b"c"] {
        replica.set(key, b"1");
    }
    assert_eq!(replica.store.memory_bytes(), 3 * PAIR_BYTES);
    let bytes = Some(replica.store.memory_bytes() + room);
    assert_eq!(replica.run(Op::SetMemoryLimit { bytes }), Outcome::Done);
    assert_eq!(replica.store.memory_limit_bytes(), bytes);
    replica
}

fn copy<'a>(from: &'a [u8], to: &'a [u8], remove_source: bool) -> Op<'a> {
    Op::Copy { from, to, if_absent: false, remove_source }
}

/// Each write where it just fits, and where it is a byte too large and must change nothing.
#[test]
fn a_write_that_grows_the_state_above_the_limit_is_refused() {
    let half = Decimal::parse(b"0.5").unwrap();
    for (op, grows) in [
        (put(b"d", b"1", Condition::Always), PAIR_BYTES),
        (put(b"a", b"123", Condition::Always), 2),
        (Op::Append { key: b"a", value: b"2345" }, 4),
        (Op::SetRange { key: b"a", offset: 5, value: b"x" }, 5),
        (Op::Increment { key: b"a", by: 9 }, 1),
        (Op::IncrementDecimal { key: b"a", by: half }, 2),
        (put_many(&[(b"d", b"1"), (b"e", b"22"), (b"d", b"333")], PutManyCondition::Always), 2 * PAIR_BYTES + 3),
        (put_many(&[(b"a", b"999999"), (b"a", b"22")], PutManyCondition::Always), 1),
        (copy(b"a", b"d", false), PAIR_BYTES),
        (copy(b"a", b"longer", true), 5),
    ] {
        let mut replica = limited(grows);
        assert!(!replica.run(op.clone()).is_failure(), "{op:?}");
        assert_eq!(replica.store.memory_bytes(), 3 * PAIR_BYTES + grows, "{op:?}");

        let mut replica = limited(grows - 1);
        let before = replica.store.digest();
        assert_eq!(replica.run(op.clone()), Outcome::OutOfMemory, "{op:?}");
        assert_eq!(replica.store.digest(), before, "{op:?}");
    }
}

/// With a limit below what is stored, deletes and writes that do not grow the state go on.
#[test]
fn what_does_not_grow_the_state_is_done_above_the_limit() {
    let set_deadline = |deadline| {
        let condition = DeadlineCondition::Always;
        Op::SetDeadline { key: b"a", deadline, condition, want_value: false }
    };
    for op in [
        put(b"a", b"2", Condition::Always),
        put(b"a", b"", Condition::Always),
        Op::SetRange { key: b"a", offset: 0, value: b"x" },
        Op::Append { key: b"a", value: b"" },
        Op::Increment { key: b"a", by: 1 },
        put_many(&[(b"a", b"9"), (b"b", b""), (b"c", b"22")], PutManyCondition::Always),
        put_many(&[], PutManyCondition::Always),
        copy(b"a", b"b", false),
        copy(b"a", b"z", true),
        set_deadline(Some(5000)),
        set_deadline(Some(0)),
        Op::Delete { keys: vec![b"a"] },
        Op::Take { key: b"a" },
        Op::DeleteRange { from: b"", to: None },
        Op::Clear,
    ] {
        let mut replica = limited(0);
        replica.run(Op::SetMemoryLimit { bytes: Some(1) });
        assert!(!replica.run(op.clone()).is_failure(), "{op:?}");
    }
    let mut replica = limited(0);
    assert_eq!(replica.put_until(b"new", b"gone at once", Deadline::At(1)), Outcome::Done);
    replica.run(Op::SetMemoryLimit { bytes: None });
    replica.set(b"d", &[0; 1000]);
}

/// What has expired counts until it is removed, and not when it is replaced.
#[test]
fn what_is_stored_counts() {
    let mut replica = limited(PAIR_BYTES);
    let keys: Vec<_> = (0..crate::EXPIRED_REMOVED_MAX as u8).map(|number| [b'x', number]).collect();
    replica.run(Op::SetMemoryLimit { bytes: None });
    keys.iter().for_each(|key| drop(replica.put_until(key, b"", Deadline::At(1500))));
    replica.put_until(b"k", b"1", Deadline::At(2000));
    replica.run(Op::SetMemoryLimit { bytes: Some(4 * PAIR_BYTES) });
    replica.clock_ms = 3000;
    assert_eq!(replica.put(b"d", b"1", Condition::Always), Outcome::OutOfMemory);
    // That entry removed the 64 before it, so the next one removes this one.
    assert_eq!(replica.put(b"d", b"1", Condition::Always), Outcome::Done);
}
