//! Rows about elections and roles.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::cluster::{Cluster, run_kv_node};

/// Three `serve` processes on ports of their own find each other and agree on a leader; `status` shows all of them.
pub(crate) fn three_serve_processes() -> String {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    for through in 1..=3 {
        let output = run_kv_node(&["status", "--addr", &cluster.address(through), "--json"]);
        assert!(output.status.success(), "{output:?}");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let nodes = status["nodes"].as_array().expect("nodes");
        assert_eq!(nodes.len(), 3, "{status:#}");
        let pids: BTreeSet<u64> = nodes.iter().map(|node| node["pid"].as_u64().expect("pid")).collect();
        assert_eq!(pids.len(), 3, "three processes");
        for node in nodes {
            let id = node["id"].as_u64().expect("id") as usize;
            assert_eq!(node["reachable"], true);
            assert_eq!(node["addr"], cluster.address(id).as_str());
            assert_eq!(node["role"], if id == leader { "leader" } else { "follower" });
            assert_eq!(node["member"], "voter");
        }
    }
    format!("leader is node {leader}")
}

/// The leader is killed again and again: each time another node takes over, in a higher term, and every node tells its
/// role.
pub(crate) fn roles_come_from_elections() -> String {
    let mut cluster = Cluster::start();
    let mut pauses = Vec::new();
    let mut leaders = BTreeSet::new();
    for _ in 0..3 {
        let old = cluster.leader();
        let old_term = cluster.ask(old).expect("it answers")["term"].as_u64().expect("term");
        cluster.kill(old);
        let killed = Instant::now();
        let new = cluster.leader();
        pauses.push(killed.elapsed().as_millis());
        let status = cluster.ask(new).expect("it answers");
        assert_ne!(new, old);
        assert!(status["term"].as_u64().expect("term") > old_term, "a new leader has a higher term");
        cluster.run(old);
        assert_eq!(cluster.leader(), new, "a restarted node does not unseat the leader");
        let back = cluster.ask(old).expect("it answers");
        assert_eq!(back["role"], "follower");
        leaders.insert(old);
        leaders.insert(new);
    }
    assert!(leaders.len() > 1);
    format!("new leader after {pauses:?} ms")
}
