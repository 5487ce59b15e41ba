//! Who a node is: what it stores about itself, and whom it talks to.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::founding::FoundingRecord;
use crate::codec::Hello;
use crate::configuration::{put_member, take_member};
use crate::types::{HardState, Incarnation, Member, NodeId, Term};

/// The protocol version spoken here.
const VERSION: u16 = 1;
const BLOB_VERSION: u8 = 4;

/// What the log's state blob holds: the node and its hard state, in one sync with the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeState {
    pub(crate) me: Member,
    pub(crate) hard_state: HardState,
    /// How often the node has been started, this time included.
    pub(crate) starts: u64,
    /// The log has lost what nobody else has: this disk counts for nothing any more.
    pub(crate) is_given_up: bool,
    /// The state is not that of the majority, as far as is known.
    pub(crate) is_diverged: bool,
}

impl NodeState {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(BLOB_VERSION);
        put_member(self.me, &mut out);
        out.put_u64_le(self.hard_state.term.get());
        out.put_u8(u8::from(self.hard_state.voted_for.is_some()));
        put_member(self.hard_state.voted_for.unwrap_or(self.me), &mut out);
        out.put_u64_le(self.starts);
        out.put_u8(u8::from(self.is_given_up) | u8::from(self.is_diverged) << 1);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<NodeState> {
        if bytes.try_get_u8().ok()? != BLOB_VERSION || bytes.len() != 16 + 8 + 1 + 16 + 8 + 1 {
            return None;
        }
        let me = take_member(&mut bytes);
        let term = Term::new(bytes.get_u64_le());
        let voted = bytes.get_u8() == 1;
        let voted_for = Some(take_member(&mut bytes)).filter(|_| voted);
        let starts = bytes.get_u64_le();
        let flags = Some(bytes.get_u8()).filter(|flags| *flags < 4)?;
        let (is_given_up, is_diverged) = (flags & 1 != 0, flags & 2 != 0);
        Some(NodeState { me, hard_state: HardState { term, voted_for }, starts, is_given_up, is_diverged })
    }
}

/// What a node says of itself when a connection is opened, and holds others' words against.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) me: Member,
    pub(crate) listed: Vec<NodeId>,
    pub(crate) client_address: String,
    pub(crate) founding: Option<FoundingRecord>,
    /// Who was told that this node is empty, on which connection.
    told_empty: BTreeMap<NodeId, (u64, Incarnation)>,
}

/// How two nodes that may talk stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Both are members of the cluster: messages may flow.
    Members,
    /// Both are empty: the cluster may be founded.
    BothEmpty,
    /// The peer has no founding record yet and is named in mine.
    PeerEmpty,
    /// The peer has the founding record and will hand it over.
    PeerFounded,
}

impl Identity {
    pub(crate) fn new(
        me: Member,
        listed: Vec<NodeId>,
        client_address: String,
        founding: Option<FoundingRecord>,
    ) -> Identity {
        Identity { me, listed, client_address, founding, told_empty: BTreeMap::new() }
    }

    /// The answer to a greeting, on a connection that was accepted as the `number`th. Whoever is told that this node is empty
    /// may found a cluster with it.
    pub(crate) fn answer(&mut self, to: Member, number: u64) -> Hello {
        let is_newer = self.told_empty.get(&to.id).is_none_or(|(before, _)| *before < number);
        if self.founding.is_none() && is_newer {
            self.told_empty.insert(to.id, (number, to.incarnation));
        }
        self.hello(to.id)
    }

    /// Takes the record that `from` has handed over. False if that is of no use: `from` has been at this node again
    /// meanwhile, with an empty disk, and was told that this node is empty too. So it founds another cluster, unless some
    /// third node belongs to one; and then that node hands over its record.
    pub(crate) fn accept(&mut self, from: Member, record: &FoundingRecord) -> bool {
        let told = self.told_empty.get(&from.id);
        let is_of_use = told.is_none_or(|(_, incarnation)| *incarnation == from.incarnation);
        if is_of_use {
            self.founding = Some(record.clone());
        }
        is_of_use
    }

    pub(crate) fn cluster(&self) -> Option<[u8; 32]> {
        self.founding.as_ref().map(FoundingRecord::cluster_id)
    }

