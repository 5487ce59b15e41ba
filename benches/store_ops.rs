//! The store in memory: one operation at a time, the state hash kept current by each write.

use std::cell::Cell;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kv_store::{Condition, Deadline, Index, Op, Store};

const VALUE_BYTES: usize = 128;

fn keys() -> u64 {
    if std::env::var_os("KV_BENCH_BRIEF").is_some() { 10_000 } else { 1_000_000 }
}

fn key(number: u64) -> [u8; 16] {
    // Spread over the whole range, each number another key.
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn put(number: u64) -> Vec<u8> {
    let value = [number as u8; VALUE_BYTES];
    let (condition, deadline) = (Condition::Always, Deadline::None);
    let op = Op::Put { key: &key(number), value: &value, condition, deadline, want_previous: false };
    op.encode().expect("within limits")
}

fn filled(keys: u64) -> Store {
    let mut store = Store::new([1; 32]);
    for number in 0..keys {
        store.apply(Index::new(number + 1), 0, &put(number));
    }
    store
}

fn operations(criterion: &mut Criterion) {
    let keys = keys();
    let mut store = filled(keys);
    let next = Cell::new(keys);
    let number = || {
        next.set(next.get() + 1);
        next.get()
    };
    let mut group = criterion.benchmark_group(format!("store_in_memory_{keys}_keys_of_16_values_of_128_bytes"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("overwrite", |bencher| {
        bencher.iter_batched(
            || put(number().wrapping_mul(7919) % keys),
            |op| store.apply(Index::new(next.get()), 0, &op),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("put_new", |bencher| {
        bencher.iter_batched(|| put(number()), |op| store.apply(Index::new(next.get()), 0, &op), BatchSize::SmallInput);
    });
    let mut read = 0_u64;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            read += 1;
            black_box(store.get(&key(read.wrapping_mul(7919) % keys)).is_some())
        });
    });
    group.bench_function("view", |bencher| bencher.iter(|| black_box(store.view())));
    group.bench_function("state_digest", |bencher| bencher.iter(|| black_box(store.digest())));
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan_100", |bencher| {
        bencher.iter(|| {
            read += 1;
            black_box(store.range(&key(read.wrapping_mul(7919) % keys), None).take(100).count())
        });
    });
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
