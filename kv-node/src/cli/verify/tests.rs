use std::sync::Arc;

use kv_store::{Condition, Deadline, Op};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::backend::Backend;
use crate::node::{About, Node};
use crate::server;
use crate::single::Single;

/// Nodes with 200 keys each, of which the later ones are changed, served over TCP until this is dropped.
struct Nodes {
    _runtime: Runtime,
    reports: Vec<NodeReport>,
    index: Index,
}

type Change = fn(usize) -> Option<(String, &'static str)>;

fn nodes(parts: &[(Change, [u8; 32])]) -> Nodes {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut index = Index::ZERO;
    let reports = (1..).zip(parts).map(|(id, (change, replication))| {
        let backend = Single::node(id, *replication);
        for number in 0..200 {
            let (key, value) = change(number).unwrap_or_else(|| (format!("key{number:03}"), "value"));
            let (key, value) = (key.as_bytes(), value.as_bytes());
            let op =
                Op::Put { key, value, condition: Condition::Always, deadline: Deadline::None, want_previous: false };
            runtime.block_on(backend.submit(vec![op.encode().unwrap().into()])).pop().unwrap().unwrap();
        }
        index = runtime.block_on(backend.mark()).unwrap();
        let address = serve(&runtime, backend);
        discover(&address).unwrap().remove(0)
    });
    let reports = reports.collect();
    Nodes { _runtime: runtime, reports, index }
}

fn serve(runtime: &Runtime, backend: Single) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let about = About { client_address: address.clone(), peer_address: String::new(), dir: "/data".into() };
    runtime.spawn(server::run(listener, Node::new(Arc::new(backend), about), CancellationToken::new()));
    address
}

const SAME: Change = |_| None;

#[test]
fn equal_nodes_match() {
    let nodes = nodes(&[(SAME, [3; 32]), (SAME, [3; 32]), (SAME, [3; 32])]);
    let verdict = Verdict::of(nodes.index, nodes.reports);
    assert_eq!(verdict.matches(), Some(true), "{verdict}");
}

#[test]
fn every_differing_key_is_named_against_the_majority() {
    let change: Change = |number| match number {
        5 => Some(("key005".to_owned(), "other")),
        9 => Some(("only\0".to_owned(), "value")),
        _ => None,
    };
    let nodes = nodes(&[(change, [3; 32]), (SAME, [3; 32]), (SAME, [3; 32])]);
    let verdict = Verdict::of(nodes.index, nodes.reports);
    let key = |key: &str, how| Difference::Key { node: 1, reference: 2, key: key.to_owned(), how };
    let expected =
        [key("key005", "another value or version"), key("key009", "missing here"), key("only\\x00", "only here")];
    assert_eq!(verdict.differences, expected);
    assert_eq!(verdict.matches(), Some(false));
}

#[test]
fn a_difference_beside_the_pairs_is_named() {
    let nodes = nodes(&[(SAME, [3; 32]), (SAME, [4; 32]), (SAME, [3; 32])]);
    let verdict = Verdict::of(nodes.index, nodes.reports);
    assert_eq!(verdict.differences, [Difference::ReplicationState { node: 2, reference: 1 }]);
}

#[test]
fn a_node_that_is_gone_leaves_it_open() {
    let mut nodes = nodes(&[(SAME, [3; 32]), (SAME, [3; 32])]);
    nodes.reports[1].reachable = false;
    let verdict = Verdict::of(nodes.index, nodes.reports);
    assert_eq!(verdict.matches(), None);
    assert!(verdict.obstacles[0].starts_with("node 2 (127.0.0.1:"), "{verdict}");
}

fn verdict(differences: usize, obstacles: usize) -> Verdict {
    Verdict {
        index: Index::new(7),
        nodes: Vec::new(),
        differences: vec![Difference::Audit { node: 1 }; differences],
        obstacles: vec!["node 2: cannot be reached".to_owned(); obstacles],
    }
}

#[test]
fn what_does_not_answer_is_not_taken_for_equal() {
    assert_eq!(verdict(0, 0).matches(), Some(true));
    assert_eq!(verdict(0, 1).matches(), None);
    assert_eq!(verdict(1, 0).matches(), Some(false));
    assert_eq!(verdict(1, 1).matches(), Some(false));
}

#[test]
fn a_difference_is_said_in_one_line() {
    let key = Difference::Key { node: 2, reference: 1, key: "a\\x00".to_owned(), how: "missing here" };
    assert_eq!(key.to_string(), "node 2: key \"a\\x00\": missing here (compared with node 1)");
    let json = serde_json::to_value(&key).unwrap();
    assert_eq!(json, json!({"kind": "key", "node": 2, "reference": 1, "key": "a\\x00", "how": "missing here"}));
}
