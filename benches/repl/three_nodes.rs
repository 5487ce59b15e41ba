//! Three whole nodes in this process, with logs in memory and a network of channels.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_repl::transport::memory::MemoryNetwork;
use kv_repl::types::{Index, NodeId};
use kv_repl::{BoxError, CheckpointMeta, Replica, ReplicaConfig, Role, StateMachine};
use tokio::runtime::Runtime;

#[path = "memory_log.rs"]
mod memory_log;

use self::memory_log::MemoryLog;

/// Bytes of a command.
pub(crate) const COMMAND_BYTES: usize = 128;

/// Counts commands.
pub(crate) struct Counter(u64);

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

/// The nodes, and the runtime that they and their client run on.
pub(crate) struct ThreeNodes {
    runtime: Runtime,
    nodes: Arc<Vec<Replica<Counter>>>,
    leader: usize,
}

async fn start(dir: &Path) -> (Vec<Replica<Counter>>, usize) {
    let network = MemoryNetwork::new();
    let peers: Vec<_> = (1..=3).map(|id| (NodeId::new(id), format!("node-{id}"))).collect();
    let mut nodes: Vec<Replica<Counter>> = Vec::new();
    for (id, address) in &peers {
        let config = ReplicaConfig::new(*id, dir.join(address), peers.clone());
        let node = Replica::start(config, MemoryLog::default(), network.transport(address)).await;
        nodes.push(node.expect("the node starts"));
    }
    loop {
        if let Some(leader) = nodes.iter().position(|node| node.status().role == Role::Leader) {
            return (nodes, leader);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl ThreeNodes {
    /// With a leader. Their checkpoints go below `dir`.
    pub(crate) fn start(dir: &Path) -> ThreeNodes {
        let runtime = Runtime::new().expect("a runtime");
        let (nodes, leader) = runtime.block_on(start(dir));
        ThreeNodes { runtime, nodes: Arc::new(nodes), leader }
    }

    /// The time that one client, a task on the runtime of the nodes, takes for so many batches: it submits `count` commands
    /// at once on the leader, and waits until they are applied there before it submits the next.
    pub(crate) fn commit(&self, count: usize, batches: u64) -> Duration {
        let (nodes, leader) = (self.nodes.clone(), self.leader);
        let client = self.runtime.spawn(async move {
            let started = Instant::now();
            for _ in 0..batches {
                let outcomes = nodes[leader].submit(commands(count)).await;
                assert!(outcomes.iter().all(Result::is_ok), "all are confirmed");
            }
            started.elapsed()
        });
        self.runtime.block_on(client).expect("nothing panics")
    }

    /// Ends them.
    pub(crate) fn shutdown(&self) {
        self.runtime.block_on(async {
            for node in self.nodes.iter() {
                node.shutdown().await;
            }
        });
    }
}

/// As many commands.
fn commands(count: usize) -> Vec<Bytes> {
    vec![Bytes::from_static(&[7; COMMAND_BYTES]); count]
}
