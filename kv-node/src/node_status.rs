//! The status of a node as JSON: what `KV.STATUS` answers, and what `kv-node status` and `kv-node verify` read.

use kv_repl::{Role, Status};
use serde::{Deserialize, Serialize};

use crate::hex::hex;
use crate::node::Node;

/// A node's own account of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub id: u64,
    /// Where its clients connect.
    pub addr: String,
    /// Where the other nodes connect.
    pub peer_addr: String,
    /// Its process.
    pub pid: u32,
    /// leader, follower, candidate or pre_candidate.
    pub role: String,
    /// voter, or nothing before the cluster was founded.
    pub member: Option<String>,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<u64>,
    /// Its last entry.
    pub last: u64,
    /// The last entry it knows to be committed.
    pub committed: u64,
    /// The last entry its state machine ran.
    pub applied: u64,
    /// The entry that `state_hash` stands for.
    pub hash_index: u64,
    /// Hexadecimal.
    pub state_hash: String,
    /// The cluster it belongs to, once founded.
    pub cluster_id: Option<String>,
    /// Version of this program.
    pub version: String,
    /// The other nodes.
    pub peers: Vec<PeerAddress>,
}

/// What a node knows of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddress {
    /// Its number.
    pub id: u64,
    /// Where its clients connect, if it was ever heard of.
    pub addr: Option<String>,
    /// Where the other nodes connect.
    pub peer_addr: String,
    /// Whether there is a connection now.
    pub connected: bool,
}

impl NodeStatus {
    /// What `node` says of itself now.
    pub fn of(node: &Node) -> NodeStatus {
        let status: Status = node.backend.status();
        NodeStatus {
            id: status.me.id.get(),
            addr: node.about.client_address.clone(),
            peer_addr: node.about.peer_address.clone(),
            pid: std::process::id(),
            role: role_name(status.role).to_owned(),
            member: status.cluster.map(|_| "voter".to_owned()),
            term: status.term.get(),
            leader: status.leader.map(|id| id.get()),
            last: status.last.get(),
            committed: status.committed.get(),
            applied: status.applied.get(),
            hash_index: status.hash_index.get(),
            state_hash: hex(&status.state_hash),
            cluster_id: status.cluster.map(|id| hex(&id)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peers: status
                .peers
                .iter()
                .map(|peer| PeerAddress {
                    id: peer.id.get(),
                    addr: peer.client_address.clone(),
                    peer_addr: peer.peer_address.clone(),
                    connected: peer.connected,
                })
                .collect(),
        }
    }
}

/// How a role is written.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}
