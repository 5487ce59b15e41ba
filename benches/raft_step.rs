//! The Raft core alone: three of them in this process, on disks and over a network that take no time. What is measured is
//! how long the cores think about entries until all three have them committed, not what a cluster would do.
//!
//! A row's name says how many commands of 128 bytes are proposed at once. Nothing is durable: a write is called so as soon
//! as it is asked for. (`cluster_write` has real disks.)

#[path = "repl/three_cores.rs"]
mod three_cores;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::three_cores::{COMMAND_BYTES, ThreeCores, commands};

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_core_of_3_in_memory_nothing_durable");
    for count in [1_u64, 16, 64, 256, 1024] {
        let mut cores = ThreeCores::new(0);
        let proposals = commands(count as usize);
        group.throughput(Throughput::ElementsAndBytes { elements: count, bytes: count * COMMAND_BYTES as u64 });
        group.bench_function(BenchmarkId::new("commands_proposed_at_once", count), |bencher| {
            bencher.iter(|| cores.commit(&proposals));
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
