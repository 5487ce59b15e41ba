//! Three nodes in one process over a network whose cables can be cut, each with its log and checkpoints on disk.

mod disks;
mod divergence;
mod expiry;
mod failures;
mod log;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_repl::transport::memory::MemoryNetwork;
use kv_repl::types::NodeId;
use kv_repl::{ReadError, Replica, ReplicaConfig, Role, StartError, TransferError, WriteError};
use kv_store::{Condition, Deadline, Op, Outcome, Store};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    dir: TempDir,
    network: MemoryNetwork,
    peers: Vec<(NodeId, String)>,
    nodes: Vec<Option<Replica<Store>>>,
    checkpoint_log_bytes: u64,
    write_timeout: Duration,
    lease: Option<Duration>,
}

impl Cluster {
    async fn start(checkpoint_log_bytes: u64) -> Cluster {
        Cluster::start_with(checkpoint_log_bytes, Duration::from_secs(3)).await
    }

    /// Leaders answer reads without asking the others, for as long as they hold a lease.
    async fn start_leased() -> Cluster {
        let lease = Some(Duration::from_millis(300));
        Cluster::start_all(u64::MAX, Duration::from_secs(3), lease).await
    }

    async fn start_with(checkpoint_log_bytes: u64, write_timeout: Duration) -> Cluster {
        Cluster::start_all(checkpoint_log_bytes, write_timeout, None).await
    }

    async fn start_all(checkpoint_log_bytes: u64, write_timeout: Duration, lease: Option<Duration>) -> Cluster {
        let peers: Vec<_> = (1..=3).map(|id| (NodeId::new(id), format!("node-{id}"))).collect();
        let dir = tempfile::tempdir().expect("temporary directory");
        let nodes = vec![None, None, None];
        let network = MemoryNetwork::new();
        let mut cluster = Cluster { dir, network, peers, nodes, checkpoint_log_bytes, write_timeout, lease };
        for node in 0..3 {
            cluster.run(node).await.expect("the node starts");
        }
        cluster.leader().await;
        cluster
    }

    async fn run(&mut self, node: usize) -> Result<(), StartError> {
        let (id, address) = self.peers[node].clone();
        let home = self.dir.path().join(&address);
        let mut config = ReplicaConfig::new(id, home, self.peers.clone());
        config.log_segment_bytes = 1 << 20;
        config.write_timeout = self.write_timeout;
        config.raft.lease = self.lease;
        config.read_timeout = Duration::from_secs(3);
        config.checkpoint_log_bytes = self.checkpoint_log_bytes;
        let transport = self.network.transport(&address);
        self.nodes[node] = Some(Replica::open_over(config, transport).await?);
        Ok(())
    }

    fn node(&self, node: usize) -> &Replica<Store> {
        self.nodes[node].as_ref().expect("the node runs")
    }

    async fn stop(&mut self, node: usize) {
        let replica = self.nodes[node].take().expect("the node runs");
        replica.shutdown().await;
        assert_eq!(replica.stopped().await, None, "nothing failed");
    }

    async fn leader(&self) -> usize {
        let all: Vec<usize> = (0..3).filter(|node| self.nodes[*node].is_some()).collect();
        self.leader_among(&all).await
    }

    async fn leader_among(&self, among: &[usize]) -> usize {
        eventually("a leader that all follow", || {
            let all: Vec<_> = among.iter().map(|node| self.node(*node).status()).collect();
            let leader = among.iter().zip(&all).find(|(_, status)| status.role == Role::Leader)?;
            all.iter()
                .all(|status| status.term == leader.1.term && status.leader == leader.1.leader)
                .then_some(*leader.0)
        })
        .await
    }

    fn cut(&self, node: usize) {
        for other in (0..3).filter(|other| *other != node) {
            self.network.cut(&self.peers[node].1, &self.peers[other].1);
        }
    }

    fn heal(&self, node: usize) {
        for other in (0..3).filter(|other| *other != node) {
            self.network.heal(&self.peers[node].1, &self.peers[other].1);
        }
    }

    /// The state hashes of all nodes at one index are equal.
    async fn expect_equal_states(&self) {
        let index = self.node(0).mark().await.expect("a mark passes");
        let mut hashes = Vec::new();
        for node in 0..3 {
            hashes.push(eventually("the mark is applied", || self.node(node).marked(index)).await);
        }
        for mark in &hashes {
            assert_eq!(mark.hash, hashes[0].hash, "equal states");
            assert_eq!(mark.view.audit(), hashes[0].view.audit(), "equal down to the bytes");
        }
    }
}

async fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn put(key: &str, value: &str) -> Bytes {
    let (key, value) = (key.as_bytes(), value.as_bytes());
    let (condition, deadline) = (Condition::Always, Deadline::None);
    let op = Op::Put { key, value, condition, deadline, want_previous: false };
    Bytes::from(op.encode().expect("within limits"))
}

fn increment(key: &str) -> Bytes {
    Bytes::from(Op::Increment { key: key.as_bytes(), by: 1 }.encode().expect("within limits"))
}

