use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The bytes of the format. If this fails, replicas of different builds apply different histories.
#[test]
fn golden_bytes() {
    let cases: [(Op<'_>, &[u8]); 6] = [
        (
            Op::Put { key: b"k", value: b"vw", condition: Condition::IfPresent, want_previous: true },
            &[1, 1, 0b110, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w'],
        ),
        (Op::Delete { keys: vec![b"a", b""] }, &[1, 2, 2, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 0]),
        (Op::Increment { key: b"n", by: -2 }, &[1, 3, 1, 0, 0, 0, b'n', 254, 255, 255, 255, 255, 255, 255, 255]),
        (Op::Append { key: b"k", value: b"v" }, &[1, 4, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v']),
        (Op::PutMany { pairs: vec![(b"k", b"v")] }, &[1, 5, 1, 0, 0, 0, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v']),
        (Op::Clear, &[1, 6]),
    ];
    for (op, bytes) in cases {
        assert_eq!(op.encode().unwrap(), bytes, "{op:?}");
        assert_eq!(Op::decode(bytes).unwrap(), op);
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let key = vec![b'k'; KEY_BYTES_MAX + 1];
    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let longest = Op::Append { key: &key[1..], value: &value[1..] }.encode().unwrap();
    assert!(Op::decode(&longest).is_ok());

    let too_long_key = Op::Increment { key: &key, by: 1 }.encode();
    assert_eq!(too_long_key, Err(OpError::KeyTooLong { bytes: KEY_BYTES_MAX + 1 }));
    let too_long_value = Op::Append { key: b"", value: &value }.encode();
    assert_eq!(too_long_value, Err(OpError::ValueTooLong { bytes: VALUE_BYTES_MAX + 1 }));
    let too_many = Op::Delete { keys: vec![b""; OP_KEYS_MAX + 1] }.encode();
    assert_eq!(too_many, Err(OpError::TooManyKeys { count: OP_KEYS_MAX + 1 }));
    let too_long = Op::PutMany { pairs: vec![(b"k", &value[1..]); 2] }.encode();
    assert!(matches!(too_long, Err(OpError::TooLong { .. })));

    let mut bytes = vec![1, TAG_DELETE];
    bytes.extend(u32::MAX.to_le_bytes());
    assert_eq!(Op::decode(&bytes), Err(OpError::TooManyKeys { count: u32::MAX as usize }));
    bytes.truncate(2);
    bytes.extend(1000u32.to_le_bytes());
    assert_eq!(Op::decode(&bytes), Err(OpError::Short));
    assert!(matches!(Op::decode(&vec![1; OP_BYTES_MAX + 1]), Err(OpError::TooLong { .. })));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    assert_eq!(Op::decode(&[2, TAG_CLEAR]), Err(OpError::UnknownVersion { found: 2 }));
    assert_eq!(Op::decode(&[1, 99]), Err(OpError::UnknownTag { found: 99 }));
    assert_eq!(Op::decode(&[1, TAG_PUT, 0b011]), Err(OpError::UnknownFlags { found: 0b011 }));
    assert_eq!(Op::decode(&[1, TAG_PUT, 0b1000]), Err(OpError::UnknownFlags { found: 0b1000 }));
    assert_eq!(Op::decode(&[1, TAG_CLEAR, 0]), Err(OpError::Trailing { bytes: 1 }));
}

/// Owns what an op borrows.
#[derive(Clone, Debug)]
struct Material {
    tag: u8,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    by: i64,
    condition: Condition,
    want_previous: bool,
}

impl Material {
    fn op(&self) -> Op<'_> {
        let (key, value) = self.pairs.first().map_or((&b""[..], &b""[..]), |(k, v)| (k, v));
        match self.tag {
            TAG_PUT => Op::Put { key, value, condition: self.condition, want_previous: self.want_previous },
            TAG_DELETE => Op::Delete { keys: self.pairs.iter().map(|(key, _)| &key[..]).collect() },
            TAG_INCREMENT => Op::Increment { key, by: self.by },
            TAG_APPEND => Op::Append { key, value },
            TAG_PUT_MANY => Op::PutMany { pairs: self.pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect() },
            _ => Op::Clear,
        }
    }
}

fn material() -> impl Strategy<Value = Material> {
    let condition = prop_oneof![Just(Condition::Always), Just(Condition::IfAbsent), Just(Condition::IfPresent)];
    let pairs = vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..20)), 0..5);
    (TAG_PUT..=TAG_CLEAR, pairs, any::<i64>(), condition, any::<bool>())
        .prop_map(|(tag, pairs, by, condition, want_previous)| Material { tag, pairs, by, condition, want_previous })
}

proptest! {
    #[test]
    fn every_op_survives_its_bytes_and_no_cut_does(material in material()) {
        let op = material.op();
        let bytes = op.encode().unwrap();
        prop_assert_eq!(bytes.len(), op.encoded_bytes());
        prop_assert_eq!(Op::decode(&bytes).unwrap(), op);
        for cut in 0..bytes.len() {
            prop_assert!(Op::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(tag in 0u8..8, body in vec(0u8..8, 0..40)) {
        let bytes = [&[1, tag][..], &body].concat();
        if let Ok(op) = Op::decode(&bytes) {
            prop_assert_eq!(op.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        let _ = Op::decode(&bytes);
    }
}
