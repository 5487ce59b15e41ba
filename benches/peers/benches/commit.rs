//! Commands a second of three Raft cores in one process, nothing durable, for each core and each size of a batch.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_peers::cores::{COMMAND_BYTES, CORES};

fn commit(criterion: &mut Criterion) {
    for count in [1_usize, 4, 16, 64, 256, 1024] {
        let mut group = criterion.benchmark_group(format!("3_cores_in_memory_nothing_durable/{count}_at_once"));
        let bytes = (count * COMMAND_BYTES) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes });
        for kind in &CORES {
            let mut cores = (kind.start)();
            group.bench_function(BenchmarkId::from_parameter(kind.name), |bencher| {
                bencher.iter(|| cores.commit(count));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
