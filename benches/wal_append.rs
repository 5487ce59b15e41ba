//! The log on a disk: appends, reads and truncations, and what the disk alone takes for as many bytes.
//!
//! The name of a row says when it counts. `fdatasync_each`: every append, of as many entries as the row says, has waited
//! for a sync of its own. `fdatasync_group_commit`: each appender has waited for the sync that covers its entry, which
//! it may share. `unsynced`: nothing is durable yet. `durable`: what is read was synced long ago.
//!
//! `floor` beside `log` is a bare loop of `pwrite` and `fdatasync` of as many bytes as the log writes for that append, in
//! whole pages, into a file really written with zeros.
//!
//! One appender drops what is old after 256 MiB, in the time of the sync that makes it durable.

mod wal;

use std::cell::LazyCell;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kv_wal::{Error, Handle, Index, Log, Options, Wal};
use tempfile::TempDir;

use crate::wal::{Appender, KIND, Shape, TERM, all, batch_bytes, fill, full_or_brief, options, scratch};

const ONE: Shape = Shape { name: "1x256B", entries: 1, payload_bytes: 256 };
const THOUSAND: Shape = Shape { name: "1000x256B", entries: 1000, payload_bytes: 256 };
const SHAPES: [Shape; 6] = [
    Shape { name: "1x64B", entries: 1, payload_bytes: 64 },
    ONE,
    Shape { name: "1x4KiB", entries: 1, payload_bytes: 4 << 10 },
    Shape { name: "1x64KiB", entries: 1, payload_bytes: 64 << 10 },
    Shape { name: "16x256B", entries: 16, payload_bytes: 256 },
    Shape { name: "256x256B", entries: 256, payload_bytes: 256 },
];
const BURST_APPENDS: u64 = 8192;
/// Appends of a burst between one write and the next: a batch of about 600 KB.
const BURST_WRITE_APPENDS: u64 = 2048;

/// One appender, and the floor.
fn append_synced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append_fdatasync_each");
    group.sampling_mode(SamplingMode::Flat);
    for shape in SHAPES {
        group.throughput(throughput(shape));
        // Criterion calls a closure for every sample, and not at all for what is filtered out.
        let mut appender = LazyCell::new(|| Appender::open(shape, options()));
        group.bench_function(BenchmarkId::new("log", shape.name), |bencher| {
            let appender = LazyCell::force_mut(&mut appender);
            bencher.iter(|| {
                appender.append();
                appender.sync();
            });
        });
        let mut floor = LazyCell::new(|| Floor::of(shape));
        group.bench_function(BenchmarkId::new("floor", shape.name), |bencher| {
            let floor = LazyCell::force_mut(&mut floor);
            bencher.iter(|| floor.write_synced());
        });
    }
    group.finish();
}

/// Writes what a log writes for an append, from the start of a file of zeros to its end and again.
struct Floor {
    file: File,
    file_bytes: u64,
    pages: Vec<u8>,
    offset: u64,
    _dir: TempDir,
}

impl Floor {
    fn of(shape: Shape) -> Floor {
        let Options { segment_bytes, .. } = options();
        let dir = scratch();
        let file = File::create_new(dir.path().join("floor")).expect("file opens");
        let zeros = vec![0; 256 << 10];
        for offset in (0..segment_bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).expect("zeros written");
        }
        file.sync_all().expect("zeros synced");
        Floor { file, file_bytes: segment_bytes, pages: vec![7; batch_bytes(shape) as usize], offset: 0, _dir: dir }
    }

    fn write_synced(&mut self) {
        let bytes = self.pages.len() as u64;
        if self.offset + bytes > self.file_bytes {
            self.offset = 0;
        }
        self.file.write_all_at(&self.pages, self.offset).expect("written");
        self.file.sync_data().expect("synced");
        self.offset += bytes;
    }
}

/// Appenders that come at once, each with one entry at a time.
fn append_together(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append_fdatasync_group_commit");
    group.sampling_mode(SamplingMode::Flat).throughput(throughput(ONE));
    for appenders in [1, 8, 64] {
        let wal = LazyCell::new(|| {
            let dir = scratch();
            (Wal::open(dir.path(), options()).expect("log opens").0, dir)
        });
        group.bench_function(BenchmarkId::new("wal_1x256B_appenders", appenders), |bencher| {
            let handle = wal.0.handle();
            bencher.iter_custom(|appends| {
                let taken = time_together(&handle, appenders, appends);
                handle.truncate_prefix(handle.reader().last()).wait().expect("truncated");
                taken
            });
        });
    }
    group.finish();
}