async fn write(node: &Replica<Store>, command: Bytes) -> Result<Outcome, WriteError> {
    node.submit(vec![command]).await.pop().expect("one command, one answer")
}

async fn read(node: &Replica<Store>, key: &str) -> Result<Option<String>, ReadError> {
    node.barrier().await?;
    Ok(node.read(|store| store.get(key.as_bytes()).map(|pair| String::from_utf8_lossy(pair.value).into_owned())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_node_is_read_from_every_node() {
    let cluster = Cluster::start(64 << 20).await;
    for writer in 0..3 {
        let value = format!("written through {writer}");
        write(cluster.node(writer), put("key", &value)).await.expect("confirmed");
        for reader in 0..3 {
            assert_eq!(read(cluster.node(reader), "key").await, Ok(Some(value.clone())));
        }
    }
    cluster.expect_equal_states().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_in_its_order_whatever_its_size() {
    let cluster = Cluster::start(64 << 20).await;
    for (round, count) in [1_i64, 100, 5000].into_iter().enumerate() {
        let key = format!("counter {round}");
        let commands = (0..count).map(|_| increment(&key)).collect();
        let outcomes = cluster.node(round).submit(commands).await;
        for (position, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome, Ok(Outcome::Integer(position as i64 + 1)));
        }
    }
    let large = Bytes::from(vec![0; kv_repl::COMMAND_BYTES_MAX + 1]);
    let outcomes = cluster.node(0).submit(vec![increment("x"), large, increment("x")]).await;
    assert_eq!(outcomes, [Ok(Outcome::Integer(1)), Err(WriteError::TooLarge), Ok(Outcome::Integer(2))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stopped_and_started_again_have_their_data() {
    let mut cluster = Cluster::start(64 << 20).await;
    write(cluster.node(0), put("key", "kept")).await.expect("confirmed");
    let before = cluster.node(0).status().cluster;
    for node in 0..3 {
        cluster.stop(node).await;
    }
    for node in 0..3 {
        cluster.run(node).await.expect("the node starts");
    }
    assert_eq!(read(cluster.node(2), "key").await, Ok(Some("kept".into())));
    assert_eq!(cluster.node(0).status().cluster, before, "the same cluster as before");
    cluster.expect_equal_states().await;
}

/// Writers increment counters through followers while leaders are cut off again and again: each confirmed increment
/// counts once, although many are sent more than once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_count_exactly_once_through_changes_of_leader() {
    let cluster = Cluster::start(64 << 20).await;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for node in 0..3 {
        let (replica, done) = (cluster.node(node).clone(), done.clone());
        writers.push(tokio::spawn(async move {
            let (mut confirmed, mut unknown) = (0_i64, 0_i64);
            while !done.load(Ordering::Relaxed) {
                let outcomes = replica.submit((0..20).map(|_| increment(&format!("counter {node}"))).collect()).await;
                for outcome in outcomes {
                    match outcome {
                        Ok(_) => confirmed += 1,
                        Err(WriteError::Unknown) => unknown += 1,
                        Err(WriteError::NoLeader) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (confirmed, unknown)
        }));
    }
    for _ in 0..4 {
        let old = cluster.leader().await;
        cluster.cut(old);
        let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
        cluster.leader_among(&others).await;
        cluster.heal(old);
    }
    cluster.leader().await;
    done.store(true, Ordering::Relaxed);
    for (node, writer) in writers.into_iter().enumerate() {
        let (confirmed, unknown) = writer.await.expect("the writer does not panic");
        let value = read(cluster.node(0), &format!("counter {node}")).await.expect("readable");
        let counted: i64 = value.map_or(0, |value| value.parse().expect("a number"));
        assert!(confirmed > 0, "writer {node} confirmed nothing");
        assert!((confirmed..=confirmed + unknown).contains(&counted), "{counted} of {confirmed} + {unknown}");
    }
    cluster.expect_equal_states().await;
}

/// Leadership goes round while writers write through every node: none of their writes fails, and each counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_round_and_no_client_notices() {
    let mut cluster = Cluster::start_with(64 << 20, PATIENCE).await;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for node in 0..3 {
        let (replica, done) = (cluster.node(node).clone(), done.clone());
        writers.push(tokio::spawn(async move {
            let mut confirmed = 0;
            while !done.load(Ordering::Relaxed) {
                write(&replica, increment(&format!("counter {node}"))).await.expect("a write only waits");
                confirmed += 1;
            }
            confirmed
        }));
    }
    let mut handed = 0;
    while handed < 6 {
        let old = cluster.leader().await;
        let to = cluster.peers[(old + 1) % 3].0;
        match cluster.node(old).transfer_leadership(to).await {
            Ok(()) => handed += 1,
            // A slow disk may need longer than an election timeout, and then somebody else may lead.
            Err(TransferError::Failed { .. } | TransferError::Refused(_)) => continue,
            Err(error) => panic!("{error}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    for (node, writer) in writers.into_iter().enumerate() {
        let confirmed: i64 = writer.await.expect("no write has failed");
        let value = read(cluster.node(0), &format!("counter {node}")).await.expect("readable");
        assert_eq!(value, Some(confirmed.to_string()), "counter {node}");
        assert!(confirmed > 0);
    }
    cluster.expect_equal_states().await;

    // A leader that is stopped hands over as well, and the others go on.
    let old = cluster.leader().await;
    cluster.stop(old).await;
    let new = cluster.leader().await;
    write(cluster.node(new), increment("counter 0")).await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_leader_refuses_and_its_given_up_write_never_happens() {
    let cluster = Cluster::start(64 << 20).await;
    let old = cluster.leader().await;
    write(cluster.node(old), put("key", "before")).await.expect("confirmed");
    cluster.cut(old);
    assert_eq!(write(cluster.node(old), put("tail", "never")).await, Err(WriteError::Unknown), "it was appended");
    assert_eq!(write(cluster.node(old), put("tail", "never")).await, Err(WriteError::NoLeader), "it was not");
    assert_eq!(read(cluster.node(old), "key").await, Err(ReadError::NoLeader));
    let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    let new = cluster.leader_among(&others).await;
    write(cluster.node(new), put("key", "after")).await.expect("confirmed");
    cluster.heal(old);
    cluster.leader().await;
    for node in 0..3 {
        assert_eq!(read(cluster.node(node), "key").await, Ok(Some("after".into())));
        assert_eq!(read(cluster.node(node), "tail").await, Ok(None));
    }
    write(cluster.node(old), put("tail", "later")).await.expect("its numbers go on without a gap");
    cluster.expect_equal_states().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_more_than_the_log_gets_a_checkpoint_beside_ongoing_writes() {
    let mut cluster = Cluster::start(200_000).await;
    let leader = cluster.leader().await;
    let absent = (leader + 1) % 3;
    cluster.stop(absent).await;
    let value = "v".repeat(1000);
    let batch = |round: usize| (0..100).map(|key| put(&format!("key {} {key}", round % 20), &value)).collect();
    for round in 0..20 {
        assert!(cluster.node(leader).submit(batch(round)).await.iter().all(Result::is_ok));
    }
    let (writer, going) = (cluster.node(leader).clone(), std::sync::Arc::new(AtomicBool::new(true)));
    let still_going = going.clone();
    let batches: Vec<Vec<Bytes>> = (0..20).map(batch).collect();
    let writing = tokio::spawn(async move {
        let mut rounds = 0;
        while still_going.load(Ordering::Relaxed) {
            assert!(writer.submit(batches[rounds % 20].clone()).await.iter().all(Result::is_ok));
            rounds += 1;
        }
        rounds
    });
    cluster.run(absent).await.expect("the node starts");
    eventually("the absent node has applied something recent", || {
        let (late, ahead) = (cluster.node(absent).status().applied, cluster.node(leader).status().applied);
        (late.get() + 2000 > ahead.get()).then_some(())
    })
    .await;
    going.store(false, Ordering::Relaxed);
    assert!(writing.await.expect("the writer does not panic") > 0, "writes went on");
    assert_eq!(read(cluster.node(absent), "key 19 99").await, Ok(Some(value)));
    let checkpoints = std::fs::read_dir(cluster.dir.path().join(&cluster.peers[absent].1).join("checkpoints"));
    assert!(checkpoints.expect("the directory exists").count() > 0, "a checkpoint was received");
    cluster.expect_equal_states().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_checkpoint_is_passed_over() {
    let mut cluster = Cluster::start(100_000).await;
    let leader = cluster.leader().await;
    let node = (leader + 1) % 3;
    let checkpoints = cluster.dir.path().join(&cluster.peers[node].1).join("checkpoints");
    let files = || -> Vec<_> {
        let all = std::fs::read_dir(&checkpoints).expect("the directory exists").map(|file| file.expect("file").path());
        let mut all: Vec<_> = all.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")).collect();
        all.sort();
        all
    };
    let value = "v".repeat(1000);
    let mut written = 0;
    while files().len() < 2 {
        assert!(written < 100_000, "no second checkpoint after {written} writes");
        let batch = (0..50).map(|key| put(&format!("key {key}"), &value)).collect();
        assert!(cluster.node(leader).submit(batch).await.iter().all(Result::is_ok));
        written += 50;
    }
    cluster.stop(node).await;
    let newest = files().pop().expect("two checkpoints");
    let mut bytes = std::fs::read(&newest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("writable");
    cluster.run(node).await.expect("the one before is used");
    assert_eq!(read(cluster.node(node), "key 49").await, Ok(Some(value)));
    cluster.expect_equal_states().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start(64 << 20).await;
    for node in 0..3 {
        cluster.stop(node).await;
    }
    cluster.peers.swap(0, 1);
    let (first, second) = (cluster.peers[0].0, cluster.peers[1].0);
    cluster.peers[0].0 = second;
    cluster.peers[1].0 = first;
    let refused = cluster.run(0).await.expect_err("the directory is node 2's");
    assert!(refused.to_string().contains("belongs to node 2, not to node 1"), "{refused}");
}
