//! Rows about what is confirmed, and what is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Commands;

use crate::cluster::{Cluster, Setup};
use crate::replication::other_than;

/// How long a node waits before it tells a client that there is no confirmation; shortened so that the rows are quick.
fn quick_to_give_up() -> Vec<String> {
    vec!["--write-timeout-ms".into(), "2000".into()]
}

/// With two of three nodes down no write is confirmed, and the client is told so; with one of them back writes go on.
pub(crate) fn no_majority_no_confirmation() -> String {
    let mut cluster = Cluster::start_with(Setup { arguments: quick_to_give_up(), ..Setup::default() });
    let leader = cluster.leader();
    let (one, two) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let mut client = cluster.client(leader);
    let _: () = client.set("before", "confirmed").expect("three of three");
    cluster.kill(one);
    let _: () = client.set("with two", "confirmed").expect("two of three confirm");
    cluster.kill(two);
    let mut refusals = Vec::new();
    for attempt in 0..3 {
        let error = client.set::<_, _, ()>(format!("alone {attempt}"), "x").expect_err("one of three confirms nothing");
        let code = error.code().unwrap_or_default().to_owned();
        assert!(["UNKNOWN", "CLUSTERDOWN"].contains(&code.as_str()), "{error}");
        refusals.push(code);
    }
    let read = client.get::<_, Option<String>>("before").expect_err("nor is a read, which could be stale");
    assert_eq!(read.code(), Some("CLUSTERDOWN"), "{read}");
    cluster.run(one);
    cluster.leader_among(&[leader, one]);
    let _: () = cluster.client(one).set("after", "confirmed").expect("two of three again");
    cluster.run(two);
    cluster.leader();
    for id in 1..=3 {
        let mut client = cluster.client(id);
        for key in ["before", "with two", "after"] {
            assert_eq!(client.get::<_, Option<String>>(key).expect("readable").as_deref(), Some("confirmed"), "{key}");
        }
    }
    cluster.settle();
    cluster.expect_match();
    format!("alone: {}", refusals.join(", "))
}

/// A follower that is cut off sees nothing of what the others confirm, and all of it when it is back.
pub(crate) fn cut_off_follower_catches_up() -> String {
    let cluster = Cluster::start_with(Setup { cables: true, arguments: quick_to_give_up() });
    let leader = cluster.leader();
    let follower = other_than(leader);
    let third = 6 - leader - follower;
    cluster.cut(follower, leader);
    cluster.cut(follower, third);
    let mut client = cluster.client(leader);
    for key in 0..200 {
        let _: () = client.set(format!("key {key}"), key).expect("two of three confirm");
    }
    let mut lonely = cluster.client(follower);
    let stale = lonely.get::<_, Option<u64>>("key 0").expect_err("a cut-off node cannot know what is current");
    assert_eq!(stale.code(), Some("CLUSTERDOWN"), "{stale}");
    let term = cluster.ask(leader).expect("it answers")["term"].clone();
    cluster.heal(follower, leader);
    cluster.heal(follower, third);
    for key in 0..200 {
        assert_eq!(cluster.client(follower).get::<_, Option<u64>>(format!("key {key}")).expect("readable"), Some(key));
    }
    cluster.settle();
    assert_eq!(cluster.ask(leader).expect("it answers")["term"], term, "pre-vote: coming back disturbs nobody");
    cluster.expect_match();
    "200 writes caught up, leader undisturbed".into()
}

/// A leader that is cut off confirms nothing; its unconfirmed tail is gone when it is back.
pub(crate) fn cut_off_leader_confirms_nothing() -> String {
    let cluster = Cluster::start_with(Setup { cables: true, arguments: quick_to_give_up() });
    let old = cluster.leader();
    let others: Vec<usize> = (1..=3).filter(|id| *id != old).collect();
    let mut client = cluster.client(old);
    let _: () = client.set("contested", "before").expect("three of three");
    others.iter().for_each(|other| cluster.cut(old, *other));
    let tail = client.set::<_, _, ()>("tail", "never confirmed").expect_err("a cut-off leader confirms nothing");
    assert_eq!(tail.code(), Some("UNKNOWN"), "it had been appended: {tail}");
    let new = cluster.leader_among(&others);
    let _: () = cluster.client(new).set("contested", "after").expect("two of three confirm");
    let stale = client.get::<_, Option<String>>("contested").expect_err("it must not answer with what was");
    assert_eq!(stale.code(), Some("CLUSTERDOWN"), "{stale}");
    others.iter().for_each(|other| cluster.heal(old, *other));
    assert_ne!(cluster.leader(), old);
    for id in 1..=3 {
        let mut client = cluster.client(id);
        assert_eq!(client.get::<_, Option<String>>("contested").expect("readable").as_deref(), Some("after"));
        assert_eq!(client.get::<_, Option<String>>("tail").expect("readable"), None, "the tail is gone on node {id}");
    }
    let _: () = cluster.client(old).set("tail", "through the old leader").expect("it forwards now");
    cluster.settle();
    cluster.expect_match();
    "unconfirmed tail dropped".into()
}

/// A client numbers its writes and notes each confirmation, while one node after the other is killed with -9 and started
/// again. Every confirmed write must be there in the end.
pub(crate) fn kill_nine_loses_nothing() -> String {
    let rounds = if cfg!(debug_assertions) { 6 } else { 12 };
    let mut cluster = Cluster::start();
    let done = AtomicBool::new(false);
    let addresses: Vec<String> = (1..=3).map(|id| cluster.address(id)).collect();
    let mut longest = Duration::ZERO;
    let confirmed = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&done, &addresses));
        for round in 0..rounds {
            let leader = cluster.leader();
            let victim = if round % 2 == 0 { leader } else { other_than(leader) };
            std::thread::sleep(Duration::from_millis(37 * (round % 5)));
            cluster.kill(victim);
            let survivors: Vec<usize> = (1..=3).filter(|id| *id != victim).collect();
            let killed = Instant::now();
            cluster.leader_among(&survivors);
            longest = longest.max(killed.elapsed());
            cluster.run(victim);
        }
        cluster.leader();
        done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    });
    assert!(confirmed.len() > 100, "only {} writes were confirmed", confirmed.len());
    for id in 1..=3 {
        let mut client = cluster.client(id);
        for chunk in confirmed.chunks(1000) {
            let names: Vec<String> = chunk.iter().map(|number| format!("write {number}")).collect();
            let found: Vec<Option<u64>> = client.mget(&names).expect("readable");
            for (number, value) in chunk.iter().zip(found) {
                assert_eq!(value, Some(*number), "confirmed write {number} is missing on node {id}");
            }
        }
    }
    cluster.settle();
    cluster.expect_match();
    format!(
        "{} confirmed, 0 missing, {rounds} kills, at most {} ms without leader",
        confirmed.len(),
        longest.as_millis()
    )
}

/// Writes numbered keys through whichever node answers; gives the numbers that were confirmed.
fn write_until(done: &AtomicBool, addresses: &[String]) -> Vec<u64> {
    let mut confirmed = Vec::new();
    let mut number = 0;
    for address in addresses.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            return confirmed;
        }
        let client = redis::Client::open(format!("redis://{address}/")).expect("valid address");
        let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(1)) else { continue };
        connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        while !done.load(Ordering::Relaxed) {
            number += 1;
            match connection.set::<_, _, ()>(format!("write {number}"), number) {
                Ok(()) => confirmed.push(number),
                Err(_) => break,
            }
        }
    }
    confirmed
}
