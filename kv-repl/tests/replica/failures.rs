//! A single node whose parts fail: it says so and ends, or waits and goes on, but never leaves anybody waiting for ever.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_repl::transport::memory::MemoryNetwork;
use kv_repl::transport::tcp::Tcp;
use kv_repl::types::NodeId;
use kv_repl::{CheckpointMeta, Replica, ReplicaConfig, StartError, StateMachine, WriteError};
use kv_store::Store;
use tempfile::TempDir;

use crate::log::{Disk, DiskSwitch, FaultyLog};
use crate::{PATIENCE, put, read, write};

struct Alone {
    dir: TempDir,
    disk: DiskSwitch,
    config: ReplicaConfig,
}

impl Alone {
    fn new() -> Alone {
        let dir = tempfile::tempdir().expect("temporary directory");
        let peers = vec![(NodeId::new(1), "alone".to_owned())];
        let config = ReplicaConfig::new(NodeId::new(1), dir.path().join("checkpoints"), peers);
        Alone { dir, disk: DiskSwitch::default(), config }
    }

    fn log(&self) -> FaultyLog {
        let options = kv_wal::Options { segment_bytes: 1 << 20, ..kv_wal::Options::default() };
        let (inner, _) = kv_wal::Log::open(&self.dir.path().join("log"), options).expect("log opens");
        FaultyLog { inner, disk: self.disk.clone() }
    }

    async fn start<S: StateMachine>(&self) -> Result<Replica<S>, StartError> {
        Replica::start(self.config.clone(), self.log(), MemoryNetwork::new().transport("alone")).await
    }
}

async fn why_stopped<S: StateMachine>(node: &Replica<S>) -> String {
    let stopped = tokio::time::timeout(PATIENCE, node.stopped()).await.expect("it ends");
    tokio::time::timeout(PATIENCE, node.shutdown()).await.expect("there is nothing left to wait for");
    stopped.expect("nobody asked it to stop")
}

/// Writes until it is confirmed.
async fn confirmed(node: &Replica<Store>, value: &str) {
    let started = Instant::now();
    while let Err(error) = write(node, put("key", value)).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_contradict_each_other_are_refused() {
    let mut alone = Alone::new();
    alone.config.raft.heartbeat_interval = alone.config.raft.election_timeout_max;
    let refused = alone.start::<Store>().await.err().expect("no election could ever be won");
    assert!(matches!(refused, StartError::Options(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_log_ends_the_node() {
    let alone = Alone::new();
    let node = alone.start::<Store>().await.expect("the node starts");
    write(&node, put("key", "value")).await.expect("confirmed");
    alone.disk.set(Disk::Panics);
    assert!(write(&node, put("key", "value")).await.is_err());
    let reason = why_stopped(&node).await;
    assert!(reason.starts_with("log: panicked: told to"), "{reason}");
}

/// Counts commands, and cannot be saved.
struct Unsavable(u64);

impl StateMachine for Unsavable {
    type Outcome = u64;
    type View = u64;

    fn create(_secret: [u8; 32]) -> Unsavable {
        Unsavable(0)
    }

    fn apply(&mut self, _index: kv_repl::types::Index, _stamp_ms: u64, _command: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn view(&self) -> u64 {
        self.0
    }

    fn digest(&self) -> [u8; 32] {
        [0; 32]
    }

    fn save(_view: &u64, _meta: &CheckpointMeta, _out: &mut dyn std::io::Write) -> std::io::Result<()> {
        panic!("told to")
    }

    fn load(_input: &mut dyn std::io::Read) -> Result<(Unsavable, CheckpointMeta), kv_repl::BoxError> {
        Err("there is none".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_a_checkpoint_is_written_ends_the_node() {
    let mut alone = Alone::new();
    alone.config.checkpoint_log_bytes = 1;
    let node = alone.start::<Unsavable>().await.expect("the node starts");
    let reason = why_stopped(&node).await;
    assert!(reason.starts_with("checkpoint: panicked: told to"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_answers_reads_and_goes_on_when_there_is_room() {
    let mut alone = Alone::new();
    alone.config.write_timeout = Duration::from_secs(1);
    let node = alone.start::<Store>().await.expect("the node starts");
    confirmed(&node, "before").await;
    alone.disk.set(Disk::Full);
    assert_eq!(write(&node, put("key", "lost")).await, Err(WriteError::Unknown), "it finds the disk full");
    assert_eq!(write(&node, put("key", "refused")).await, Err(WriteError::DiskFull));
    assert_eq!(read(&node, "key").await, Ok(Some("before".into())));
    alone.disk.set(Disk::Sound);
    confirmed(&node, "after").await;
    assert_eq!(read(&node, "key").await, Ok(Some("after".into())));
    node.shutdown().await;
    assert_eq!(node.stopped().await, None, "a full disk is no failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_can_be_stopped() {
    let mut alone = Alone::new();
    alone.config.write_timeout = Duration::from_secs(1);
    let node = alone.start::<Store>().await.expect("the node starts");
    confirmed(&node, "before").await;
    alone.disk.set(Disk::Full);
    assert_eq!(write(&node, put("key", "lost")).await, Err(WriteError::Unknown));
    tokio::time::timeout(PATIENCE, node.shutdown()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_node_held_is_free() {
    let alone = Alone::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut listener = Some(listener);
    for _ in 0..20 {
        let transport = Tcp::new(listener.take().expect("bound"));
        let node: Replica<Store> =
            Replica::start(alone.config.clone(), alone.log(), transport).await.expect("the node starts");
        // Connections of strangers are open meanwhile.
        let _stranger = tokio::net::TcpStream::connect(address).await.expect("it listens");
        node.shutdown().await;
        listener = Some(tokio::net::TcpListener::bind(address).await.expect("the port is free again"));
    }
}
