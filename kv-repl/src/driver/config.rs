//! What a node is started with, and why it may not start.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::traits::{BoxError, LogError};
use crate::raft;
use crate::types::{EntryId, NodeId};

/// How a node is started. The same on first boot and on every restart.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The node's number; must be in `peers`.
    pub id: NodeId,
    /// Where checkpoints are kept.
    pub dir: PathBuf,
    /// Every node of the cluster, this one too, and where the transport reaches it from here.
    pub peers: Vec<(NodeId, String)>,
    /// Where this node's clients connect; told to the other nodes.
    pub client_address: String,
    /// Settings of the Raft core.
    pub raft: raft::Options,
    /// How long a write may wait for its outcome before it is given up as refused or unknown.
    pub write_timeout: Duration,
    /// How long a read may wait for a leader's confirmation.
    pub read_timeout: Duration,
    /// A checkpoint is written when this much log has been applied since the last one. The log is kept back to the
    /// checkpoint before the newest, so it occupies a little over twice this much; up to eight times more on a leader whose
    /// followers are catching up.
    pub checkpoint_log_bytes: u64,
    /// How often the replicas compare their states, if something has been written: each notes its state hash at the same
    /// entry, and one that differs from the majority stops and says so.
    pub compare_interval: Duration,
    /// Bytes of a segment of the log, for [`Replica::open`](crate::Replica::open).
    pub log_segment_bytes: u64,
}

impl ReplicaConfig {
    /// The settings for node `id` with its checkpoints in `dir`; everything else has its default.
    pub fn new(id: NodeId, dir: impl Into<PathBuf>, peers: Vec<(NodeId, String)>) -> ReplicaConfig {
        ReplicaConfig {
            id,
            dir: dir.into(),
            peers,
            client_address: String::new(),
            raft: raft::Options::default(),
            write_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            checkpoint_log_bytes: 64 << 20,
            compare_interval: Duration::from_secs(10),
            log_segment_bytes: 64 << 20,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let mut ids: Vec<NodeId> = self.peers.iter().map(|(id, _)| *id).collect();
        ids.sort();
        let listed = ids.binary_search(&self.id).is_ok();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(StartError::Peers { reason: "a node id occurs twice in the list of peers" });
        }
        if ids.iter().any(|id| id.get() == 0) {
            return Err(StartError::Peers { reason: "node ids begin at 1" });
        }
        if !listed {
            return Err(StartError::Peers { reason: "this node's id is not in the list of peers" });
        }
        if ids.len() > 7 {
            return Err(StartError::Peers { reason: "at most 7 voters are supported" });
        }
        Ok(self.raft.validate()?)
    }
}

/// Why a node does not start. Nothing has been changed on disk.
#[derive(Debug, Error)]
pub enum StartError {
    /// The list of peers cannot be right.
    #[error("{reason}; give every node the same list, for example 1=host:7101,2=host:7102,3=host:7103")]
    Peers {
        /// What is wrong.
        reason: &'static str,
    },
    /// The settings of the Raft core contradict each other.
    #[error("options: {0}")]
    Options(#[from] raft::OptionsError),
    /// The log could not be read or written.
    #[error("log: {0}")]
    Log(#[from] LogError),
    /// Reading or writing checkpoints failed.
    #[error("checkpoints in {path}: {source}", path = path.display())]
    Checkpoints {
        /// Where they are.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The directory holds the data of another node.
    #[error(
        "this directory belongs to node {found}, not to node {expected}; start it with that id or another directory"
    )]
    OtherNode {
        /// The id given.
        expected: NodeId,
        /// The id in the directory.
        found: NodeId,
    },
    /// The stored node state is not of this version or makes no sense.
    #[error("the node state in the log is unreadable ({0}); was it written by a newer version?")]
    State(&'static str),
    /// Log and checkpoints do not meet.
    #[error(
        "the log begins after entry {base}, but no valid checkpoint reaches that far; \
         restore the checkpoint files from a copy of this disk. If there is none, and the other nodes are well, move the \
         directory away and start this node with an empty one: the others let it in as a new member"
    )]
    Gap {
        /// The entry before the first one in the log.
        base: EntryId,
    },
    /// Records that this node had acknowledged are unreadable.
    #[error(
        "this node cannot go on with its log: {0}; it must not vote with it. Move its directory away and start it with an \
         empty one: the others let it in as a new member"
    )]
    Damaged(String),
    /// The operating system refused something.
    #[error("{0}")]
    Other(#[from] BoxError),
}
