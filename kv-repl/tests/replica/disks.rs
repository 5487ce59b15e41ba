//! Disks that lose something, and nodes that lose their disks: they come back by themselves, and nothing confirmed is lost.

use std::fs::{self, File};
use std::path::PathBuf;

use kv_repl::ReadError;
use kv_repl::types::Member;

use crate::{Cluster, eventually, put, read, write};

impl Cluster {
    fn home(&self, node: usize) -> PathBuf {
        self.dir.path().join(&self.peers[node].1)
    }

    fn me(&self, node: usize) -> Member {
        self.node(node).status().me
    }

    /// Waits until all take this member for a voter, and nobody is missing.
    async fn until_voter(&self, member: Member) {
        eventually("it votes", || {
            let all = (0..3).map(|node| self.node(node).status().configuration);
            all.into_iter().all(|one| !one.is_joint() && one.is_voter(member) && one.voters().len() == 3).then_some(())
        })
        .await;
    }

    /// Spoils one bit of every copy of `value` in the log of a node that does not run; says how many there were.
    fn spoil(&self, node: usize, value: &str) -> usize {
        let mut spoiled = 0;
        for file in fs::read_dir(self.home(node).join("log")).expect("its log") {
            let path = file.expect("readable").path();
            if !path.is_file() {
                continue;
            }
            let mut bytes = fs::read(&path).expect("readable");
            let found: Vec<usize> = find_all(&bytes, value.as_bytes());
            for at in &found {
                bytes[*at] ^= 1;
            }
            if !found.is_empty() {
                fs::write(&path, bytes).expect("writable");
            }
            spoiled += found.len();
        }
        spoiled
    }
}

fn find_all(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(pattern.len()).enumerate();
    windows.filter(|(_, window)| *window == pattern).map(|(at, _)| at).collect()
}

