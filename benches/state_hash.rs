//! What the state hash costs beside the writes that keep it current, and what it is good for: the hash of all, of a range,
//! finding what differs, and checkpoints that are verified by it. In memory.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kv_store::diff::diff;
use kv_store::{CheckpointMeta, Condition, Deadline, Index, Op, Store, checkpoint};

const VALUE_BYTES: usize = 128;
const DIFFERENCES: u64 = 10;

fn keys() -> u64 {
    if std::env::var_os("KV_BENCH_BRIEF").is_some() { 10_000 } else { 1_000_000 }
}

fn key(number: u64) -> [u8; 16] {
    // Spread over the whole range, each number another key.
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn put(store: &mut Store, number: u64, value: u8) {
    let (condition, deadline) = (Condition::Always, Deadline::None);
    let op = Op::Put { key: &key(number), value: &[value; VALUE_BYTES], condition, deadline, want_previous: false };
    store.apply(Index::new(number + 1), 0, &op.encode().expect("within limits"));
}

fn filled(keys: u64) -> Store {
    let mut store = Store::new([1; 32]);
    (0..keys).for_each(|number| put(&mut store, number, number as u8));
    store
}

fn hashes(criterion: &mut Criterion) {
    let keys = keys();
    let mut store = filled(keys);
    let mut group = criterion.benchmark_group(format!("state_hash_{keys}_keys_of_16_values_of_128_bytes"));
    group.bench_function("of_all", |bencher| bencher.iter(|| black_box(store.digest())));
    let mut number = 0_u64;
    group.bench_function("of_a_range", |bencher| {
        bencher.iter(|| {
            number += 1;
            let [from, to] = [7919, 104_729].map(|step| key(number.wrapping_mul(step) % keys));
            black_box(store.range_digest(&from.min(to), Some(&from.max(to))))
        });
    });

    let mut file = Vec::new();
    checkpoint::write(&store.view(), &CheckpointMeta::default(), &mut file).expect("memory");
    group.throughput(Throughput::ElementsAndBytes { elements: keys, bytes: file.len() as u64 });
    group.sample_size(10);
    group.bench_function("audit", |bencher| bencher.iter(|| black_box(store.audit())));
    group.bench_function("checkpoint_write", |bencher| {
        bencher.iter(|| {
            file.clear();
            checkpoint::write(&store.view(), &CheckpointMeta::default(), &mut file).expect("memory");
        });
    });
    group.bench_function("checkpoint_load", |bencher| {
        bencher.iter_with_large_drop(|| checkpoint::read(&mut &file[..]).expect("whole"));
    });

    let (mut other, _) = checkpoint::read(&mut &file[..]).expect("whole");
    (0..DIFFERENCES).for_each(|number| put(&mut other, number * (keys / DIFFERENCES), b'x'));
    put(&mut store, keys, b'x');
    put(&mut other, keys, b'x');
    group.throughput(Throughput::Elements(DIFFERENCES));
    group.bench_function(format!("diff_of_{DIFFERENCES}"), |bencher| {
        let (mut a, mut b) = (store.view(), other.view());
        bencher.iter(|| {
            let found = diff(&mut a, &mut b, usize::MAX).expect("two views");
            assert_eq!(found.len() as u64, DIFFERENCES);
        });
    });
    group.finish();
}

criterion_group!(benches, hashes);
criterion_main!(benches);
