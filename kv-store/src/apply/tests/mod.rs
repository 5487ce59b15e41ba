mod expiry;
mod memory;
mod transactions;

use bytes::Bytes;

use super::*;
use crate::decimal::Decimal;
use crate::op::{
    Condition, DELETE_RANGE_MAX, Deadline, DeadlineCondition, OUTCOME_BYTES_MAX, PutManyCondition, SCAN_PAIRS_MAX,
    VALUE_BYTES_MAX,
};

const MAX: &[u8] = b"9223372036854775807";

/// A store that numbers its commands, and a clock for it.
struct Replica {
    store: Store,
    index: u64,
    clock_ms: u64,
}

impl Replica {
    fn new() -> Self {
        let mut store = Store::new([1; 32]);
        store.advance_clock(1000);
        Replica { store, index: 0, clock_ms: 1000 }
    }

    fn run(&mut self, op: Op<'_>) -> Outcome {
        self.run_bytes(&op.encode().unwrap())
    }

    fn run_bytes(&mut self, command: &[u8]) -> Outcome {
        self.index += 1;
        let outcome = self.store.apply(Index::new(self.index), self.clock_ms, command);
        if self.store.len() < 1000 {
            self.store.invariants();
        }
        outcome
    }

    fn put(&mut self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Outcome {
        self.run(put(key, value, condition))
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        assert_eq!(self.put(key, value, Condition::Always), Outcome::Done);
    }

    fn put_get(&mut self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Outcome {
        self.run(Op::Put { key, value, condition, deadline: Deadline::None, want_previous: true })
    }

    fn put_until(&mut self, key: &[u8], value: &[u8], deadline: Deadline) -> Outcome {
        self.run(Op::Put { key, value, condition: Condition::Always, deadline, want_previous: false })
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key).map(|pair| pair.value)
    }

    fn deadline(&self, key: &[u8]) -> Option<u64> {
        self.store.get(key).unwrap().deadline_ms
    }

    fn keys(&self) -> Vec<&[u8]> {
        self.store.iter().map(|(key, _)| key).collect()
    }

    /// Version and creation index.
    fn written(&self, key: &[u8]) -> (u64, u32, u64) {
        let pair = self.store.get(key).unwrap();
        (pair.version.index.get(), pair.version.op, pair.created.get())
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8], condition: Condition<'a>) -> Op<'a> {
    Op::Put { key, value, condition, deadline: Deadline::None, want_previous: false }
}

fn put_many<'a>(pairs: &[(&'a [u8], &'a [u8])], condition: PutManyCondition) -> Op<'a> {
    Op::PutMany { pairs: pairs.to_vec(), condition }
}

fn previous(value: Option<&'static [u8]>, done: bool) -> Outcome {
    Outcome::Previous { value: value.map(Bytes::from_static), done }
}

#[test]
fn a_put_obeys_its_condition() {
    let mut replica = Replica::new();
    assert_eq!(replica.put(b"k", b"1", Condition::IfPresent), Outcome::NotDone);
    assert_eq!(replica.value(b"k"), None);
    assert_eq!(replica.put(b"k", b"2", Condition::IfAbsent), Outcome::Done);
    assert_eq!(replica.put(b"k", b"3", Condition::IfAbsent), Outcome::NotDone);
    assert_eq!(replica.value(b"k"), Some(&b"2"[..]));
    assert_eq!(replica.put(b"k", b"4", Condition::IfValue(b"1")), Outcome::NotDone);
    assert_eq!(replica.put(b"k", b"4", Condition::IfValue(b"2")), Outcome::Done);
    let version = replica.store.get(b"k").unwrap().version;
    assert_eq!(replica.put(b"k", b"5", Condition::IfVersion(version)), Outcome::Done);
    assert_eq!(replica.put(b"k", b"6", Condition::IfVersion(version)), Outcome::NotDone);
    assert_eq!(replica.value(b"k"), Some(&b"5"[..]));
    assert_eq!(replica.written(b"k"), (6, 0, 2));
}

#[test]
fn a_put_answers_with_the_value_before() {
    let mut replica = Replica::new();
    assert_eq!(replica.put_get(b"k", b"1", Condition::IfPresent), previous(None, false));
    assert_eq!(replica.put_get(b"k", b"2", Condition::IfAbsent), previous(None, true));
    assert_eq!(replica.put_get(b"k", b"3", Condition::IfAbsent), previous(Some(b"2"), false));
    assert_eq!(replica.put_get(b"k", b"4", Condition::Always), previous(Some(b"2"), true));
}

#[test]
fn a_key_made_again_has_a_new_creation_index() {
    let mut replica = Replica::new();
    replica.set(b"k", b"1");
    replica.run(Op::Delete { keys: vec![b"k"] });
    replica.set(b"k", b"1");
    assert_eq!(replica.written(b"k"), (3, 0, 3));
}

#[test]
fn a_delete_counts_what_was_there() {
    let mut replica = Replica::new();
    replica.set(b"a", b"");
    replica.set(b"b", b"");
    assert_eq!(replica.run(Op::Delete { keys: vec![b"a", b"absent", b"a", b"b"] }), Outcome::Count(2));
    assert_eq!(replica.run(Op::Delete { keys: vec![] }), Outcome::Count(0));
    assert!(replica.store.is_empty());
}

#[test]
fn a_take_answers_what_it_removes() {
    let mut replica = Replica::new();
    replica.set(b"k", b"v");
    assert_eq!(replica.run(Op::Take { key: b"k" }), previous(Some(b"v"), true));
    assert_eq!(replica.run(Op::Take { key: b"k" }), previous(None, false));
    assert!(replica.store.is_empty());
}

#[test]
fn a_range_is_removed_whole() {
    let mut replica = Replica::new();
    for number in 0..100u8 {
        replica.set(&[number], b"v");
    }
    assert_eq!(replica.run(Op::DeleteRange { from: &[10], to: Some(&[90]) }), Outcome::Count(80));
    assert_eq!(replica.run(Op::DeleteRange { from: &[10], to: Some(&[90]) }), Outcome::Count(0));
    assert_eq!(replica.run(Op::DeleteRange { from: &[95], to: Some(&[90]) }), Outcome::Count(0));
    assert_eq!(replica.run(Op::DeleteRange { from: &[95], to: None }), Outcome::Count(5));
    assert_eq!(replica.run(Op::DeleteRange { from: b"", to: None }), Outcome::Count(15));
    assert!(replica.store.is_empty());
}

/// The entry of a full range delete: nothing is done of what is above the limit, and the range can be cut by rank.
#[test]
fn a_range_above_the_limit_is_not_begun() {
    let mut store = Store::new([1; 32]);
    let mut entry = Applying::new(&mut store, Index::new(1));
    for number in 0..100u8 {
        entry.write(&[number], Draft::over(None, &b""[..]));
    }
    entry.ranged_pairs = DELETE_RANGE_MAX - 60;
    assert_eq!(entry.delete_range(b"", None), Outcome::TooLarge);
    assert_eq!(entry.store.len(), 100);
    let to = entry.store.nth(60).unwrap().0.to_vec();
    assert_eq!(entry.delete_range(b"", Some(&to)), Outcome::Count(60));
    assert_eq!(entry.delete_range(b"", Some(&[61])), Outcome::TooLarge);
    assert_eq!(entry.store.len(), 40);
}

#[test]
fn an_increment_keeps_to_the_range() {
    let mut replica = Replica::new();
    assert_eq!(replica.run(Op::Increment { key: b"n", by: -5 }), Outcome::Integer(-5));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 7 }), Outcome::Integer(2));
    assert_eq!(replica.value(b"n"), Some(&b"2"[..]));
    assert_eq!(replica.written(b"n"), (2, 0, 1));

    replica.set(b"n", MAX);
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 1 }), Outcome::Overflow);
    assert_eq!(replica.value(b"n"), Some(MAX));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: i64::MIN }), Outcome::Integer(-1));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: i64::MIN }), Outcome::Overflow);
    replica.set(b"n", b"1 ");
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 1 }), Outcome::NotAnInteger);
    assert_eq!(replica.value(b"n"), Some(&b"1 "[..]));
}

