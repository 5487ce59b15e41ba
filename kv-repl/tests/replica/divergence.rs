//! A replica whose state goes wrong finds out by itself, and serves nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kv_repl::transport::memory::MemoryNetwork;
use kv_repl::types::{Index, NodeId};
use kv_repl::{BoxError, CheckpointMeta, ReadError, Replica, ReplicaConfig, Role, StateMachine, WriteError};

use crate::eventually;

/// Set once: whoever applies a command next counts it twice. That is a state machine that is not deterministic.
static NEXT_IS_WRONG: AtomicBool = AtomicBool::new(false);

/// Counts commands.
struct Counter(u64);

impl StateMachine for Counter {
    type Outcome = u64;
    type View = u64;

    fn create(_secret: [u8; 32]) -> Counter {
        Counter(0)
    }

    fn apply(&mut self, _index: Index, _stamp_ms: u64, _command: &Bytes) -> u64 {
        self.0 += 1 + u64::from(NEXT_IS_WRONG.swap(false, Ordering::SeqCst));
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

    fn save(_view: &u64, _meta: &CheckpointMeta, _out: &mut dyn io::Write) -> io::Result<()> {
        Err(io::Error::other("not needed here"))
    }

    fn load(_input: &mut dyn io::Read) -> Result<(Counter, CheckpointMeta), BoxError> {
        Err("not needed here".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_differs_serves_nobody_and_does_not_lead() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let network = MemoryNetwork::new();
    let peers: Vec<_> = (1..=3).map(|id| (NodeId::new(id), format!("node-{id}"))).collect();
    let mut nodes = Vec::new();
    for (id, address) in &peers {
        let home = dir.path().join(address);
        let (log, _) = kv_wal::Log::open(&home.join("log"), kv_wal::Options::default()).expect("log opens");
        let mut config = ReplicaConfig::new(*id, home.join("checkpoints"), peers.clone());
        config.compare_interval = Duration::from_millis(50);
        let node = Replica::<Counter>::start(config, log, network.transport(address)).await.expect("the node starts");
        nodes.push(Arc::new(node));
    }
    nodes[0].submit(vec![Bytes::from_static(b"one")]).await.pop().expect("an answer").expect("confirmed");
    let compared = eventually("all have compared nothing wrong", || {
        nodes
            .iter()
            .all(|node| node.status().applied > Index::new(6))
            .then(|| nodes.iter().any(|node| node.is_diverged()))
    });
    assert!(!compared.await);
    NEXT_IS_WRONG.store(true, Ordering::SeqCst);
    nodes[0].submit(vec![Bytes::from_static(b"two")]).await.pop().expect("an answer").expect("confirmed");
    let wrong = eventually("one finds out", || nodes.iter().position(|node| node.is_diverged())).await;
    assert_eq!(nodes[wrong].barrier().await, Err(ReadError::Diverged));
    let refused = nodes[wrong].submit(vec![Bytes::from_static(b"three")]).await;
    assert_eq!(refused, [Err(WriteError::Diverged)]);
    // Also if it led: the first to apply is often the leader.
    let others: Vec<usize> = (0..3).filter(|node| *node != wrong).collect();
    eventually("another leads", || others.iter().any(|node| nodes[*node].status().role == Role::Leader).then_some(()))
        .await;
    for other in others {
        assert!(!nodes[other].is_diverged());
        nodes[other].submit(vec![Bytes::from_static(b"four")]).await.pop().expect("an answer").expect("confirmed");
        nodes[other].barrier().await.expect("it serves");
    }
    for node in &nodes {
        node.shutdown().await;
    }
    // It has not forgotten it: what it has on its disk would be served again.
    let (id, address) = peers[wrong].clone();
    let home = dir.path().join(&address);
    let (log, _) = kv_wal::Log::open(&home.join("log"), kv_wal::Options::default()).expect("log opens");
    let config = ReplicaConfig::new(id, home.join("checkpoints"), peers.clone());
    let again = Replica::<Counter>::start(config, log, network.transport(&address)).await.expect("it starts");
    assert!(again.is_diverged());
    assert_eq!(again.submit(vec![Bytes::from_static(b"five")]).await, [Err(WriteError::Diverged)]);
    again.shutdown().await;
}
