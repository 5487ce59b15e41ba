//! How a cluster begins, once.
//!
//! An empty node never votes. Only when every listed peer has said that it is empty too does the node with the lowest id
//! write the founding record: it names every node's incarnation and the secret they share, and its hash is the cluster's
//! id. The record is the first entry of every log; the others store it durably before anything else. A node that stored
//! it and one that did not yet can both crash: whoever is founded hands the record to every empty peer that it names.
//!
//! Why nobody can found twice: the founder needs an answer from *every* listed node, and a node that has the record no
//! longer answers that it is empty.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::identity::NodeState;
use super::traits::{Log, LogError};
use crate::configuration::{put_members, take_members};
use crate::planted::{self, Mistake};
use crate::types::{Configuration, Entry, EntryId, Incarnation, Index, Member, NodeId, Term, kind};

const RECORD_VERSION: u8 = 1;

/// Who founded the cluster, and their secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingRecord {
    /// The first voters.
    pub configuration: Configuration,
    /// Known to all nodes and to no client.
    pub secret: [u8; 32],
}

impl FoundingRecord {
    /// The position of the record in every log.
    pub const ENTRY_ID: EntryId = EntryId::new(Term::new(1), Index::new(1));

    /// The bytes that are replicated.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(RECORD_VERSION);
        out.put_slice(&self.secret);
        put_members(self.configuration.voters(), &mut out);
        out.freeze()
    }

    /// Reads a record; `None` if it is none of this version.
    pub fn decode(mut bytes: &[u8]) -> Option<FoundingRecord> {
        if bytes.try_get_u8().ok()? != RECORD_VERSION {
            return None;
        }
        let mut secret = [0; 32];
        bytes.try_copy_to_slice(&mut secret).ok()?;
        let voters = take_members(&mut bytes).filter(|voters| bytes.is_empty() && !voters.is_empty())?;
        Some(FoundingRecord { configuration: Configuration::new(voters), secret })
    }

    /// A record that was handed over, if it names this node. Whether with this disk or another one: then this one comes in
    /// its place.
    pub(crate) fn naming(id: NodeId, bytes: &[u8]) -> Option<FoundingRecord> {
        let named = FoundingRecord::decode(bytes).filter(|record| record.configuration.voter(id).is_some());
        if named.is_none() {
            warn!("a founding record that does not name this node was handed over; ignored");
        }
        named
    }

    /// The record as the first entry of a log. The same bytes on every node.
    pub fn entry(&self) -> Entry {
        Entry::encode(&mut BytesMut::new(), Self::ENTRY_ID, 0, kind::FOUNDING, &self.encode())
    }

    /// The name of the cluster.
    pub fn cluster_id(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"kv-repl cluster id 1");
        hash.update(self.encode());
        hash.finalize().into()
    }
}

/// The record is durable before this node says that it has it. This happens once in the life of a disk.
pub(crate) fn store_record<L: Log>(log: &mut L, node: &mut NodeState, record: &FoundingRecord) -> Result<(), LogError> {
    node.hard_state.term = FoundingRecord::ENTRY_ID.term;
    log.append(&[record.entry()], Some(&node.encode()))?;
    log.sync()
}

/// What an empty node has heard from the others.
pub(crate) struct Founding {
    me: Member,
    listed: Vec<NodeId>,
    empty: BTreeMap<NodeId, Incarnation>,
}

impl Founding {
    pub(crate) fn new(me: Member, listed: Vec<NodeId>) -> Founding {
        Founding { me, listed, empty: BTreeMap::from([(me.id, me.incarnation)]) }
    }

    /// `peer` said that it is empty, on a connection that is open.
    pub(crate) fn heard_empty(&mut self, peer: Member) {
        if self.listed.contains(&peer.id) {
            self.empty.insert(peer.id, peer.incarnation);
        }
    }

    /// The connection to `peer` has ended, or it is not empty: what it said no longer counts.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        if peer != self.me.id {
            self.empty.remove(&peer);
        }
    }

    /// Whether this node shall found the cluster now, and with whom.
    pub(crate) fn voters(&self) -> Option<Configuration> {
        let lowest = self.listed.iter().min() == Some(&self.me.id);
        let missing = self.listed.iter().filter(|id| !self.empty.contains_key(id)).count();
        let may_miss = if planted::is(Mistake::FoundedByMajority) { (self.listed.len() - 1) / 2 } else { 0 };
        let complete = missing <= may_miss;
        (lowest && complete)
            .then(|| Configuration::new(self.empty.iter().map(|(id, inc)| Member::new(*id, *inc)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(id * 100))
    }

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    #[test]
    fn only_the_lowest_id_founds_and_only_with_everyone() {
        let mut first = Founding::new(member(1), ids(&[1, 2, 3]));
        assert_eq!(first.voters(), None);
        first.heard_empty(member(3));
        assert_eq!(first.voters(), None, "node 2 is missing");
        first.heard_empty(member(2));
        assert_eq!(first.voters().unwrap().voters(), [member(1), member(2), member(3)]);
        first.forget(NodeId::new(3));
        assert_eq!(first.voters(), None, "node 3 went away again");

        let mut second = Founding::new(member(2), ids(&[1, 2, 3]));
        second.heard_empty(member(1));
        second.heard_empty(member(3));
        assert_eq!(second.voters(), None, "node 1 founds, not node 2");
    }

    #[test]
    fn strangers_do_not_count() {
        let mut founding = Founding::new(member(1), ids(&[1, 2]));
        founding.heard_empty(member(7));
        assert_eq!(founding.voters(), None);
    }

    #[test]
    fn a_single_node_founds_at_once() {
        assert!(Founding::new(member(1), ids(&[1])).voters().is_some());
    }

    #[test]
    fn record_round_trip_and_identity() {
        let configuration = Configuration::new(vec![member(1), member(2), member(3)]);
        let record = FoundingRecord { configuration, secret: [9; 32] };
        assert_eq!(FoundingRecord::decode(&record.encode()), Some(record.clone()));
        let other = FoundingRecord { secret: [8; 32], ..record.clone() };
        assert_ne!(record.cluster_id(), other.cluster_id());
        for cut in 0..record.encode().len() {
            assert_eq!(FoundingRecord::decode(&record.encode()[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = FoundingRecord::decode(&bytes);
        }
    }
}
