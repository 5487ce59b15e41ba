use super::*;

const MAX: &[u8] = b"9223372036854775807";

/// A store that numbers its commands.
struct Replica {
    store: Store,
    index: u64,
}

impl Replica {
    fn new() -> Self {
        Replica { store: Store::new([1; 32]), index: 0 }
    }

    fn run(&mut self, op: Op<'_>) -> Outcome {
        self.run_bytes(&op.encode().unwrap())
    }

    fn run_bytes(&mut self, command: &[u8]) -> Outcome {
        self.index += 1;
        self.store.apply(Index::new(self.index), command)
    }

    fn put(&mut self, key: &[u8], value: &[u8], condition: Condition) -> Outcome {
        self.run(Op::Put { key, value, condition, want_previous: false })
    }

    fn put_get(&mut self, key: &[u8], value: &[u8], condition: Condition) -> Outcome {
        self.run(Op::Put { key, value, condition, want_previous: true })
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key).map(|pair| &pair.value[..])
    }

    /// Version and creation index.
    fn written(&self, key: &[u8]) -> (u64, u32, u64) {
        let pair = self.store.get(key).unwrap();
        (pair.version.index.get(), pair.version.op, pair.created.get())
    }
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
    assert_eq!(replica.put(b"k", b"4", Condition::IfPresent), Outcome::Done);
    assert_eq!(replica.put(b"k", b"5", Condition::Always), Outcome::Done);
    assert_eq!(replica.value(b"k"), Some(&b"5"[..]));
    assert_eq!(replica.written(b"k"), (5, 0, 2));
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
    replica.put(b"k", b"1", Condition::Always);
    replica.run(Op::Delete { keys: vec![b"k"] });
    replica.put(b"k", b"1", Condition::Always);
    assert_eq!(replica.written(b"k"), (3, 0, 3));
}

#[test]
fn a_delete_counts_what_was_there() {
    let mut replica = Replica::new();
    replica.put(b"a", b"", Condition::Always);
    replica.put(b"b", b"", Condition::Always);
    assert_eq!(replica.run(Op::Delete { keys: vec![b"a", b"absent", b"a", b"b"] }), Outcome::Count(2));
    assert_eq!(replica.run(Op::Delete { keys: vec![] }), Outcome::Count(0));
    assert!(replica.store.is_empty());
}

#[test]
fn an_increment_keeps_to_the_range() {
    let mut replica = Replica::new();
    assert_eq!(replica.run(Op::Increment { key: b"n", by: -5 }), Outcome::Integer(-5));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 7 }), Outcome::Integer(2));
    assert_eq!(replica.value(b"n"), Some(&b"2"[..]));
    assert_eq!(replica.written(b"n"), (2, 0, 1));

    replica.put(b"n", MAX, Condition::Always);
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 1 }), Outcome::Overflow);
    assert_eq!(replica.value(b"n"), Some(MAX));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: i64::MIN }), Outcome::Integer(-1));
    assert_eq!(replica.run(Op::Increment { key: b"n", by: i64::MIN }), Outcome::Overflow);
}

#[test]
fn only_the_one_decimal_notation_is_a_number() {
    for text in ["0", "-1", "42", "9223372036854775807", "-9223372036854775808"] {
        assert_eq!(parse_integer(text.as_bytes()), Some(text.parse().unwrap()), "{text}");
    }
    let others =
        ["", " 1", "1 ", "+1", "-0", "00", "01", "-01", "1.0", "1e3", "0x1", "-", "9223372036854775808", "\u{661}"];
    for text in others {
        assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
    }
    assert_eq!(parse_integer(b"\xff"), None);

    let mut replica = Replica::new();
    replica.put(b"n", b"1 ", Condition::Always);
    assert_eq!(replica.run(Op::Increment { key: b"n", by: 1 }), Outcome::NotAnInteger);
    assert_eq!(replica.value(b"n"), Some(&b"1 "[..]));
}

#[test]
fn an_append_answers_with_the_length_and_keeps_the_limit() {
    let mut replica = Replica::new();
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"ab" }), Outcome::Length(2));
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"cd" }), Outcome::Length(4));
    assert_eq!(replica.value(b"k"), Some(&b"abcd"[..]));
    assert_eq!(replica.written(b"k"), (2, 0, 1));

    replica.put(b"k", &vec![0; VALUE_BYTES_MAX - 1], Condition::Always);
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"xy" }), Outcome::TooLarge);
    assert_eq!(replica.run(Op::Append { key: b"k", value: b"x" }), Outcome::Length(VALUE_BYTES_MAX as u64));
    assert_eq!(replica.store.audit(), replica.store.range_digest(b"", None));
}

#[test]
fn of_many_puts_the_later_wins_and_each_has_its_op_number() {
    let mut replica = Replica::new();
    let pairs = vec![(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"a", b"3")];
    assert_eq!(replica.run(Op::PutMany { pairs }), Outcome::Done);
    assert_eq!(replica.value(b"a"), Some(&b"3"[..]));
    assert_eq!(replica.written(b"a"), (1, 2, 1));
    assert_eq!(replica.written(b"b"), (1, 1, 1));
}

#[test]
fn clear_leaves_the_empty_state() {
    let mut replica = Replica::new();
    replica.put(b"a", b"1", Condition::Always);
    assert_eq!(replica.run(Op::Clear), Outcome::Done);
    assert_eq!(replica.store.digest(), Replica::new().store.digest());
    assert_eq!(replica.store.bytes(), 0);
}

#[test]
fn what_is_no_op_changes_nothing() {
    let mut replica = Replica::new();
    replica.put(b"a", b"1", Condition::Always);
    let before = replica.store.digest();
    for command in [&b""[..], b"\x01", b"\x02\x06", b"\x01\x63", b"SET a 2"] {
        assert_eq!(replica.run_bytes(command), Outcome::Invalid);
    }
    assert_eq!(replica.store.digest(), before);
}