    pub(crate) fn hello(&self, to: NodeId) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            from: self.me,
            to,
            cluster: self.cluster(),
            listed: self.listed.clone(),
            client_address: self.client_address.clone(),
        }
    }

    /// Whether to talk to whoever sent `hello`.
    ///
    /// | mine | theirs | and | verdict |
    /// |---|---|---|---|
    /// | any | any | no common version, or meant for another node, or from myself | refused |
    /// | founded | founded | other cluster | refused |
    /// | founded | founded or empty | sender's id is not among the founders' | refused |
    /// | founded | founded | | `Members` |
    /// | founded | empty | with the founder's disk, or another one: it has lost that | `PeerEmpty` |
    /// | empty | founded | | `PeerFounded` |
    /// | empty | empty | other lists of peers | refused |
    /// | empty | empty | | `BothEmpty` |
    ///
    /// The error is the sentence the other side gets to read.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<Relation, String> {
        let id = hello.from.id;
        if hello.version_min > VERSION || hello.version_max < VERSION {
            return Err(format!(
                "node {} speaks protocol version {VERSION}, you speak {} to {}; upgrade the older node",
                self.me.id, hello.version_min, hello.version_max
            ));
        }
        if hello.to != self.me.id {
            return Err(format!("this is node {}, not node {}; check --peers", self.me.id, hello.to));
        }
        if id == self.me.id {
            return Err(format!("this is node {id} itself; check --id and --peers"));
        }
        match (&self.founding, hello.cluster) {
            (Some(record), theirs) => self.judge_founded(record, hello.from, theirs),
            (None, Some(_)) => Ok(Relation::PeerFounded),
            (None, None) if hello.listed != self.listed => Err(format!(
                "node {} was started with peers {:?}, you with {:?}; give every node the same list",
                self.me.id,
                numbers(&self.listed),
                numbers(&hello.listed)
            )),
            (None, None) => Ok(Relation::BothEmpty),
        }
    }

    fn judge_founded(
        &self,
        record: &FoundingRecord,
        from: Member,
        theirs: Option<[u8; 32]>,
    ) -> Result<Relation, String> {
        let mine = record.cluster_id();
        if let Some(theirs) = theirs.filter(|theirs| *theirs != mine) {
            return Err(format!(
                "node {} belongs to cluster {}, you belong to {}; check --dir and --peers",
                self.me.id,
                short(&mine),
                short(&theirs)
            ));
        }
        match record.configuration.voter(from.id) {
            None => Err(format!("node {} is not a member of cluster {}", from.id, short(&mine))),
            Some(_) if theirs.is_none() => Ok(Relation::PeerEmpty),
            Some(_) => Ok(Relation::Members),
        }
    }
}

fn numbers(ids: &[NodeId]) -> Vec<u64> {
    ids.iter().map(|id| id.get()).collect()
}

/// The first bytes of a cluster id, enough to tell two apart.
pub(crate) fn short(cluster: &[u8; 32]) -> String {
    cluster[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Configuration;

    fn member(id: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(id * 10))
    }

    fn record(secret: u8) -> FoundingRecord {
        let configuration = Configuration::new(vec![member(1), member(2), member(3)]);
        FoundingRecord { configuration, secret: [secret; 32] }
    }

    fn identity(id: u64, founding: Option<FoundingRecord>) -> Identity {
        let listed = [1, 2, 3].map(NodeId::new).to_vec();
        Identity::new(member(id), listed, String::new(), founding)
    }

    /// Every row of the table above [`Identity::judge`].
    #[test]
    fn every_row_of_the_table() {
        let to = NodeId::new(1);
        let says = |founding| identity(2, founding).hello(to);
        let founded = identity(1, Some(record(7)));
        let empty = identity(1, None);

        assert_eq!(founded.judge(&says(Some(record(7)))), Ok(Relation::Members));
        assert_eq!(founded.judge(&says(None)), Ok(Relation::PeerEmpty));
        assert_eq!(empty.judge(&says(Some(record(7)))), Ok(Relation::PeerFounded));
        assert_eq!(empty.judge(&says(None)), Ok(Relation::BothEmpty));

        for (who, hello, words) in [
            (&founded, says(Some(record(8))), "belongs to cluster"),
            (&founded, identity(9, Some(record(7))).hello(to), "not a member"),
            (&founded, identity(9, None).hello(to), "not a member"),
            (&empty, Hello { listed: vec![to], ..says(None) }, "same list"),
            (&empty, Hello { to: NodeId::new(3), ..says(None) }, "check --peers"),
            (&empty, identity(1, None).hello(to), "itself"),
            (&empty, Hello { version_min: 2, version_max: 3, ..says(None) }, "upgrade"),
        ] {
            let refusal = who.judge(&hello).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }

        // The core knows that it is another member, and what becomes of it.
        let wiped = Member::new(NodeId::new(2), Incarnation::new(999));
        for (cluster, relation) in [(None, Relation::PeerEmpty), (founded.cluster(), Relation::Members)] {
            assert_eq!(founded.judge(&Hello { from: wiped, cluster, ..says(None) }), Ok(relation));
        }
    }

    /// A record on its way from a node that has lost its disk since, and has begun to found anew, would leave this node in a
    /// cluster of its own.
    #[test]
    fn a_record_from_a_disk_that_is_gone_is_not_taken() {
        let (old, new) = (member(1), Member::new(NodeId::new(1), Incarnation::new(999)));
        let mut node = identity(2, None);
        assert_eq!(node.answer(old, 1).cluster, None);
        node.answer(new, 3);
        node.answer(old, 2);
        assert!(!node.accept(old, &record(7)), "the greeting that was answered last had been waiting");
        assert!(node.clone().accept(member(3), &record(7)), "somebody else belongs to that cluster");
        assert!(node.accept(new, &record(8)));
        assert_eq!(node.answer(new, 4).cluster, Some(record(8).cluster_id()));
    }

    #[test]
    fn node_state_round_trip() {
        for voted_for in [None, Some(member(3))] {
            let hard_state = HardState { term: Term::new(5), voted_for };
            for (is_given_up, is_diverged) in [(false, false), (true, false), (false, true), (true, true)] {
                let state = NodeState { me: member(1), hard_state, starts: 6, is_given_up, is_diverged };
                assert_eq!(NodeState::decode(&state.encode()), Some(state));
                let mut unknown = state.encode().to_vec();
                *unknown.last_mut().expect("the flags") |= 4;
                assert_eq!(NodeState::decode(&unknown), None);
            }
        }
        assert_eq!(NodeState::decode(&[1, 2, 3]), None);
        assert_eq!(NodeState::decode(&[]), None);
    }
}
