//! Rows about entries reaching every node.

use kv_wal::{Entry, Index};
use redis::Commands;

use crate::cluster::{Cluster, Setup, eventually};

/// After some writes the logs of the three nodes are compared record by record: the same bytes, header and checksum
/// included.
pub(crate) fn logs_hold_the_same_bytes() -> String {
    let mut cluster = Cluster::start();
    let mut client = cluster.client(2);
    for key in 0..50 {
        let _: () = client.set(format!("key {key}"), format!("value {key}")).expect("confirmed");
    }
    cluster.settle();
    (1..=3).for_each(|id| cluster.stop(id));
    let logs: Vec<Vec<Entry>> = (1..=3).map(|id| read_log(&cluster, id)).collect();
    let shortest = logs.iter().map(Vec::len).min().expect("three logs");
    assert!(shortest > 50, "founding, no-op, sessions and 50 commands");
    for index in 0..shortest {
        let frames = [&logs[0], &logs[1], &logs[2]].map(|log| log[index].frame());
        assert!(frames[0] == frames[1] && frames[1] == frames[2], "record {index} differs: {frames:?}");
    }
    format!("{shortest} records equal")
}

fn read_log(cluster: &Cluster, id: usize) -> Vec<Entry> {
    let (log, recovery) =
        kv_wal::Log::open(&cluster.dir(id).join("log"), kv_wal::Options::default()).expect("log opens");
    assert!(!recovery.is_damaged(), "{recovery}");
    let reader = log.reader();
    reader.read(Index::new(1)..reader.last().index.next(), usize::MAX).expect("readable")
}

/// A follower that was down gets what it missed from the leader's log.
pub(crate) fn catch_up_from_the_log() -> String {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let absent = other_than(leader);
    cluster.kill(absent);
    let mut client = cluster.client(leader);
    for key in 0..500 {
        let _: () = client.set(format!("missed {key}"), key).expect("two of three confirm");
    }
    cluster.run(absent);
    let mut late = cluster.client(absent);
    for key in 0..500 {
        assert_eq!(late.get::<_, Option<u64>>(format!("missed {key}")).expect("readable"), Some(key));
    }
    cluster.settle();
    assert!(checkpoints(&cluster, absent).is_empty(), "it came from the log");
    cluster.expect_match();
    "500 writes caught up".into()
}

/// A follower that was down for so long that the log no longer reaches back to it gets a checkpoint.
pub(crate) fn catch_up_from_a_checkpoint() -> String {
    let arguments = vec!["--checkpoint-log-bytes".to_owned(), "200000".to_owned()];
    let mut cluster = Cluster::start_with(Setup { arguments, ..Setup::default() });
    let leader = cluster.leader();
    let absent = other_than(leader);
    cluster.settle();
    cluster.kill(absent);
    assert!(checkpoints(&cluster, absent).is_empty());
    let mut client = cluster.client(leader);
    let value = vec![b'v'; 1000];
    let mut written = 0_u64;
    // Two checkpoints: the log is kept back to the one before the newest.
    eventually("two checkpoints at the leader", || {
        for _ in 0..100 {
            let _: () = client.set(format!("key {}", written % 700), &value).expect("two of three confirm");
            written += 1;
        }
        let found = checkpoints(&cluster, leader).len();
        if found >= 2 { Ok(()) } else { Err(format!("{found} after {written} writes")) }
    });
    cluster.run(absent);
    let mut late = cluster.client(absent);
    for key in 0..written.min(700) {
        assert_eq!(late.get::<_, Vec<u8>>(format!("key {key}")).expect("readable"), value);
    }
    cluster.settle();
    let received = cluster.log(absent).contains("restored the state from a received checkpoint");
    assert!(received, "it came from a checkpoint:\n{}", cluster.log(absent));
    cluster.expect_match();
    // What was received survives a crash of its own.
    cluster.kill(absent);
    cluster.run(absent);
    cluster.settle();
    cluster.expect_match();
    format!("{written} writes, log truncated, checkpoint installed")
}

/// Keys written through one node are read, each of them, from every node.
pub(crate) fn every_key_on_every_node() -> String {
    let count: usize = if cfg!(debug_assertions) { 100 } else { 100_000 };
    let cluster = Cluster::start();
    let mut writer = cluster.client(1);
    let keys: Vec<usize> = (0..count).collect();
    for chunk in keys.chunks(1000) {
        let mut pipeline = redis::pipe();
        for key in chunk {
            pipeline.set(format!("key:{key}"), format!("value of {key}")).ignore();
        }
        let () = pipeline.query(&mut writer).expect("every write is confirmed");
    }
    for id in 1..=3 {
        let mut reader = cluster.client(id);
        for chunk in keys.chunks(1000) {
            let names: Vec<String> = chunk.iter().map(|key| format!("key:{key}")).collect();
            let values: Vec<Option<String>> = reader.mget(&names).expect("readable");
            for (key, value) in chunk.iter().zip(values) {
                assert_eq!(value, Some(format!("value of {key}")), "key {key} on node {id}");
            }
        }
        let present: usize = redis::cmd("DBSIZE").query(&mut reader).expect("readable");
        assert_eq!(present, count);
    }
    cluster.expect_match();
    format!("{count} keys, each read from each node")
}

pub(crate) fn other_than(leader: usize) -> usize {
    leader % 3 + 1
}

/// Names of the checkpoint files of a node.
fn checkpoints(cluster: &Cluster, id: usize) -> Vec<String> {
    let files = std::fs::read_dir(cluster.dir(id).join("checkpoints")).expect("the directory exists");
    let names = files.map(|file| file.expect("readable").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".checkpoint")).collect()
}
