//! What a store takes in memory beside keys and values, where keys came in random order.
//!
//! `cargo run --release -p kv-store --example memory -- 1000000 128` for so many keys of 16 bytes, and values of so many.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::fs;

use kv_store::{Condition, Deadline, Index, Op, Store};

/// Anonymous memory of this process, as Linux tells it.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux tells it");
    let kibibytes = line.split_whitespace().nth(1).expect("a number");
    kibibytes.parse::<u64>().expect("a number") * 1024
}

fn main() {
    let argument = |at, otherwise| std::env::args().nth(at).map_or(otherwise, |text| text.parse().expect("a number"));
    let (keys, value_bytes): (u64, u64) = (argument(1, 1_000_000), argument(2, 128));
    let before = anonymous_bytes();
    let mut store = Store::new([7; 32]);
    let value = vec![b'v'; value_bytes as usize];
    for number in 0..keys {
        let key = [number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), *b"suffix!!"].concat();
        let (condition, deadline) = (Condition::Always, Deadline::None);
        let op = Op::Put { key: &key, value: &value, condition, deadline, want_previous: false };
        store.apply(Index::new(number + 1), 0, &op.encode().expect("within the limits"));
    }
    let taken = anonymous_bytes() - before;
    println!(
        "{keys} keys, values of {value_bytes} bytes: {:.1} bytes a pair, {:.1} of them beside key and value",
        taken as f64 / keys as f64,
        (taken - store.bytes()) as f64 / keys as f64
    );
}
