use kv_wal::Index;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::format::*;
use super::*;
use crate::pair::Version;

const VERSION: Version = Version { index: Index::new(300), op: 2 };

fn put<'a>(condition: Condition<'a>, deadline: Deadline, want_previous: bool) -> Op<'a> {
    Op::Put { key: b"k", value: b"vw", condition, deadline, want_previous }
}

fn decimal(text: &str) -> Decimal {
    Decimal::parse(text.as_bytes()).unwrap()
}

/// The bytes of the format, after the version. If this fails, replicas of different builds apply different histories.
#[test]
fn golden_bytes() {
    let compare = |target, relation| Compare { key: b"k", target, relation };
    let transaction = Op::Transaction {
        conditions: vec![
            compare(Target::Value(b"v"), Relation::Equal),
            compare(Target::Version(VERSION), Relation::NotEqual),
            compare(Target::Created(Index::new(9)), Relation::Less),
            compare(Target::Present, Relation::Greater),
        ],
        then: vec![Op::Get { key: b"k" }, Op::Clear],
        otherwise: vec![],
        failure: Failure::GoOn,
    };
    let deadline = |deadline, condition, want_value| Op::SetDeadline { key: b"k", deadline, condition, want_value };
    let cases: Vec<(Op<'_>, &[u8])> = vec![
        (put(Condition::Always, Deadline::None, false), b"\x01\x00\x01k\x02vw"),
        (put(Condition::IfAbsent, Deadline::Keep, false), b"\x01\x09\x01k\x02vw"),
        (put(Condition::IfPresent, Deadline::At(300), true), b"\x01\x32\x01k\x02vw\xac\x02"),
        (put(Condition::IfValue(b"o"), Deadline::None, true), b"\x01\x23\x01k\x02vw\x01o"),
        (put(Condition::IfVersion(VERSION), Deadline::At(5), false), b"\x01\x14\x01k\x02vw\x05\xac\x02\x02"),
        (Op::Delete { keys: vec![b"a", b""] }, b"\x02\x02\x01a\x00"),
        (Op::Increment { key: b"n", by: -2 }, b"\x03\x01n\x03"),
        (Op::Append { key: b"k", value: b"v" }, b"\x04\x01k\x01v"),
        (Op::PutMany { pairs: vec![(b"k", b"v")], condition: PutManyCondition::Always }, b"\x05\x00\x01\x01k\x01v"),
        (Op::PutMany { pairs: vec![], condition: PutManyCondition::IfNonePresent }, b"\x05\x01\x00"),
        (Op::Clear, b"\x06"),
        (Op::Take { key: b"k" }, b"\x07\x01k"),
        (Op::DeleteRange { from: b"a", to: None }, b"\x08\x00\x01a"),
        (Op::DeleteRange { from: b"a", to: Some(b"b") }, b"\x08\x01\x01a\x01b"),
        (Op::IncrementDecimal { key: b"n", by: decimal("-0.25") }, b"\x09\x01n\x31\x02"),
        (Op::SetRange { key: b"k", offset: 300, value: b"v" }, b"\x0a\x01k\xac\x02\x01v"),
        (deadline(None, DeadlineCondition::Always, false), b"\x0b\x00\x01k"),
        (deadline(Some(7), DeadlineCondition::IfNone, false), b"\x0b\x09\x01k\x07"),
        (deadline(None, DeadlineCondition::IfAny, true), b"\x0b\x12\x01k"),
        (deadline(Some(7), DeadlineCondition::IfLater, false), b"\x0b\x0b\x01k\x07"),
        (deadline(Some(7), DeadlineCondition::IfEarlier, false), b"\x0b\x0c\x01k\x07"),
        (Op::Copy { from: b"a", to: b"b", if_absent: true, remove_source: false }, b"\x0c\x01\x01a\x01b"),
        (Op::Copy { from: b"a", to: b"b", if_absent: false, remove_source: true }, b"\x0c\x02\x01a\x01b"),
        (Op::Get { key: b"k" }, b"\x0d\x01k"),
        (Op::Scan { from: b"a", to: Some(b"b"), limit: 300 }, b"\x0e\x01\x01a\x01b\xac\x02"),
        (Op::SetMemoryLimit { bytes: None }, b"\x0f\x00"),
        (Op::SetMemoryLimit { bytes: Some(300) }, b"\x0f\x01\xac\x02"),
        (
            transaction,
            b"\x10\x01\x04\x00\x00\x01k\x01v\x01\x01\x01k\xac\x02\x02\x02\x02\x01k\x09\x03\x03\x01k\x02\x0d\x01k\x06\x00",
        ),
    ];
    for (op, body) in cases {
        let bytes = [&[2], body].concat();
        assert_eq!(op.encode().unwrap(), bytes, "{op:?}");
        assert_eq!(Op::decode(&bytes).unwrap(), op);
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let key = vec![b'k'; KEY_BYTES_MAX + 1];
    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let longest = Op::Append { key: &key[1..], value: &value[1..] }.encode().unwrap();
    assert!(Op::decode(&longest).is_ok());

    let too_long_key = OpError::KeyTooLong { bytes: KEY_BYTES_MAX + 1 };
    let too_long_value = OpError::ValueTooLong { bytes: VALUE_BYTES_MAX + 1 };
    let compare = |key, target| Compare { key, target, relation: Relation::Equal };
    let when = |compare| transaction(vec![compare], vec![]);
    for (op, error) in [
        (Op::Increment { key: &key, by: 1 }, too_long_key),
        (Op::Take { key: &key }, too_long_key),
        (Op::DeleteRange { from: b"", to: Some(&key) }, too_long_key),
        (Op::Scan { from: &key, to: None, limit: 1 }, too_long_key),
        (Op::Copy { from: b"", to: &key, if_absent: false, remove_source: false }, too_long_key),
        (Op::PutMany { pairs: vec![(&key, b"")], condition: PutManyCondition::Always }, too_long_key),
        (when(compare(&key, Target::Present)), too_long_key),
        (when(compare(b"", Target::Value(&value))), too_long_value),
        (transaction(vec![], vec![Op::Append { key: b"", value: &value }]), too_long_value),
        (Op::SetRange { key: b"", offset: 0, value: &value }, too_long_value),
        (put(Condition::IfValue(&value), Deadline::None, false), too_long_value),
        (Op::Delete { keys: vec![b""; OP_KEYS_MAX + 1] }, OpError::TooManyKeys { count: OP_KEYS_MAX + 1 }),
        (
            transaction(vec![], vec![Op::Delete { keys: vec![b""; OP_KEYS_MAX / 2 + 1] }; 2]),
            OpError::TooManyKeys { count: OP_KEYS_MAX + 2 },
        ),
        (
            transaction(vec![], vec![Op::Clear; TRANSACTION_OPS_MAX + 1]),
            OpError::TooManyOps { count: TRANSACTION_OPS_MAX + 1 },
        ),
        (
            transaction(vec![compare(b"", Target::Present); TRANSACTION_CONDITIONS_MAX + 1], vec![]),
            OpError::TooManyConditions { count: TRANSACTION_CONDITIONS_MAX + 1 },
        ),
    ] {
        assert_eq!(op.encode(), Err(error));
    }
    let too_long = Op::PutMany { pairs: vec![(b"k", &value[1..]); 2], condition: PutManyCondition::Always }.encode();
    assert!(matches!(too_long, Err(OpError::TooLong { .. })));
    assert!(matches!(Op::decode(&vec![2; OP_BYTES_MAX + 1]), Err(OpError::TooLong { .. })));
}

/// Counts and lengths that the bytes claim and do not hold take no memory.
#[test]
fn claims_are_checked_before_memory_is_taken() {
    for (bytes, error) in [
        (&b"\x02\x02\xff\xff\xff\xff\x0f"[..], OpError::TooManyKeys { count: u32::MAX as usize }),
        (b"\x02\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", OpError::TooManyKeys { count: usize::MAX }),
        (b"\x02\x02\xff\x07", OpError::Malformed),
        (b"\x02\x07\xff\xff\xff\x7f", OpError::KeyTooLong { bytes: 0x0FFF_FFFF }),
        (b"\x02\x04\x00\xff\xff\xff\x7f", OpError::ValueTooLong { bytes: 0x0FFF_FFFF }),
        (b"\x02\x10\x00\xff\xff\xff\x7f", OpError::TooManyConditions { count: 0x0FFF_FFFF }),
        (b"\x02\x10\x00\x00\xff\xff\xff\x7f", OpError::TooManyOps { count: 0x0FFF_FFFF }),
        (b"\x02\x10\x00\x00\x01\x06\x80\x80\x04", OpError::TooManyOps { count: TRANSACTION_OPS_MAX + 1 }),
    ] {
        assert_eq!(Op::decode(bytes), Err(error));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (bytes, error) in [
        (&b""[..], OpError::Malformed),
        (b"\x02", OpError::Malformed),
        (b"\x01\x06", OpError::UnknownVersion { found: 1 }),
        (b"\x03\x06", OpError::UnknownVersion { found: 3 }),
        (b"\x02\x63", OpError::UnknownTag { found: 99 }),
        (b"\x02\x01\x05\x00\x00", OpError::UnknownFlags { found: 5 }),
        (b"\x02\x01\x18\x00\x00", OpError::UnknownFlags { found: 0x18 }),
        (b"\x02\x01\x40\x00\x00", OpError::UnknownFlags { found: 0x40 }),
        (b"\x02\x0c\x04", OpError::UnknownFlags { found: 4 }),
        (b"\x02\x06\x00", OpError::Trailing { bytes: 1 }),
        // The length 1 in two bytes, and a decimal number with a zero at its end.
        (b"\x02\x07\x81\x00k", OpError::Malformed),
        (b"\x02\x09\x01n\x14\x01", OpError::Malformed),
    ] {
        assert_eq!(Op::decode(bytes), Err(error));
    }
}

#[test]
fn transactions_do_not_nest() {
    let nested = transaction(vec![], vec![transaction(vec![], vec![])]);
    assert_eq!(nested.encode(), Err(OpError::NotInTransaction { tag: TAG_TRANSACTION }));
    let limit = transaction(vec![], vec![Op::SetMemoryLimit { bytes: None }]);
    assert_eq!(limit.encode(), Err(OpError::NotInTransaction { tag: TAG_SET_MEMORY_LIMIT }));
    // As deep as the bytes go.
    let deep = [&[2][..], &[TAG_TRANSACTION, 0, 0, 1].repeat(1 << 20)].concat();
    assert_eq!(Op::decode(&deep), Err(OpError::NotInTransaction { tag: TAG_TRANSACTION }));
}

fn transaction<'a>(conditions: Vec<Compare<'a>>, then: Vec<Op<'a>>) -> Op<'a> {
    Op::Transaction { conditions, then, otherwise: vec![], failure: Failure::Undo }
}

/// Owns what an op borrows.
#[derive(Clone, Debug)]
struct Material {
    tag: u8,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    number: i64,
    choice: u8,
    deadline: Option<u64>,
    flag: bool,
}

impl Material {
    fn op(&self) -> Op<'_> {
        let (key, value) = self.pairs.first().map_or((&b""[..], &b""[..]), |(k, v)| (k, v));
        let (flag, offset) = (self.flag, self.number.cast_unsigned());
        let to = flag.then_some(value);
        let version = Version { index: Index::new(offset), op: self.choice.into() };
        match self.tag {
            TAG_PUT => {
                let conditions = [
                    Condition::Always,
                    Condition::IfAbsent,
                    Condition::IfPresent,
                    Condition::IfValue(value),
                    Condition::IfVersion(version),
                ];
                let deadline = self.deadline.map_or(Deadline::None, Deadline::At);
                let deadline = if offset % 3 == 0 { Deadline::Keep } else { deadline };
                let condition = conditions[usize::from(self.choice)];
                Op::Put { key, value, condition, deadline, want_previous: flag }
            }
            TAG_DELETE => Op::Delete { keys: self.pairs.iter().map(|(key, _)| &key[..]).collect() },
            TAG_INCREMENT => Op::Increment { key, by: self.number },
            TAG_APPEND => Op::Append { key, value },
            TAG_PUT_MANY => {
                let condition = if flag { PutManyCondition::IfNonePresent } else { PutManyCondition::Always };
                Op::PutMany { pairs: self.pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect(), condition }
            }
            TAG_TAKE => Op::Take { key },
            TAG_DELETE_RANGE => Op::DeleteRange { from: key, to },
            TAG_INCREMENT_DECIMAL => {
                Op::IncrementDecimal { key, by: Decimal::new(self.number.into(), self.choice).unwrap() }
            }
            TAG_SET_RANGE => Op::SetRange { key, offset, value },
            TAG_SET_DEADLINE => {
                let conditions = [
                    DeadlineCondition::Always,
                    DeadlineCondition::IfNone,
                    DeadlineCondition::IfAny,
                    DeadlineCondition::IfLater,
                    DeadlineCondition::IfEarlier,
                ];
                let condition = conditions[usize::from(self.choice)];
                Op::SetDeadline { key, deadline: self.deadline, condition, want_value: flag }
            }
            TAG_COPY => Op::Copy { from: key, to: value, if_absent: flag, remove_source: self.choice == 0 },
            TAG_GET => Op::Get { key },
            TAG_SCAN => Op::Scan { from: key, to, limit: offset as u32 },
            TAG_SET_MEMORY_LIMIT => Op::SetMemoryLimit { bytes: self.deadline },
            _ => Op::Clear,
        }
    }

    fn compare(&self) -> Compare<'_> {
        let (key, value) = self.pairs.first().map_or((&b""[..], &b""[..]), |(k, v)| (k, v));
        let index = Index::new(self.number.cast_unsigned());
        let version = Version { index, op: self.choice.into() };
        let targets = [Target::Value(value), Target::Version(version), Target::Created(index), Target::Present];
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
        let target = targets[usize::from(self.choice % 4)];
        Compare { key, target, relation: relations[usize::from(self.tag % 4)] }
    }
}

