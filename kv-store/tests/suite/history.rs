//! A fixed history has a fixed hash. If one of these numbers changes, replicas of different builds diverge, and a
//! restored checkpoint no longer agrees with the cluster: that needs a new feature level, not a new number here.

use kv_store::{CheckpointMeta, Condition, Index, Op, Store, checkpoint};

const GOLDEN_COUNT: u64 = 4095;
const GOLDEN_STATE: &str = "9b6e557cd2a1ef087b5986161cc1473fbec1d2d061e8721cc1e6dc16b5356f4d";
const GOLDEN_OUTCOMES: &str = "5215dbb4";
const GOLDEN_EMPTY: &str = "accdd1645060926e67300b948162e7102468765faaddcb9c6d26545c34de8483";

/// A sequence that is the same for ever (splitmix64, Steele and others, 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// One command of every kind in turn, over 5000 keys; some are no ops at all.
fn command(numbers: &mut Numbers) -> Vec<u8> {
    let keys: Vec<String> = (0..3).map(|_| format!("key:{}", numbers.next() % 5000)).collect();
    let [a, b, c] = [&keys[0], &keys[1], &keys[2]].map(String::as_bytes);
    let value = numbers.next().to_string();
    let value = value.as_bytes();
    let op = match numbers.next() % 16 {
        0..=5 => Op::Put { key: a, value, condition: Condition::Always, want_previous: false },
        6 => Op::Put { key: a, value, condition: Condition::IfAbsent, want_previous: true },
        7 => Op::Put { key: a, value, condition: Condition::IfPresent, want_previous: true },
        8 => Op::Delete { keys: vec![a, b, a] },
        9..=10 => Op::Increment { key: a, by: numbers.next().cast_signed() / 4 },
        11..=12 => Op::Append { key: a, value: &value[..3] },
        13..=14 => Op::PutMany { pairs: vec![(a, value), (b, b""), (c, value)] },
        _ => return value.to_vec(),
    };
    op.encode().expect("within the limits")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the state and one over all outcomes.
fn run(store: &mut Store, commands: u64) -> (String, String) {
    let mut numbers = Numbers(42);
    let mut outcomes = Vec::new();
    for index in 1..=commands {
        let mut command = command(&mut numbers);
        if index == commands / 2 {
            command = Op::Clear.encode().expect("no limits");
        }
        store.apply(Index::new(index), &command).encode(&mut outcomes);
    }
    (hex(&store.digest()), format!("{:08x}", crc32c::crc32c(&outcomes)))
}

#[test]
fn a_fixed_history_has_a_fixed_hash() {
    let mut store = Store::new([0x42; 32]);
    let (state, outcomes) = run(&mut store, 20_000);
    assert_eq!(store.audit(), store.range_digest(b"", None));
    assert_eq!(store.len(), GOLDEN_COUNT);
    assert_eq!(state, GOLDEN_STATE);
    assert_eq!(outcomes, GOLDEN_OUTCOMES);
}

#[test]
fn the_empty_state_has_a_fixed_hash() {
    assert_eq!(hex(&Store::new([1; 32]).digest()), GOLDEN_EMPTY);
    assert_eq!(Store::new([1; 32]).digest(), Store::new([2; 32]).digest());
}

/// A replica that takes a checkpoint on the way ends where one ends that replays everything.
#[test]
fn a_restored_replica_goes_on_like_the_others() {
    let mut numbers = Numbers(7);
    let commands: Vec<_> = (0..10_000).map(|_| command(&mut numbers)).collect();
    let (mut replayed, mut restored) = (Store::new([5; 32]), Store::new([5; 32]));
    for (index, command) in (1..).zip(&commands) {
        let outcome = replayed.apply(Index::new(index), command);
        assert_eq!(restored.apply(Index::new(index), command), outcome);
        if index % 3000 == 0 {
            let mut bytes = Vec::new();
            checkpoint::write(&restored.view(), &CheckpointMeta::default(), &mut bytes).expect("memory");
            restored = checkpoint::read(&mut &bytes[..]).expect("undamaged").0;
        }
    }
    assert!(replayed.len() > 1000, "a history of some size");
    assert_eq!(restored.digest(), replayed.digest());
    assert!(restored.iter().eq(replayed.iter()));
}
