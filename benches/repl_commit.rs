//! Three whole nodes in this process, with logs in memory and a network of channels: what replication costs when neither
//! disk nor network costs anything. Nothing is durable. (`raft_step` is the core alone, `cluster_write` has real disks.)
//!
//! A row's name says how many commands of 128 bytes one client submits at once, on the leader. It waits until they have been
//! applied there before it submits the next ones.

#[path = "repl/three_nodes.rs"]
mod three_nodes;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::three_nodes::{COMMAND_BYTES, ThreeNodes};

fn commits(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let nodes = ThreeNodes::start(dir.path());
    let mut group = criterion.benchmark_group("replica_of_3_in_memory_nothing_durable");
    for count in [1_usize, 4, 16, 64, 256, 1024] {
        let bytes = (count * COMMAND_BYTES) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes });
        group.bench_function(BenchmarkId::new("commands_submitted_at_once", count), |bencher| {
            bencher.iter_custom(|batches| nodes.commit(count, batches));
        });
    }
    group.finish();
    nodes.shutdown();
}

criterion_group!(benches, commits);
criterion_main!(benches);
