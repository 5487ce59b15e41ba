//! What expires on a cluster that nobody writes to.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

fn put_until(key: &str, deadline_ms: u64) -> Bytes {
    let deadline = Deadline::At(deadline_ms);
    let op = Op::Put { key: key.as_bytes(), value: b"v", condition: Condition::Always, deadline, want_previous: false };
    Bytes::from(op.encode().expect("within limits"))
}

/// More pairs than one entry removes, all at one time, and one that stays.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_an_idle_cluster_advances_the_clock_until_all_that_has_expired_is_gone() {
    let cluster = Cluster::start(u64::MAX).await;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is right");
    let deadline_ms = since.as_millis() as u64 + 1000;
    let many = (0..3 * kv_store::EXPIRED_REMOVED_MAX).map(|number| put_until(&format!("gone-{number}"), deadline_ms));
    let commands: Vec<Bytes> = many.chain([put_until("stays", u64::MAX)]).collect();
    for outcome in cluster.node(1).submit(commands).await {
        assert_eq!(outcome.expect("written"), Outcome::Done);
    }
    for node in 0..3 {
        eventually("only what has not expired is left", || {
            let count = cluster.node(node).read(|store| (store.len(), store.iter().count()));
            (count == (1, 1)).then_some(())
        })
        .await;
    }
    assert_eq!(read(cluster.node(2), "stays").await, Ok(Some("v".to_owned())));
    cluster.expect_equal_states().await;
}

/// Reads that the leader answers on its lease see what was written before.
#[tokio::test(flavor = "multi_thread")]
async fn reads_by_lease_see_every_write_before_them() {
    let mut cluster = Cluster::start_leased().await;
    let leader = cluster.leader().await;
    for number in 0..200 {
        let value = number.to_string();
        assert_eq!(write(cluster.node((leader + 1) % 3), put("k", &value)).await, Ok(Outcome::Done));
        assert_eq!(read(cluster.node(leader), "k").await, Ok(Some(value)));
    }
    // A leader that is cut off has none any more when it could have been replaced.
    cluster.cut(leader);
    eventually("it does not lead any more", || (cluster.node(leader).status().role != Role::Leader).then_some(()))
        .await;
    assert!(read(cluster.node(leader), "k").await.is_err());
    cluster.heal(leader);
    cluster.stop(leader).await;
}
