//! Exactly-once: which commands of which node process have been executed (Raft paper, section 8; thesis, section 6.3).
//!
//! Each node process opens a session by an entry and numbers its commands 1, 2, 3, ... within it. After a change of
//! leader it sends again, in order, whatever has no answer. A command is executed only if its number is the next one of
//! its session, so a doubled command has no effect and a lost one leaves a gap that stops those behind it. A new process
//! of a node ends the session of the one before: its late commands find no session and are not executed. Hence there is
//! at most one session a node, and nothing needs to expire. Processes of a node are ordered by their nonce, so that a
//! request to open a session that was long on its way does not end the session of a later process.
//!
//! This is replicated state: every node keeps the same table, in checkpoints and under the state hash.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use bytes::{Buf, BufMut, BytesMut};

use crate::planted::{self, Mistake};
use crate::types::NodeId;

/// The sessions, by their number, which is the index of the entry that opened them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    open: BTreeMap<u64, Session>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    node: NodeId,
    nonce: u64,
    last_sequence: u64,
}

/// Whether a command may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The next one: execute it.
    Fresh,
    /// Executed before.
    Duplicate,
    /// One before it is missing: no effect, it will be sent again.
    Gap,
    /// The session has ended: no effect, nobody waits.
    Unknown,
}

impl Sessions {
    const RECORD_BYTES: usize = 32;

    /// Opens a session for the process `nonce` of `node`, unless it or a later process has one. Gives the session that
    /// the node has now: its number, and the nonce of its process.
    pub(crate) fn open(&mut self, index: u64, node: NodeId, nonce: u64) -> (u64, u64) {
        if let Some((number, known, _)) = self.find(node) {
            if known >= nonce {
                return (number, known);
            }
            self.open.remove(&number);
        }
        self.open.insert(index, Session { node, nonce, last_sequence: 0 });
        (index, nonce)
    }

    /// Judges a command and, if it is fresh, counts it as executed.
    pub(crate) fn admit(&mut self, session: u64, sequence: u64) -> Admission {
        let Some(session) = self.open.get_mut(&session) else { return Admission::Unknown };
        if sequence <= session.last_sequence && planted::is(Mistake::DoubledCommandExecuted) {
            Admission::Fresh
        } else if sequence <= session.last_sequence {
            Admission::Duplicate
        } else if sequence == session.last_sequence + 1 {
            session.last_sequence = sequence;
            Admission::Fresh
        } else {
            Admission::Gap
        }
    }

    /// The node's session: its number, the nonce of its process, and its last executed command.
    pub(crate) fn find(&self, node: NodeId) -> Option<(u64, u64, u64)> {
        let mut all = self.open.iter();
        all.find(|(_, s)| s.node == node).map(|(number, s)| (*number, s.nonce, s.last_sequence))
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.open.len() as u32);
        let mut open: Vec<_> = self.open.iter().collect();
        if planted::is(Mistake::HashOrder) {
            let order = std::hash::RandomState::new();
            open.sort_by_key(|(number, _)| order.hash_one(number));
        }
        for (number, session) in open {
            out.put_u64_le(*number);
            out.put_u64_le(session.node.get());
            out.put_u64_le(session.nonce);
            out.put_u64_le(session.last_sequence);
        }
    }

    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Sessions> {
        let count = bytes.try_get_u32_le().ok()? as usize;
        if bytes.len() < count.checked_mul(Self::RECORD_BYTES)? {
            return None;
        }
        let mut open = BTreeMap::new();
        for _ in 0..count {
            let number = bytes.get_u64_le();
            let node = NodeId::new(bytes.get_u64_le());
            let session = Session { node, nonce: bytes.get_u64_le(), last_sequence: bytes.get_u64_le() };
            open.insert(number, session);
        }
        Some(Sessions { open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::new(1);

    #[test]
    fn thesis_6_3_a_command_is_executed_once_and_in_sequence() {
        let mut sessions = Sessions::default();
        let (session, _) = sessions.open(10, NODE, 1);
        assert_eq!(sessions.admit(session, 1), Admission::Fresh);
        assert_eq!(sessions.admit(session, 1), Admission::Duplicate);
        assert_eq!(sessions.admit(session, 3), Admission::Gap);
        assert_eq!(sessions.admit(session, 2), Admission::Fresh);
        assert_eq!(sessions.admit(session, 3), Admission::Fresh);
        assert_eq!(sessions.admit(session, 2), Admission::Duplicate);
    }

    #[test]
    fn a_new_process_ends_the_session_of_the_old_one() {
        let mut sessions = Sessions::default();
        let (old, _) = sessions.open(10, NODE, 1);
        assert_eq!(sessions.admit(old, 1), Admission::Fresh);
        let (other, _) = sessions.open(11, NodeId::new(2), 1);
        let (new, _) = sessions.open(12, NODE, 2);
        assert_eq!(sessions.admit(old, 2), Admission::Unknown);
        assert_eq!(sessions.admit(new, 1), Admission::Fresh);
        assert_eq!(sessions.admit(other, 1), Admission::Fresh, "another node's session is untouched");
    }

    #[test]
    fn opening_twice_changes_nothing() {
        let mut sessions = Sessions::default();
        let (session, _) = sessions.open(10, NODE, 1);
        sessions.admit(session, 1);
        assert_eq!(sessions.open(13, NODE, 1), (session, 1));
        assert_eq!(sessions.admit(session, 1), Admission::Duplicate);
        assert_eq!(sessions.find(NODE), Some((session, 1, 1)));
    }

    #[test]
    fn a_late_request_of_an_old_process_ends_nothing() {
        let mut sessions = Sessions::default();
        sessions.open(10, NODE, 1);
        let (new, _) = sessions.open(11, NODE, 2);
        assert_eq!(sessions.open(12, NODE, 1), (new, 2), "it learns of the later process");
        assert_eq!(sessions.admit(new, 1), Admission::Fresh);
    }

    #[test]
    fn bytes_round_trip() {
        let mut sessions = Sessions::default();
        sessions.open(10, NODE, 1);
        sessions.open(20, NodeId::new(2), 7);
        sessions.admit(20, 1);
        let mut bytes = BytesMut::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&mut &bytes[..]), Some(sessions));
        for cut in 0..bytes.len() {
            assert_eq!(Sessions::decode(&mut &bytes[..cut]), None);
        }
    }
}
