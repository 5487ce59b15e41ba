//! Rows about comparing the states of the nodes.

use std::fs::File;
use std::path::PathBuf;

use kv_store::{Condition, Deadline, Index, Op, Store};
use redis::Commands;
use serde_json::Value;

use crate::cluster::{Cluster, Setup, eventually, run_kv_node};

/// All nodes hash their full state at one index, recomputed from every stored byte, and agree.
pub(crate) fn verify_says_match() -> String {
    let mut cluster = Cluster::start();
    let mut client = cluster.client(1);
    for key in 0..300 {
        let _: () = client.set(format!("key {key}"), vec![b'x'; key]).expect("confirmed");
    }
    let _: u64 = client.del("key 7").expect("confirmed");
    let (code, json) = cluster.verify(2);
    assert_eq!((code, &json["match"]), (0, &Value::Bool(true)), "{json:#}");
    let nodes = json["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert_eq!(node["hash_index"], nodes[0]["hash_index"], "compared at one index");
        assert_eq!(node["state_hash"], nodes[0]["state_hash"]);
        assert_eq!(node["state_hash"].as_str().map(str::len), Some(64));
    }
    let text = run_kv_node(&["verify", "--addr", &cluster.address(3)]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("MATCH"), "{text:?}");
    cluster.kill(3);
    let (code, _) = cluster.verify(1);
    assert_eq!(code, 2, "a node that does not answer is no match");
    format!("at index {}", nodes[0]["hash_index"])
}

/// One node's newest checkpoint is replaced by one with other contents: `verify` names exactly the keys that differ.
pub(crate) fn verify_names_what_differs() -> String {
    let arguments = vec!["--checkpoint-log-bytes".to_owned(), "100000".to_owned()];
    let mut cluster = Cluster::start_with(Setup { arguments, ..Setup::default() });
    let mut client = cluster.client(1);
    let mut round = 0;
    let file = eventually("a checkpoint on node 3", || {
        for key in 0..100 {
            let _: () = client.set(format!("key {key}"), format!("{round:01000}")).expect("confirmed");
        }
        round += 1;
        newest_checkpoint(&cluster).ok_or("none yet")
    });
    cluster.settle();
    cluster.stop(3);
    let file = newest_checkpoint(&cluster).unwrap_or(file);
    doctor(&file);
    cluster.run(3);
    cluster.leader();
    cluster.settle();
    let (code, json) = cluster.verify(1);
    assert_eq!((code, &json["match"]), (1, &Value::Bool(false)), "{json:#}");
    let text = json["differences"].to_string();
    for key in ["only on node 3", "zz changed on node 3"] {
        assert!(text.contains(key), "{key} is not named: {text}");
    }
    assert!(!text.contains("key 5"), "equal keys are not named: {text}");
    "exit status 1, both keys named".into()
}

fn newest_checkpoint(cluster: &Cluster) -> Option<PathBuf> {
    let files = std::fs::read_dir(cluster.dir(3).join("checkpoints")).ok()?;
    let paths = files.map(|file| file.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint")).max()
}

/// What a software fault on one node could do: a whole, well-formed checkpoint with other contents.
fn doctor(path: &PathBuf) {
    let (mut store, meta) = kv_store::checkpoint::read(&mut File::open(path).expect("opens")).expect("valid");
    let index = Index::new(meta.last.index.get());
    for key in [&b"only on node 3"[..], b"zz changed on node 3"] {
        let op = Op::Put {
            key,
            value: b"fault",
            condition: Condition::Always,
            deadline: Deadline::None,
            want_previous: false,
        };
        Store::apply(&mut store, index, 0, &op.encode().expect("within limits"));
    }
    let mut out = File::create(path).expect("opens");
    kv_store::checkpoint::write(&store.view(), &meta, &mut out).expect("written");
}
