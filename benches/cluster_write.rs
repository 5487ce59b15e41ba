//! Three nodes in this process, over TCP on loopback, each with its own log on disk: a write counts when a majority has
//! synced it and it is applied on the node that took it. Real fdatasync on every node.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_repl::types::NodeId;
use kv_repl::{Replica, ReplicaConfig, Role};
use kv_store::{Condition, Deadline, Op, Store};
use tokio::net::TcpListener;

const VALUE_BYTES: usize = 128;

async fn start(dir: &std::path::Path) -> Vec<Replica<Store>> {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
    }
    let addresses = listeners.iter().map(|listener| listener.local_addr().expect("bound").to_string());
    let peers: Vec<_> = (1..).map(NodeId::new).zip(addresses).collect();
    let mut nodes = Vec::new();
    for ((id, _), listener) in peers.iter().zip(listeners) {
        let config = ReplicaConfig::new(*id, dir.join(id.to_string()), peers.clone());
        nodes.push(Replica::open(config, listener).await.expect("node starts"));
    }
    while !nodes.iter().any(|node| node.status().role == Role::Leader) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    nodes.sort_by_key(|node| node.status().role != Role::Leader);
    nodes
}

fn puts(first: u64, count: u64) -> Vec<Bytes> {
    let put = |number: u64| {
        let key = format!("key:{:012}", number % 1_000_000);
        let value = [number as u8; VALUE_BYTES];
        let (condition, deadline) = (Condition::Always, Deadline::None);
        let op = Op::Put { key: key.as_bytes(), value: &value, condition, deadline, want_previous: false };
        Bytes::from(op.encode().expect("within limits"))
    };
    (first..first + count).map(put).collect()
}

fn writes(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let nodes = runtime.block_on(start(dir.path()));
    let mut next = 0;
    let mut group = criterion.benchmark_group("cluster_of_3_quorum_fdatasync");
    for (name, node) in [("through_leader", &nodes[0]), ("through_follower", &nodes[1])] {
        for batch in [1_u64, 16, 256] {
            group.throughput(Throughput::ElementsAndBytes { elements: batch, bytes: batch * VALUE_BYTES as u64 });
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                bencher.iter(|| {
                    let outcomes = runtime.block_on(node.submit(puts(next, batch)));
                    assert!(outcomes.iter().all(Result::is_ok), "every write is confirmed");
                    next += batch;
                });
            });
        }
    }
    group.finish();
    runtime.block_on(async {
        for node in &nodes {
            node.shutdown().await;
        }
    });
}

criterion_group!(benches, writes);
criterion_main!(benches);
