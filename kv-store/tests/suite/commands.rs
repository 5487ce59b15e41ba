//! Random entries: commands of every kind, over few keys so that they meet, with stamps that advance, stand still, jump
//! and go back.

use kv_store::{
    Compare, Condition, Deadline, DeadlineCondition, Decimal, Failure, Index, Op, PutManyCondition, Relation, Target,
    Version,
};

/// A sequence that is the same for ever (splitmix64, Steele and others, 2014).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Where a history stands, as far as commands depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: u64,
    pub(crate) clock_ms: u64,
    /// Keys are below this number.
    pub(crate) keys: u64,
    /// The memory limit is around this number, when there is one.
    pub(crate) memory_bytes: u64,
}

/// The stamp of the next entry.
pub(crate) fn stamp_ms(numbers: &mut Numbers, clock_ms: u64) -> u64 {
    match numbers.below(40) {
        0..=24 => clock_ms + numbers.below(20),
        25..=34 => clock_ms,
        35..=37 => clock_ms.saturating_sub(numbers.below(100)),
        38 => clock_ms + 500,
        _ => clock_ms + numbers.one_of(&[1000, 1000, 1000, 100_000]),
    }
}

/// A command: mostly an op, sometimes a transaction, sometimes nothing that anybody knows.
pub(crate) fn command(numbers: &mut Numbers, place: Place) -> Vec<u8> {
    match numbers.below(40) {
        0 => vec![numbers.next() as u8; numbers.below(4) as usize],
        1 => {
            let around = numbers.below(2 * place.memory_bytes + 1);
            let bytes = if numbers.below(3) > 0 { None } else { Some(around) };
            Op::SetMemoryLimit { bytes }.encode().expect("no limits")
        }
        2..=7 => transaction(numbers, place),
        8 => crowd(numbers, place),
        _ => simple(numbers, place),
    }
}

fn key(numbers: &mut Numbers, place: Place) -> Vec<u8> {
    numbers.below(place.keys).to_string().into_bytes()
}

fn value(numbers: &mut Numbers) -> Vec<u8> {
    match numbers.below(6) {
        0 => vec![numbers.next() as u8; numbers.below(40) as usize],
        1 => i64::MAX.to_string().into_bytes(),
        2 => format!("{}.{}", numbers.below(100), numbers.below(100)).into_bytes(),
        3 => b"1".to_vec(),
        _ => (numbers.next() >> 40).to_string().into_bytes(),
    }
}

/// Soon, far away, or passed already.
fn deadline_ms(numbers: &mut Numbers, place: Place) -> u64 {
    match numbers.below(8) {
        0 => (place.clock_ms + 20).saturating_sub(numbers.below(60)),
        1 => place.clock_ms + 1_000_000,
        2..=4 => place.clock_ms + numbers.below(400),
        _ => place.clock_ms + numbers.below(20_000),
    }
}

fn version(numbers: &mut Numbers, place: Place) -> Version {
    // Of late, so that some hit.
    let index = place.index.saturating_sub(numbers.below(place.keys));
    Version { index: Index::new(index * numbers.below(4).min(1)), op: numbers.below(6).saturating_sub(4) as u32 }
}

