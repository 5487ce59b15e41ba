//! How long a write takes when the store holds many keys. Single thread, no log.
//!
//! `cargo run --release -p kv-store --example measure -- 1000000`

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kv_store::{CheckpointMeta, Condition, Deadline, Index, Op, Store, checkpoint};

const VALUE: [u8; 128] = [b'v'; 128];
const ROUND: u64 = 1_000_000;

/// A sequence without a pattern that a cache could use (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

fn put(number: u64) -> Vec<u8> {
    put_until(number, Deadline::None)
}

fn put_until(number: u64, deadline: Deadline) -> Vec<u8> {
    let key = format!("key:{number:012}");
    let condition = Condition::Always;
    let op = Op::Put { key: key.as_bytes(), value: &VALUE, condition, deadline, want_previous: false };
    op.encode().expect("within the limits")
}

fn report(what: &str, count: u64, took: Duration) {
    let each = took.as_nanos() as f64 / count as f64;
    println!("{what:<42} {each:>9.0} ns each, {count} in {:.2} s", took.as_secs_f64());
}

/// Runs `one` on prepared commands, so that only applying is measured.
fn measure(what: &str, commands: &[Vec<u8>], mut one: impl FnMut(u64, &[u8])) {
    let start = Instant::now();
    for (number, command) in (1..).zip(commands) {
        one(number, command);
    }
    report(what, commands.len() as u64, start.elapsed());
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of keys"));
    let mut numbers = Numbers(1);
    let mut store = Store::new([7; 32]);

    let mut order: Vec<u64> = (0..keys).collect();
    (1..keys).rev().for_each(|at| order.swap(at as usize, numbers.below(at + 1) as usize));
    let inserts: Vec<_> = order.iter().map(|number| put(*number)).collect();
    measure("insert, random order, 16 B key, 128 B value", &inserts, |index, command| {
        black_box(store.apply(Index::new(index), 0, command));
    });
    drop(inserts);

    let overwrites: Vec<_> = (0..ROUND).map(|_| put(numbers.below(keys))).collect();
    measure("overwrite, random key", &overwrites, |index, command| {
        black_box(store.apply(Index::new(keys + index), 0, command));
    });
    let mut view = store.view();
    measure("overwrite, random key, a view every 1000", &overwrites, |index, command| {
        if index % 1000 == 0 {
            view = store.view();
        }
        black_box(store.apply(Index::new(keys + ROUND + index), 0, command));
    });
    drop(view);

    let lookups: Vec<_> = (0..ROUND).map(|_| format!("key:{:012}", numbers.below(keys)).into_bytes()).collect();
    measure("get, random key", &lookups, |_, key| {
        black_box(store.get(key));
    });
    measure("digest of a range from a random key", &lookups[..100_000], |_, key| {
        black_box(store.range_digest(key, None));
    });

    let start = Instant::now();
    black_box(store.iter().map(|(_, pair)| pair.value.len()).sum::<usize>());
    report("iterate", keys, start.elapsed());
    let start = Instant::now();
    assert_eq!(store.audit(), store.range_digest(b"", None));
    report("audit", keys, start.elapsed());

    let mut file = Vec::new();
    let start = Instant::now();
    checkpoint::write(&store.view(), &CheckpointMeta::default(), &mut file).expect("memory");
    report("write a checkpoint", keys, start.elapsed());
    let start = Instant::now();
    black_box(checkpoint::read(&mut &file[..]).expect("what was just written"));
    report("read a checkpoint", keys, start.elapsed());

    let expiring: Vec<_> =
        order.iter().map(|number| put_until(*number, Deadline::At(1 + numbers.below(keys)))).collect();
    measure("overwrite, random order, with a deadline", &expiring, |index, command| {
        black_box(store.apply(Index::new(keys + 2 * ROUND + index), 0, command));
    });
    let start = Instant::now();
    while store.advance_clock(keys) > 0 {}
    report("expire, in order of random deadlines", keys, start.elapsed());
}
