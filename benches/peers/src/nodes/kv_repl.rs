//! Ours, driven as in our own benchmark of it.

use std::time::Duration;

use tempfile::TempDir;

#[path = "../../../repl/three_nodes.rs"]
pub(super) mod three_nodes;

use self::three_nodes::ThreeNodes;
use super::Nodes;

struct Running {
    nodes: ThreeNodes,
    _dir: TempDir,
}

/// Three nodes with a leader.
pub fn start() -> Box<dyn Nodes> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Box::new(Running { nodes: ThreeNodes::start(dir.path()), _dir: dir })
}

impl Nodes for Running {
    fn commit(&self, count: usize, batches: u64) -> Duration {
        self.nodes.commit(count, batches)
    }

    fn shutdown(self: Box<Self>) {
        self.nodes.shutdown();
    }
}
