//! Finds all nodes of a cluster from one: asks it, then every node that an answer names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::client::{Client, ClientError};
use crate::node_status::NodeStatus;
use crate::resp::Frame;

/// How long a node may take to say where it stands.
const STATUS_TIME_MAX: Duration = Duration::from_secs(3);

/// One line of the report on a cluster. What an unreachable node would have to say is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct NodeReport {
    pub(super) id: u64,
    pub(super) addr: Option<String>,
    pub(super) peer_addr: String,
    pub(super) reachable: bool,
    pub(super) pid: Option<u32>,
    pub(super) role: Option<String>,
    pub(super) member: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) leader: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) committed: Option<u64>,
    pub(super) applied: Option<u64>,
    pub(super) hash_index: Option<u64>,
    pub(super) state_hash: Option<String>,
    pub(super) cluster_id: Option<String>,
}

/// Asks one node where it stands.
pub(super) fn ask(address: &str) -> Result<NodeStatus, ClientError> {
    let mut client = Client::connect(address, STATUS_TIME_MAX)?;
    match client.call(&["KV.STATUS"])? {
        Frame::Bulk(json) => {
            serde_json::from_slice(&json).map_err(|_| client.nonsense("its status is not of this version"))
        }
        _ => Err(client.nonsense("its status is no text")),
    }
}

/// All nodes, by id, as far as `address` and those it names know of them.
///
/// # Errors
///
/// The first node does not answer.
pub(super) fn discover(address: &str) -> Result<Vec<NodeReport>, ClientError> {
    let first = ask(address)?;
    let mut reports = BTreeMap::new();
    let mut asked = BTreeSet::from([address.to_owned(), first.addr.clone()]);
    // The address that led here is the one that works from here.
    note(&mut reports, first, address);
    while let Some((id, next)) = unasked(&reports, &asked) {
        asked.insert(next.clone());
        match ask(&next) {
            Ok(status) if status.id == id => note(&mut reports, status, &next),
            _ => {}
        }
    }
    Ok(reports.into_values().collect())
}

fn unasked(reports: &BTreeMap<u64, NodeReport>, asked: &BTreeSet<String>) -> Option<(u64, String)> {
    reports.values().filter(|report| !report.reachable).find_map(|report| {
        let address = report.addr.as_ref().filter(|address| !asked.contains(*address))?;
        Some((report.id, address.clone()))
    })
}

/// Takes over what a node says of itself, and whom it names.
fn note(reports: &mut BTreeMap<u64, NodeReport>, status: NodeStatus, address: &str) {
    for peer in &status.peers {
        let known = reports.entry(peer.id).or_insert_with(|| NodeReport::unknown(peer.id, peer.peer_addr.clone()));
        if known.addr.is_none() {
            known.addr.clone_from(&peer.addr);
        }
    }
    reports.insert(status.id, NodeReport::of(status, address));
}

impl NodeReport {
    fn of(status: NodeStatus, address: &str) -> NodeReport {
        NodeReport {
            id: status.id,
            addr: Some(address.to_owned()),
            peer_addr: status.peer_addr,
            reachable: true,
            pid: Some(status.pid),
            role: Some(status.role),
            member: status.member,
            term: Some(status.term),
            leader: status.leader,
            last: Some(status.last),
            committed: Some(status.committed),
            applied: Some(status.applied),
            hash_index: Some(status.hash_index),
            state_hash: Some(status.state_hash),
            cluster_id: status.cluster_id,
        }
    }

    fn unknown(id: u64, peer_addr: String) -> NodeReport {
        NodeReport {
            id,
            addr: None,
            peer_addr,
            reachable: false,
            pid: None,
            role: None,
            member: None,
            term: None,
            leader: None,
            last: None,
            committed: None,
            applied: None,
            hash_index: None,
            state_hash: None,
            cluster_id: None,
        }
    }

    /// How the node is called in a text.
    pub(super) fn name(&self) -> String {
        format!("node {} ({})", self.id, self.addr.as_ref().unwrap_or(&self.peer_addr))
    }
}