/// An op that may stand in a transaction.
fn simple(numbers: &mut Numbers, place: Place) -> Vec<u8> {
    let [a, b, c] = [(); 3].map(|()| key(numbers, place));
    let [v, w] = [(); 2].map(|()| value(numbers));
    // A range of the key and those that begin with it.
    let end = [&a[..], b"x"].concat();
    let (is, at) = (numbers.flag(), deadline_ms(numbers, place));
    let op = match numbers.below(32) {
        0..=8 => Op::Put {
            key: &a,
            value: &v,
            condition: condition(numbers, place, &w),
            deadline: numbers.one_of(&[Deadline::None, Deadline::Keep, Deadline::At(at), Deadline::At(at)]),
            want_previous: is,
        },
        9..=10 => Op::Delete { keys: vec![&a, &b, &a] },
        11 => Op::Take { key: &a },
        12 => Op::DeleteRange { from: &a, to: numbers.one_of(&[Some(&end), Some(&end), Some(&end), Some(&b), None]) },
        13..=14 => Op::Increment { key: &a, by: numbers.one_of(&[1, -7, i64::MAX, i64::MIN]) },
        15..=16 => {
            let scale = numbers.below(4) as u8;
            let by = Decimal::new(i128::from(numbers.below(2000)) - 1000, scale).expect("in range");
            Op::IncrementDecimal { key: &a, by }
        }
        17..=18 => Op::Append { key: &a, value: &v },
        19..=20 => {
            let offset = numbers.one_of(&[0, 1, 5, 50, u64::MAX]);
            Op::SetRange { key: &a, offset, value: if is { &v } else { &v[..v.len() / 4] } }
        }
        21..=22 => {
            let pairs = vec![(&a[..], &v[..]), (&b, b""), (&c, &w), (&a, &w)];
            let condition = if is { PutManyCondition::IfNonePresent } else { PutManyCondition::Always };
            Op::PutMany { pairs, condition }
        }
        23..=26 => Op::SetDeadline {
            key: &a,
            deadline: if numbers.below(4) == 0 { None } else { Some(at) },
            condition: numbers.one_of(&[
                DeadlineCondition::Always,
                DeadlineCondition::IfNone,
                DeadlineCondition::IfAny,
                DeadlineCondition::IfLater,
                DeadlineCondition::IfEarlier,
            ]),
            want_value: is,
        },
        27..=28 => Op::Copy { from: &a, to: &b, if_absent: is, remove_source: numbers.flag() },
        29 => Op::Get { key: &a },
        30 => Op::Scan { from: &a, to: if is { Some(&b) } else { None }, limit: numbers.below(9) as u32 },
        _ if numbers.below(60) == 0 => Op::Clear,
        _ => Op::Get { key: &b },
    };
    op.encode().expect("within the limits")
}

fn condition<'a>(numbers: &mut Numbers, place: Place, value: &'a [u8]) -> Condition<'a> {
    match numbers.below(12) {
        0..=6 => Condition::Always,
        7 => Condition::IfAbsent,
        8 => Condition::IfPresent,
        9 => Condition::IfValue(value),
        _ => Condition::IfVersion(version(numbers, place)),
    }
}

/// Many pairs that expire at nearly the same time: more than one entry removes.
fn crowd(numbers: &mut Numbers, place: Place) -> Vec<u8> {
    let at = place.clock_ms + 500 + numbers.below(2000);
    let keys: Vec<_> = (0..80).map(|_| (key(numbers, place), Deadline::At(at + numbers.below(5)))).collect();
    let then = keys.iter().map(|(key, deadline)| Op::Put {
        key,
        value: b"7",
        condition: Condition::Always,
        deadline: *deadline,
        want_previous: false,
    });
    let then = then.collect();
    let op = Op::Transaction { conditions: vec![], then, otherwise: vec![], failure: Failure::GoOn };
    op.encode().expect("within the limits")
}

fn transaction(numbers: &mut Numbers, place: Place) -> Vec<u8> {
    let ops: Vec<Vec<u8>> = (0..numbers.below(8)).map(|_| simple(numbers, place)).collect();
    let decoded = || ops.iter().map(|op| Op::decode(op).expect("just encoded"));
    let (k, v) = (key(numbers, place), value(numbers));
    let conditions = (0..numbers.below(3)).map(|_| {
        let at = version(numbers, place);
        let targets = [Target::Value(&v), Target::Version(at), Target::Created(at.index), Target::Present];
        let target = numbers.one_of(&targets);
        let relation = numbers.one_of(&[Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater]);
        Compare { key: &k, target, relation }
    });
    let conditions = conditions.collect();
    let split = numbers.below(ops.len() as u64 + 1) as usize;
    let failure = if numbers.flag() { Failure::Undo } else { Failure::GoOn };
    let (then, otherwise) = (decoded().take(split).collect(), decoded().skip(split).collect());
    Op::Transaction { conditions, then, otherwise, failure }.encode().expect("within the limits")
}