async fn fill(cluster: &Cluster, node: usize, count: usize) {
    for number in 0..count {
        write(cluster.node(node), put(&format!("key-{number}"), &format!("<value-{number}>")))
            .await
            .expect("confirmed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_disk_comes_back_as_a_new_member() {
    let mut cluster = Cluster::start(u64::MAX).await;
    let leader = cluster.leader().await;
    fill(&cluster, leader, 100).await;
    for node in [(leader + 1) % 3, leader] {
        let old = cluster.me(node);
        cluster.stop(node).await;
        fs::remove_dir_all(cluster.home(node)).expect("removed");
        cluster.run(node).await.expect("it starts");
        let new = cluster.me(node);
        assert_ne!(new, old, "it does not pass for the one that acknowledged");
        cluster.until_voter(new).await;
        assert_eq!(read(cluster.node(node), "key-99").await, Ok(Some("<value-99>".to_owned())));
    }
    cluster.expect_equal_states().await;
    // It counts: with another node away it is needed.
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    write(cluster.node(leader), put("key", "two are enough")).await.expect("confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_log_has_lost_comes_back_from_the_others() {
    let mut cluster = Cluster::start(u64::MAX).await;
    let leader = cluster.leader().await;
    fill(&cluster, leader, 200).await;
    for node in [(leader + 1) % 3, leader] {
        let me = cluster.me(node);
        cluster.stop(node).await;
        assert_eq!(cluster.spoil(node, "<value-70>") + cluster.spoil(node, "<value-120>"), 2);
        cluster.run(node).await.expect("it starts");
        eventually("its log is whole", || (!cluster.node(node).status().is_damaged).then_some(())).await;
        assert_eq!(cluster.me(node), me, "it has forgotten nothing, and is the same");
        assert_eq!(read(cluster.node(node), "key-120").await, Ok(Some("<value-120>".to_owned())));
    }
    cluster.expect_equal_states().await;
    for node in 0..3 {
        cluster.stop(node).await;
        let (log, recovery) = kv_wal::Log::open(&cluster.home(node).join("log"), segments()).expect("it opens");
        assert!(!recovery.is_damaged(), "{recovery}");
        drop(log);
    }
}

fn segments() -> kv_wal::Options {
    kv_wal::Options { segment_bytes: 1 << 20, ..kv_wal::Options::default() }
}

/// Nobody can lead before they have helped each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_damaged_logs_heal_each_other() {
    let mut cluster = Cluster::start(u64::MAX).await;
    let leader = cluster.leader().await;
    fill(&cluster, leader, 150).await;
    for node in 0..3 {
        cluster.stop(node).await;
        assert_eq!(cluster.spoil(node, &format!("<value-{}>", 40 + 30 * node)), 1);
    }
    for node in 0..3 {
        cluster.run(node).await.expect("it starts");
    }
    cluster.leader().await;
    for node in 0..3 {
        for number in [40, 70, 100, 149] {
            let value = read(cluster.node(node), &format!("key-{number}")).await;
            assert_eq!(value, Ok(Some(format!("<value-{number}>"))));
        }
    }
    cluster.expect_equal_states().await;
}

/// Makes the state of a node that does not run wrong, as a bug would, or memory that forgets.
fn make_wrong(cluster: &Cluster, node: usize) {
    for file in fs::read_dir(cluster.home(node).join("checkpoints")).expect("its checkpoints") {
        let path = file.expect("readable").path();
        let (mut store, meta) = kv_store::checkpoint::read(&mut File::open(&path).expect("readable")).expect("whole");
        store.apply(meta.last.index, 0, &put("key-7", "wrong"));
        kv_store::checkpoint::write(&store.view(), &meta, &mut File::create(&path).expect("writable"))
            .expect("written");
    }
}

/// A leader, and another node whose state is wrong and which knows it.
async fn with_a_wrong_state(cluster: &mut Cluster) -> (usize, usize) {
    let leader = cluster.leader().await;
    fill(cluster, leader, 200).await;
    let node = (leader + 1) % 3;
    cluster.stop(node).await;
    make_wrong(cluster, node);
    cluster.run(node).await.expect("it starts");
    assert_eq!(read(cluster.node(node), "key-7").await, Ok(Some("wrong".to_owned())), "nobody knows yet");
    cluster.node(leader).mark().await.expect("a mark passes");
    eventually("it is found out", || cluster.node(node).is_diverged().then_some(())).await;
    assert_eq!(read(cluster.node(node), "key-7").await, Err(ReadError::Diverged));
    (leader, node)
}

/// It votes and acknowledges as before, also when it has been started again, and serves nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_state_is_remembered_until_another_takes_its_place() {
    let mut cluster = Cluster::start(4 << 10).await;
    let (leader, node) = with_a_wrong_state(&mut cluster).await;
    let (me, third) = (cluster.me(node), (leader + 2) % 3);
    cluster.stop(node).await;
    cluster.run(node).await.expect("it starts");
    assert_eq!((cluster.me(node), cluster.node(node).is_diverged()), (me, true));
    assert_eq!(read(cluster.node(node), "key-7").await, Err(ReadError::Diverged));
    cluster.stop(third).await;
    fill(&cluster, leader, 20).await;
    assert!(cluster.node(node).is_diverged());
    cluster.run(third).await.expect("it starts");
    // It misses so much that it is sent a state, which is right; the next mark says so.
    cluster.stop(node).await;
    fill(&cluster, leader, 500).await;
    cluster.run(node).await.expect("it starts");
    eventually("it has caught up", || {
        (cluster.node(node).status().applied >= cluster.node(leader).status().applied).then_some(())
    })
    .await;
    cluster.node(leader).mark().await.expect("a mark passes");
    eventually("it is right again", || (!cluster.node(node).is_diverged()).then_some(())).await;
    assert_eq!(read(cluster.node(node), "key-7").await, Ok(Some("<value-7>".to_owned())));
    cluster.expect_equal_states().await;
    cluster.stop(node).await;
    cluster.run(node).await.expect("it starts");
    assert!(!cluster.node(node).is_diverged(), "that is remembered as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_state_is_wrong_comes_back_with_an_empty_disk() {
    let mut cluster = Cluster::start(4 << 10).await;
    let (_, node) = with_a_wrong_state(&mut cluster).await;
    cluster.stop(node).await;
    fs::remove_dir_all(cluster.home(node)).expect("removed");
    cluster.run(node).await.expect("it starts");
    cluster.until_voter(cluster.me(node)).await;
    assert_eq!(read(cluster.node(node), "key-7").await, Ok(Some("<value-7>".to_owned())));
    cluster.expect_equal_states().await;
}

/// The end of the log is lost, and with it what the node acknowledged last: it begins again, and its log is kept aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_beyond_repair_is_set_aside() {
    let mut cluster = Cluster::start(u64::MAX).await;
    let leader = cluster.leader().await;
    let node = (leader + 1) % 3;
    let old = cluster.me(node);
    fill(&cluster, leader, 50).await;
    eventually("it has all", || {
        (cluster.node(node).status().applied == cluster.node(leader).status().applied).then_some(())
    })
    .await;
    cluster.stop(node).await;
    fill(&cluster, leader, 60).await;
    // All of the newest batches, whatever is in them.
    let spoiled: usize = (0..50).map(|number| cluster.spoil(node, &format!("<value-{number}>"))).sum();
    assert_eq!(spoiled, 50);
    cluster.run(node).await.expect("it starts");
    let new = cluster.me(node);
    assert_ne!(new, old);
    assert!(cluster.home(node).join("log.given-up-1").is_dir());
    cluster.until_voter(new).await;
    cluster.expect_equal_states().await;
    // As if nothing had been: once more, and it starts as itself.
    cluster.stop(node).await;
    cluster.run(node).await.expect("it starts");
    assert_eq!(cluster.me(node), new);
}