#[test]
fn a_decimal_increment_is_exact() {
    let mut replica = Replica::new();
    let by = |text: &str| Op::IncrementDecimal { key: b"n", by: Decimal::parse(text.as_bytes()).unwrap() };
    let is = |text: &str| Outcome::Decimal(Decimal::parse(text.as_bytes()).unwrap());
    assert_eq!(replica.run(by("0.1")), is("0.1"));
    assert_eq!(replica.run(by("0.2")), is("0.3"));
    assert_eq!(replica.value(b"n"), Some(&b"0.3"[..]));
    replica.set(b"n", b"5.0e3");
    assert_eq!(replica.run(by("200")), is("5200"));
    assert_eq!(replica.value(b"n"), Some(&b"5200"[..]));
    assert_eq!(replica.run(by("-5200")), is("0"));
    replica.set(b"n", b"1e-31");
    assert_eq!(replica.run(by("1")), Outcome::Overflow);
    replica.set(b"n", b"1e30");
    assert_eq!(replica.run(by("1e-30")), Outcome::Overflow);
    replica.set(b"n", b"nan");
    assert_eq!(replica.run(by("1")), Outcome::NotANumber);
    assert_eq!(replica.value(b"n"), Some(&b"nan"[..]));
}

#[test]
fn an_append_answers_with_the_length_and_keeps_the_limit() {
    let mut replica = Replica::new();
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"ab" }), Outcome::Length(2));
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"cd" }), Outcome::Length(4));
    assert_eq!(replica.value(b"k"), Some(&b"abcd"[..]));
    assert_eq!(replica.written(b"k"), (2, 0, 1));
    assert_eq!(replica.run(Op::Append { key: b"empty", value: b"" }), Outcome::Length(0));
    assert_eq!(replica.value(b"empty"), Some(&b""[..]));

    replica.set(b"k", &vec![0; VALUE_BYTES_MAX - 1]);
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"xy" }), Outcome::TooLarge);
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"x" }), Outcome::Length(VALUE_BYTES_MAX as u64));
}

