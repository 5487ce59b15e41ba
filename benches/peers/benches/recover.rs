//! Opening a log that holds a lot, with all of it in the page cache: until it takes appends, and until every payload has
//! been read.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kv_peers::{Content, Depth, LOGS, Recovered, scratch, settle};

/// Bytes of the payloads that a log holds. The environment variable `PEERS_LOG_BYTES` gives another number.
const LOG_BYTES: u64 = 1 << 30;

fn open(criterion: &mut Criterion) {
    for_each_content(|name, content| measure(criterion, "recover_open", name, content, Depth::Open));
}

fn open_and_read_all(criterion: &mut Criterion) {
    for_each_content(|name, content| measure(criterion, "recover_open_and_read_all", name, content, Depth::ReadAll));
}

fn for_each_content(mut measure: impl FnMut(&str, Content)) {
    let bytes = std::env::var("PEERS_LOG_BYTES").map_or(LOG_BYTES, |bytes| bytes.parse().expect("a number of bytes"));
    for (name, payload_bytes) in [("256B", 256), ("4KiB", 4 << 10)] {
        measure(name, Content::of(payload_bytes, bytes));
    }
}

fn measure(criterion: &mut Criterion, group: &str, payload_name: &str, content: Content, depth: Depth) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Bytes(content.bytes())).sampling_mode(SamplingMode::Flat);
    for log in &LOGS {
        // Criterion calls the closure for every sample, and not at all for what is filtered out.
        let mut filled = None;
        group.bench_function(BenchmarkId::new(payload_name, log.name), |bencher| {
            let dir = filled.get_or_insert_with(|| {
                let dir = scratch(env!("CARGO_TARGET_TMPDIR"));
                (log.fill)(dir.path(), content);
                settle(dir.path());
                dir
            });
            bencher.iter_custom(|openings| (0..openings).map(|_| time(log, dir.path(), content, depth)).sum());
        });
    }
    group.finish();
}

/// Closing it is not counted.
fn time(log: &Recovered, dir: &Path, content: Content, depth: Depth) -> Duration {
    let start = Instant::now();
    let opened = (log.open)(dir, content, depth);
    let taken = start.elapsed();
    assert_eq!(opened.payload_bytes, content.bytes(), "all of it was found");
    taken
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(10));
    targets = open, open_and_read_all
}
criterion_main!(benches);