/// From before the first append to after the last.
fn time_together(handle: &Handle, appenders: u64, appends: u64) -> Duration {
    let each = (appends / appenders).max(1);
    let payload = Bytes::from(vec![7; ONE.payload_bytes]);
    let barrier = Barrier::new(appenders as usize + 1);
    let append = || {
        barrier.wait();
        for _ in 0..each {
            handle.append_payloads(TERM, 0, KIND, vec![payload.clone()]).wait().expect("appended and synced");
        }
    };
    let start = thread::scope(|scope| {
        (0..appenders).for_each(|_| drop(scope.spawn(append)));
        let start = Instant::now();
        barrier.wait();
        start
    });
    // As many were asked for, not as many as the threads could share evenly.
    start.elapsed().mul_f64(appends as f64 / (each * appenders) as f64)
}

/// Appends one after the other, written now and then, and synced when the time has been taken.
fn append_unsynced(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append_unsynced");
    group.throughput(throughput(Shape { entries: BURST_APPENDS, ..ONE }));
    let mut appender = LazyCell::new(|| Appender::open(ONE, options()));
    group.bench_function(BenchmarkId::new("log_burst_of_1x256B", BURST_APPENDS), |bencher| {
        let appender = LazyCell::force_mut(&mut appender);
        bencher.iter_custom(|bursts| (0..bursts).map(|_| time_burst(appender)).sum());
    });
    group.finish();
}

fn time_burst(appender: &mut Appender) -> Duration {
    loop {
        let syncs = appender.log.stats().syncs;
        let start = Instant::now();
        for append in 1..=BURST_APPENDS {
            appender.append();
            if append % BURST_WRITE_APPENDS == 0 {
                appender.log.write().expect("written");
            }
        }
        let taken = start.elapsed();
        // A burst that does not fit into its segment is another matter: a rotation syncs.
        let counts = appender.log.stats().syncs == syncs;
        appender.sync();
        if counts {
            return taken;
        }
    }
}

/// From the page cache, every checksum verified. A thousand records also lie in the caches of the processor.
fn read(criterion: &mut Criterion) {
    let records: u64 = full_or_brief(200_000, 20_000);
    let filled = LazyCell::new(|| {
        let dir = fill(THOUSAND, records / THOUSAND.entries);
        (Log::open(dir.path(), options()).expect("log opens").0, dir)
    });
    let mut group = criterion.benchmark_group(format!("wal_read_durable_{records}_records"));
    group.throughput(throughput(Shape { entries: records, ..ONE }));
    group.bench_function("iter_all/256B", |bencher| {
        let reader = filled.0.reader();
        bencher.iter(|| reader.iter(all(records)).map(|entry| entry.expect("sound").payload().len()).sum::<usize>());
    });
    group.throughput(throughput(ONE));
    for (name, among) in [("get_random", records), ("get_random_of_1000", 1000)] {
        group.bench_function(BenchmarkId::new(name, "256B"), |bencher| {
            let reader = filled.0.reader();
            let mut random = 1_u64;
            bencher.iter(|| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                black_box(reader.get(Index::new((random >> 33) % among + 1)).expect("sound"))
            });
        });
    }
    group.finish();
}

/// Either end of the log, until the new end is durable. What is removed had been synced.
fn truncate(criterion: &mut Criterion) {
    type Truncate = fn(&mut Log) -> Result<(), Error>;
    let ends: [(&str, Truncate); 2] =
        [("suffix", |log| log.truncate_suffix(log.base().index)), ("prefix", |log| log.truncate_prefix(log.last()))];
    let mut group = criterion.benchmark_group("wal_truncate_fdatasync_each");
    group.sampling_mode(SamplingMode::Flat).throughput(throughput(THOUSAND));
    for (name, truncate) in ends {
        let mut appender = LazyCell::new(|| Appender::open(THOUSAND, options()));
        group.bench_function(BenchmarkId::new(name, THOUSAND.name), |bencher| {
            let appender = LazyCell::force_mut(&mut appender);
            let mut time = || {
                appender.append();
                appender.log.sync().expect("synced");
                let start = Instant::now();
                truncate(&mut appender.log).expect("staged");
                appender.log.sync().expect("synced");
                start.elapsed()
            };
            bencher.iter_custom(|truncations| (0..truncations).map(|_| time()).sum());
        });
    }
    group.finish();
}

fn throughput(Shape { entries, payload_bytes, .. }: Shape) -> Throughput {
    Throughput::ElementsAndBytes { elements: entries, bytes: entries * payload_bytes as u64 }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(full_or_brief(3000, 100)))
        .measurement_time(Duration::from_millis(full_or_brief(6000, 500)));
    targets = append_synced, append_together, append_unsynced, read, truncate
}
criterion_main!(benches);
