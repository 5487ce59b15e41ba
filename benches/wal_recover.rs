//! Opening a log of 1 GiB that was closed in order and lies in the page cache: until it takes appends, and until every
//! entry has been read as well. All of it is durable, and every checksum is verified, once by opening and once by reading.
//!
//! Bytes are those of the batches in the log's files. Closing it again is not timed.

mod wal;

use std::cell::LazyCell;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kv_wal::Log;

use crate::wal::{Shape, all, batch_bytes, fill, full_or_brief, options};

/// Entries of each append make up a mebibyte.
const SHAPES: [Shape; 2] = [
    Shape { name: "256B", entries: 4096, payload_bytes: 256 },
    Shape { name: "4KiB", entries: 256, payload_bytes: 4 << 10 },
];

fn recover(criterion: &mut Criterion) {
    let log_bytes: u64 = full_or_brief(1 << 30, 32 << 20);
    let mut group = criterion.benchmark_group(format!("wal_recover_durable_warm_{}MiB", log_bytes >> 20));
    group.sampling_mode(SamplingMode::Flat);
    for shape in SHAPES {
        let appends = log_bytes / batch_bytes(shape);
        group.throughput(Throughput::Bytes(appends * batch_bytes(shape)));
        let dir = LazyCell::new(|| fill(shape, appends));
        for (name, read) in [("open", open as fn(&Path, u64) -> Log), ("open_and_read_all", open_and_read_all)] {
            group.bench_function(BenchmarkId::new(name, shape.name), |bencher| {
                let (dir, entries) = (dir.path(), appends * shape.entries);
                bencher.iter_custom(|openings| (0..openings).map(|_| time(|| read(dir, entries))).sum());
            });
        }
    }
    group.finish();
}

fn open(dir: &Path, entries: u64) -> Log {
    let (log, recovery) = Log::open(dir, options()).expect("log opens");
    assert_eq!(
        (recovery.entries_recovered, recovery.entries_rewritten),
        (entries, 0),
        "all of it, and closed in order"
    );
    log
}

fn open_and_read_all(dir: &Path, entries: u64) -> Log {
    let log = open(dir, entries);
    let read = log.reader().iter(all(entries)).inspect(|entry| assert!(entry.is_ok(), "{entry:?}")).count();
    assert_eq!(read as u64, entries, "all of it");
    log
}

fn time(open: impl FnOnce() -> Log) -> Duration {
    let start = Instant::now();
    let log = open();
    let taken = start.elapsed();
    drop(log);
    taken
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(full_or_brief(10, 1)));
    targets = recover
}
criterion_main!(benches);
