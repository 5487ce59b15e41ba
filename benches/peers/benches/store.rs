//! One operation at a time on ordered maps in memory, ours and others: see `kv_peers::maps`.
//!
//! `KV_BENCH_KEYS=10000000` takes another number of keys than a million, `KV_BENCH_VALUES=16,1024` other lengths of values than
//! 16, 128 and 1024 bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_peers::maps::{Kind, MAPS, Map, Random, Write, Zipf};

/// Writes and keys that are made ahead, at random, and then gone through again and again.
const PREPARED: usize = 500_000;
const SCANNED: usize = 100;

fn setting(name: &str, otherwise: &str) -> Vec<u64> {
    let text = std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    text.split(',').map(|word| word.parse().unwrap_or_else(|_| panic!("{name}: {word} is not a number"))).collect()
}

fn key(number: u64) -> [u8; 16] {
    // Spread over the whole range, each number another key.
    let mut key = [b'k'; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// A map that is filled, and what is done to it.
struct Filled {
    map: Box<dyn Map>,
    kind: Kind,
    value: Vec<u8>,
    keys: u64,
    writes: u64,
}

impl Filled {
    fn new(kind: Kind, keys: u64, value_bytes: usize) -> Filled {
        let mut filled = Filled { map: (kind.new)(), kind, value: vec![b'v'; value_bytes], keys, writes: 0 };
        for number in 0..keys {
            filled.write(&(kind.put)(&key(number), &vec![number as u8; value_bytes]));
        }
        filled
    }

    fn write(&mut self, write: &Write) {
        self.writes += 1;
        self.map.write(self.writes, write);
    }

    /// So many writes, prepared ones over and over.
    fn write_all(&mut self, prepared: &[Write], count: u64) -> Duration {
        let begun = Instant::now();
        for write in prepared.iter().cycle().take(count as usize) {
            self.write(write);
        }
        begun.elapsed()
    }

    fn puts(&self, numbers: impl Iterator<Item = u64>) -> Vec<Write> {
        numbers.map(|number| (self.kind.put)(&key(number), &self.value)).collect()
    }
}

fn uniform(keys: u64) -> impl Iterator<Item = u64> {
    let mut random = Random(1);
    std::iter::repeat_with(move || random.below(keys)).take(PREPARED)
}

fn zipfian(keys: u64) -> impl Iterator<Item = u64> {
    let (zipf, mut random) = (Zipf::new(keys), Random(1));
    // The frequent ones lie anywhere.
    std::iter::repeat_with(move || zipf.draw(&mut random).wrapping_mul(7919) % keys).take(PREPARED)
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    filled: &Filled,
    mut run: impl FnMut(u64) -> Duration,
) {
    group.bench_function(BenchmarkId::new(name, filled.kind.name), |bencher| bencher.iter_custom(&mut run));
}

fn operations(criterion: &mut Criterion) {
    let keys = setting("KV_BENCH_KEYS", "1000000")[0];
    for value_bytes in setting("KV_BENCH_VALUES", "16,128,1024") {
        for kind in MAPS {
            let mut group = criterion.benchmark_group(format!("store_in_memory_{keys}_keys_values_of_{value_bytes}"));
            group.throughput(Throughput::Elements(1));
            let mut filled = Filled::new(kind, keys, value_bytes as usize);
            for (how, numbers) in [("uniform", uniform(keys).collect::<Vec<_>>()), ("zipfian", zipfian(keys).collect())]
            {
                reads(&mut group, how, &filled, &numbers);
                overwrites(&mut group, how, &mut filled, &numbers);
            }
            comings_and_goings(&mut group, &mut filled);
            group.finish();
        }
    }
}

fn reads(group: &mut BenchmarkGroup<'_, WallTime>, how: &str, filled: &Filled, numbers: &[u64]) {
    let keys: Vec<[u8; 16]> = numbers.iter().map(|number| key(*number)).collect();
    let each = |count: u64, read: &dyn Fn(&[u8]) -> usize| {
        let begun = Instant::now();
        black_box(keys.iter().cycle().take(count as usize).map(|key| read(key)).sum::<usize>());
        begun.elapsed()
    };
    let get = |key: &[u8]| filled.map.get(key).unwrap_or_default();
    measure(group, &format!("get_{how}"), filled, |count| each(count, &get));
    let scan = |key: &[u8]| filled.map.scan(key, SCANNED);
    measure(group, &format!("scan_{SCANNED}_{how}"), filled, |count| each(count, &scan));
}

fn overwrites(group: &mut BenchmarkGroup<'_, WallTime>, how: &str, filled: &mut Filled, numbers: &[u64]) {
    let writes = filled.puts(numbers.iter().copied());
    group.bench_function(BenchmarkId::new(format!("overwrite_{how}"), filled.kind.name), |bencher| {
        bencher.iter_custom(|count| filled.write_all(&writes, count));
    });
    if filled.map.view().is_none() {
        return;
    }
    // One that is held all the time, and one that is taken anew every thousand writes.
    let view = filled.map.view();
    group.bench_function(BenchmarkId::new(format!("overwrite_{how}_under_a_view"), filled.kind.name), |bencher| {
        bencher.iter_custom(|count| filled.write_all(&writes, count));
    });
    drop(view);
    group.bench_function(BenchmarkId::new(format!("overwrite_{how}_a_view_every_1000"), filled.kind.name), |bencher| {
        bencher.iter_custom(|count| {
            let (mut view, begun) = (None, Instant::now());
            for (number, write) in writes.iter().cycle().take(count as usize).enumerate() {
                if number.is_multiple_of(1000) {
                    view = filled.map.view();
                }
                filled.write(write);
            }
            drop(view);
            begun.elapsed()
        });
    });
}

/// Keys that come and go at the same rate, so that the map stays as large as it is.
fn comings_and_goings(group: &mut BenchmarkGroup<'_, WallTime>, filled: &mut Filled) {
    let new = || (0..PREPARED as u64).map(|number| filled.keys + number);
    let puts = filled.puts(new());
    let removals: Vec<Write> = new().map(|number| (filled.kind.remove)(&key(number))).collect();
    for (name, is_put) in [("put_new", true), ("delete", false)] {
        group.bench_function(BenchmarkId::new(name, filled.kind.name), |bencher| {
            bencher.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for from in (0..count as usize).step_by(PREPARED) {
                    let part = (count as usize - from).min(PREPARED);
                    let put = filled.write_all(&puts[..part], part as u64);
                    let removed = filled.write_all(&removals[..part], part as u64);
                    took += if is_put { put } else { removed };
                }
                took
            });
        });
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
