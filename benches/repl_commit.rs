//! Three whole nodes in this process, with logs in memory and a network of channels: what replication costs when neither
//! disk nor network costs anything. Nothing is durable. (`raft_step` is the core alone, `cluster_write` has real disks.)
//!
//! A row's name says how many commands of 128 bytes one client submits at once, on the leader. It waits until they have been
//! applied there before it submits the next ones.

#[path = "repl/memory_log.rs"]
mod memory_log;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_repl::transport::memory::MemoryNetwork;
use kv_repl::types::{Index, NodeId};
use kv_repl::{BoxError, CheckpointMeta, Replica, ReplicaConfig, Role, StateMachine};
use tokio::runtime::Runtime;

use self::memory_log::MemoryLog;

const COMMAND_BYTES: usize = 128;

/// Counts commands.
struct Counter(u64);

impl StateMachine for Counter {
    type Outcome = u64;
    type View = u64;

    fn create(_secret: [u8; 32]) -> Counter {
        Counter(0)
    }

    fn apply(&mut self, _index: Index, _stamp_ms: u64, _command: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn view(&self) -> u64 {
        self.0
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&self.0.to_le_bytes());
        digest
    }

    fn save(view: &u64, meta: &CheckpointMeta, out: &mut dyn io::Write) -> io::Result<()> {
        for number in [*view, meta.last.term.get(), meta.last.index.get()] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&meta.blob)
    }

    fn load(_input: &mut dyn io::Read) -> Result<(Counter, CheckpointMeta), BoxError> {
        Err("no node starts again here".into())
    }
}

async fn start(dir: &std::path::Path) -> Vec<Replica<Counter>> {
    let network = MemoryNetwork::new();
    let peers: Vec<_> = (1..=3).map(|id| (NodeId::new(id), format!("node-{id}"))).collect();
    let mut nodes = Vec::new();
    for (id, address) in &peers {
        let config = ReplicaConfig::new(*id, dir.join(address), peers.clone());
        let node = Replica::start(config, MemoryLog::default(), network.transport(address)).await;
        nodes.push(node.expect("the node starts"));
    }
    nodes
}

async fn leader(nodes: &[Replica<Counter>]) -> &Replica<Counter> {
    loop {
        if let Some(leader) = nodes.iter().find(|node| node.status().role == Role::Leader) {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn commits(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("temporary directory");
    let nodes = runtime.block_on(start(dir.path()));
    let leader = runtime.block_on(leader(&nodes));
    let mut group = criterion.benchmark_group("replica_of_3_in_memory_nothing_durable");
    for count in [1_u64, 4, 16, 64, 256, 1024] {
        let commands = vec![Bytes::from_static(&[7; COMMAND_BYTES]); count as usize];
        group.throughput(Throughput::ElementsAndBytes { elements: count, bytes: count * COMMAND_BYTES as u64 });
        group.bench_function(BenchmarkId::new("commands_submitted_at_once", count), |bencher| {
            bencher.iter(|| {
                let outcomes = runtime.block_on(leader.submit(commands.clone()));
                assert!(outcomes.iter().all(Result::is_ok), "all are confirmed");
            });
        });
    }
    group.finish();
    runtime.block_on(async {
        for node in &nodes {
            node.shutdown().await;
        }
    });
}

criterion_group!(benches, commits);
criterion_main!(benches);
