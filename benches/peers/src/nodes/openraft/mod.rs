//! openraft 0.9, with the log and the state machine that it asks its users to write.

mod log;
mod machine;
mod network;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::runtime::Runtime;

use self::log::MemoryLog;
use self::machine::Counter;
use self::network::Network;
use super::{COMMAND_BYTES, Nodes};

/// A command. openraft wants to print it when it logs.
#[derive(Clone)]
pub struct Command(Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    /// What openraft is made for here.
    pub Types:
        D = Command,
        R = u64,
        SnapshotData = u64,
);

struct Running {
    runtime: Runtime,
    nodes: Vec<Raft<Types>>,
    leader: usize,
}

/// Ours has these times too; batches as large as ours, and a log that is forgotten as early as those of the cores.
fn config() -> Config {
    let config = Config {
        election_timeout_min: 500,
        election_timeout_max: 1000,
        heartbeat_interval: 100,
        max_payload_entries: 1024,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(8192),
        ..Config::default()
    };
    config.validate().expect("the settings make sense")
}

async fn start_nodes() -> Vec<Raft<Types>> {
    let (network, config) = (Network::default(), Arc::new(config()));
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let (log, machine) = (MemoryLog::default(), Counter::default());
        let node = Raft::new(id, config.clone(), network.clone(), log, machine).await.expect("the node starts");
        network.add(id, node.clone());
        nodes.push(node);
    }
    nodes[0].initialize(BTreeSet::from([1, 2, 3])).await.expect("it is new");
    nodes
}

/// Three nodes with a leader.
pub fn start() -> Box<dyn Nodes> {
    let runtime = Runtime::new().expect("a runtime");
    let (nodes, leader) = runtime.block_on(async {
        let nodes = start_nodes().await;
        loop {
            if let Some(leader) = nodes[0].current_leader().await {
                return (nodes, leader as usize - 1);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    Box::new(Running { runtime, nodes, leader })
}

async fn commit(leader: &Raft<Types>, count: usize) {
    let mut waiting = Vec::with_capacity(count);
    for _ in 0..count {
        let command = Command(Bytes::from_static(&[7; COMMAND_BYTES]));
        waiting.push(leader.client_write_ff(command).await.expect("the node runs"));
    }
    for answer in waiting {
        answer.await.expect("the node runs").expect("it leads");
    }
}

impl Nodes for Running {
    fn commit(&self, count: usize, batches: u64) -> Duration {
        let leader = self.nodes[self.leader].clone();
        let client = self.runtime.spawn(async move {
            let started = Instant::now();
            for _ in 0..batches {
                commit(&leader, count).await;
            }
            started.elapsed()
        });
        self.runtime.block_on(client).expect("nothing panics")
    }

    fn shutdown(self: Box<Self>) {
        self.runtime.block_on(async {
            for node in &self.nodes {
                node.shutdown().await.expect("its tasks end");
            }
        });
    }
}
