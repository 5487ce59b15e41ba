//! Commands a second of three Raft cores, and of three whole nodes, in one process, nothing durable: for each kind and each
//! size of a batch.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_peers::cores::{COMMAND_BYTES, CORES};
use kv_peers::nodes::NODES;

const COUNTS: [usize; 6] = [1, 4, 16, 64, 256, 1024];

fn group<'a>(criterion: &'a mut Criterion, what: &str, count: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("3_{what}_in_memory_nothing_durable/{count}_at_once"));
    let bytes = (count * COMMAND_BYTES) as u64;
    group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes });
    group
}

fn commit_of_cores(criterion: &mut Criterion) {
    for count in COUNTS {
        let mut group = group(criterion, "cores", count);
        for kind in &CORES {
            let mut cores = (kind.start)();
            group.bench_function(BenchmarkId::from_parameter(kind.name), |bencher| {
                bencher.iter(|| cores.commit(count));
            });
        }
        group.finish();
    }
}

fn commit_of_nodes(criterion: &mut Criterion) {
    for count in COUNTS {
        let mut group = group(criterion, "nodes", count);
        for kind in &NODES {
            let nodes = (kind.start)();
            group.bench_function(BenchmarkId::from_parameter(kind.name), |bencher| {
                bencher.iter_custom(|batches| nodes.commit(count, batches));
            });
            nodes.shutdown();
        }
        group.finish();
    }
}

criterion_group!(benches, commit_of_cores, commit_of_nodes);
criterion_main!(benches);