#[test]
fn a_part_is_written_over_what_is_there() {
    let mut replica = Replica::new();
    let set_range = |offset, value| Op::SetRange { key: b"k", offset, value };
    assert_eq!(replica.run(set_range(9, b"")), Outcome::Length(0));
    assert_eq!(replica.value(b"k"), None, "an empty part makes no key");
    assert_eq!(replica.run(set_range(2, b"ab")), Outcome::Length(4));
    assert_eq!(replica.value(b"k"), Some(&b"\0\0ab"[..]));
    assert_eq!(replica.run(set_range(1, b"xy")), Outcome::Length(4));
    assert_eq!(replica.run(set_range(4, b"z")), Outcome::Length(5));
    assert_eq!(replica.value(b"k"), Some(&b"\0xybz"[..]));
    assert_eq!(replica.written(b"k"), (4, 0, 2));

    assert_eq!(replica.run(set_range(u64::MAX, b"")), Outcome::Length(5), "nothing is too far for nothing");
    assert_eq!(replica.written(b"k"), (4, 0, 2));
    assert_eq!(replica.run(set_range(u64::MAX, b"z")), Outcome::TooLarge);
    assert_eq!(replica.run(set_range(VALUE_BYTES_MAX as u64, b"z")), Outcome::TooLarge);
    assert_eq!(replica.run(set_range(VALUE_BYTES_MAX as u64 - 1, b"z")), Outcome::Length(VALUE_BYTES_MAX as u64));
}

#[test]
fn of_many_puts_the_later_wins_and_each_has_its_number() {
    let mut replica = Replica::new();
    let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")];
    assert_eq!(replica.run(put_many(&pairs, PutManyCondition::Always)), Outcome::Done);
    assert_eq!(replica.value(b"a"), Some(&b"3"[..]));
    assert_eq!(replica.written(b"a"), (1, 2, 1));
    assert_eq!(replica.written(b"b"), (1, 1, 1));
}

#[test]
fn many_puts_can_want_none_present() {
    let mut replica = Replica::new();
    replica.set(b"b", b"1");
    let pairs: [(&[u8], &[u8]); 2] = [(b"a", b"2"), (b"b", b"2")];
    assert_eq!(replica.run(put_many(&pairs, PutManyCondition::IfNonePresent)), Outcome::NotDone);
    assert_eq!(replica.keys(), [b"b"]);
    replica.run(Op::Delete { keys: vec![b"b"] });
    assert_eq!(replica.run(put_many(&pairs, PutManyCondition::IfNonePresent)), Outcome::Done);
    assert_eq!(replica.keys(), [b"a", b"b"]);
}

/// Every row of the table in `copy.rs`, for all combinations of its columns.
#[test]
fn every_copy() {
    for case in 0..32 {
        let [has_source, is_same, has_target, if_absent, remove_source] = [1, 2, 4, 8, 16].map(|bit| case & bit != 0);
        let mut replica = Replica::new();
        if has_source {
            replica.put_until(b"a", b"source", Deadline::At(5000));
        }
        if has_target {
            replica.set(b"b", b"target");
        }
        let to: &[u8] = if is_same { b"a" } else { b"b" };
        let before = replica.store.digest();
        let outcome = replica.run(Op::Copy { from: b"a", to, if_absent, remove_source });
        let is_target_present = if is_same { has_source } else { has_target };
        let expected = match (has_source, if_absent && is_target_present) {
            (false, _) => Outcome::NoSource,
            (true, true) => Outcome::NotDone,
            (true, false) => Outcome::Done,
        };
        assert_eq!(outcome, expected, "case {case}");
        if outcome != Outcome::Done || is_same {
            assert_eq!(replica.store.digest(), before, "case {case}");
            continue;
        }
        assert_eq!(replica.value(b"b"), Some(&b"source"[..]), "case {case}");
        assert_eq!(replica.deadline(b"b"), Some(5000), "case {case}");
        assert_eq!(replica.value(b"a").is_some(), !remove_source, "case {case}");
        let created = if has_target { 2 } else { replica.index };
        assert_eq!(replica.written(b"b"), (replica.index, u32::from(remove_source), created), "case {case}");
    }
}