fn material() -> impl Strategy<Value = Material> {
    let pairs = vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20)), 0..5);
    (TAG_PUT..=TAG_SET_MEMORY_LIMIT, pairs, any::<i64>(), 0u8..5, option::of(any::<u64>()), any::<bool>()).prop_map(
        |(tag, pairs, number, choice, deadline, flag)| Material { tag, pairs, number, choice, deadline, flag },
    )
}

fn check_round_trip(op: &Op<'_>) {
    let bytes = op.encode().unwrap();
    assert_eq!(Op::decode(&bytes).unwrap(), *op);
    for cut in 0..bytes.len() {
        assert!(Op::decode(&bytes[..cut]).is_err());
    }
}

proptest! {
    #[test]
    fn every_op_survives_its_bytes_and_no_cut_does(material in material()) {
        check_round_trip(&material.op());
    }

    #[test]
    fn every_transaction_survives_its_bytes(many in vec(material(), 0..12), split in 0usize..12, flag in any::<bool>()) {
        let ops = || many.iter().filter(|one| one.tag != TAG_SET_MEMORY_LIMIT).map(Material::op);
        check_round_trip(&Op::Transaction {
            conditions: many.iter().map(Material::compare).collect(),
            then: ops().take(split).collect(),
            otherwise: ops().skip(split).collect(),
            failure: if flag { Failure::Undo } else { Failure::GoOn },
        });
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(tag in 0u8..18, body in vec(prop_oneof![0u8..8, any::<u8>()], 0..40)) {
        let bytes = [&[2, tag][..], &body].concat();
        if let Ok(op) = Op::decode(&bytes) {
            prop_assert_eq!(op.encode().unwrap(), bytes);
        }
    }

    /// One byte of good bytes changed is refused, or is the one encoding of something else.
    #[test]
    fn damaged_bytes_are_refused_or_canonical(material in material(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = material.op().encode().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(op) = Op::decode(&bytes) {
            prop_assert_eq!(op.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        let _ = Op::decode(&bytes);
    }
}
