//! Durable appends: our log, its rivals and the floor, in one process and one run.
//!
//! Every figure is for appends that were durable when they counted: `synced` in a name says that each appender waited
//! for the sync that covers its append before it went on.

use std::time::{Duration, Instant};
use std::{sync::Barrier, thread};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kv_peers::{ALONE, Engine, Rival, Shape, TOGETHER, payload, scratch};

/// One thread, which does nothing but append: what a single append costs.
fn alone(criterion: &mut Criterion) {
    for (name, payload_bytes) in [("64B", 64), ("256B", 256), ("4KiB", 4 << 10), ("64KiB", 64 << 10)] {
        let shape = Shape { payload_bytes, appenders: 1 };
        measure(criterion, "append_synced_1_appender", name, &ALONE, shape);
    }
}

/// Threads that append at once: what an engine makes of appends that can share a sync. With one thread, what handing over
/// costs.
fn together(criterion: &mut Criterion) {
    for appenders in [1, 8, 64] {
        let shape = Shape { payload_bytes: 256, appenders };
        measure(criterion, &format!("append_synced_group_commit_threads_{appenders}"), "256B", &TOGETHER, shape);
    }
}

fn measure(criterion: &mut Criterion, group: &str, payload_name: &str, engines: &[Engine], shape: Shape) {
    let mut group = criterion.benchmark_group(group);
    // Equal samples: with few appends in a sample, most of the threads would have none.
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    let payload = payload(shape.payload_bytes);
    for engine in engines {
        // Criterion calls the closure for every sample, and not at all for what is filtered out.
        let mut started = None;
        group.bench_function(BenchmarkId::new(payload_name, engine.name), |bencher| {
            let (rival, _) = started.get_or_insert_with(|| {
                let dir = scratch(env!("CARGO_TARGET_TMPDIR"));
                (engine.start_settled(dir.path(), shape), dir)
            });
            bencher.iter_custom(|appends| match shape.appenders {
                1 => time_alone(&**rival, appends, &payload),
                threads => time_together(&**rival, threads, appends, &payload),
            });
        });
    }
    group.finish();
}

fn time_alone(rival: &dyn Rival, appends: u64, payload: &Bytes) -> Duration {
    let start = Instant::now();
    (0..appends).for_each(|_| rival.append_synced(0, payload));
    start.elapsed()
}

/// From the start of the first append to the end of the last.
fn time_together(rival: &dyn Rival, threads: usize, appends: u64, payload: &Bytes) -> Duration {
    let each = (appends / threads as u64).max(1);
    let barrier = &Barrier::new(threads);
    let append = |appender| {
        move || {
            barrier.wait();
            let start = Instant::now();
            (0..each).for_each(|_| rival.append_synced(appender, payload));
            (start, Instant::now())
        }
    };
    let times: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|appender| scope.spawn(append(appender))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let start = times.iter().map(|(start, _)| *start).min().expect("a thread");
    let end = times.iter().map(|(_, end)| *end).max().expect("a thread");
    // As many were asked for, not as many as the threads could share evenly.
    (end - start).mul_f64(appends as f64 / (each * threads as u64) as f64)
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(6));
    targets = alone, together
}
criterion_main!(benches);