#[test]
fn reads_answer_pairs() {
    let mut replica = Replica::new();
    replica.put_until(b"a", b"1", Deadline::At(5000));
    replica.set(b"b", b"2");
    replica.set(b"c", b"3");
    let pair = |replica: &Replica, key: &[u8]| replica.store.get(key).map(|pair| pair.to_pair());
    assert_eq!(replica.run(Op::Get { key: b"a" }), Outcome::Value(pair(&replica, b"a")));
    assert_eq!(replica.run(Op::Get { key: b"x" }), Outcome::Value(None));
    let scan = |replica: &mut Replica, from, to, limit| match replica.run(Op::Scan { from, to, limit }) {
        Outcome::Pairs(pairs) => pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(scan(&mut replica, b"", None, 10), ["a", "b", "c"]);
    assert_eq!(scan(&mut replica, b"", Some(b"c"), 10), ["a", "b"]);
    assert_eq!(scan(&mut replica, b"b", None, 1), ["b"]);
    assert_eq!(scan(&mut replica, b"b", None, 0), [""; 0]);

    for key in [b"x", b"y", b"z"] {
        replica.set(key, &vec![0; VALUE_BYTES_MAX - 100]);
    }
    assert_eq!(scan(&mut replica, b"x", None, 2), ["x", "y"]);
    let all = replica.run(Op::Scan { from: b"x", to: None, limit: 2 });
    assert!(all.encoded_bytes() <= OUTCOME_BYTES_MAX);
    assert_eq!(replica.run(Op::Scan { from: b"x", to: None, limit: 3 }), Outcome::TooLarge);
}

/// What has expired is walked through as well, so it counts.
#[test]
fn scans_of_one_entry_walk_through_so_many_pairs() {
    let mut store = Store::new([1; 32]);
    let mut entry = Applying::new(&mut store, Index::new(1));
    for number in 0..100u8 {
        let deadline_ms = (number < 50).then_some(5);
        entry.write(&[number], Draft::over(None, &b""[..]).with_deadline(deadline_ms));
    }
    entry.store.state.clock_ms = 5;
    let count = |outcome| match outcome {
        Outcome::Pairs(pairs) => Some(pairs.len()),
        _ => None,
    };
    assert_eq!(count(entry.scan(b"", None, 10)), Some(10));
    assert_eq!(entry.scanned_pairs, 60);
    assert_eq!(count(entry.scan(b"", None, 0)), Some(0));
    assert_eq!(count(entry.scan(&[90], None, 100)), Some(10));
    assert_eq!(entry.scanned_pairs, 70);
    entry.scanned_pairs = SCAN_PAIRS_MAX - 55;
    assert_eq!(count(entry.scan(b"", None, 5)), Some(5));
    assert_eq!(entry.scan(&[90], None, 1), Outcome::TooLarge);
    assert_eq!(count(entry.scan(&[90], None, 0)), Some(0));
}

#[test]
fn clear_leaves_the_empty_state() {
    let mut replica = Replica::new();
    replica.set(b"a", b"1");
    replica.put_until(b"b", b"1", Deadline::At(5000));
    assert_eq!(replica.run(Op::Clear), Outcome::Done);
    assert_eq!(replica.store.digest(), Replica::new().store.digest());
    assert_eq!((replica.store.bytes(), replica.store.next_deadline_ms()), (0, None));
}

#[test]
fn what_is_no_op_changes_nothing_but_the_clock() {
    let mut replica = Replica::new();
    replica.set(b"a", b"1");
    let before = replica.store.digest();
    for command in [&b""[..], b"\x02", b"\x01\x06", b"\x02\x63", b"SET a 2"] {
        assert_eq!(replica.run_bytes(command), Outcome::Invalid);
    }
    assert_eq!(replica.store.digest(), before);
    replica.clock_ms += 1;
    assert_eq!(replica.run_bytes(b""), Outcome::Invalid);
    assert_eq!(replica.store.clock_ms(), 1001);
    assert_ne!(replica.store.digest(), before);
}
