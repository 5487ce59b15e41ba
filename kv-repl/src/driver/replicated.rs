//! All that apply reads: the embedder's state machine and, beside it, what replication itself must agree on.
//!
//! Everything here changes by entries only, is carried in checkpoints and covered by the state hash.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::founding::FoundingRecord;
use super::sessions::{Admission, Sessions};
use super::traits::{CheckpointMeta, StateMachine};
use crate::planted;
use crate::raft::Agreed;
use crate::types::{Configuration, Entry, EntryId, Index, NodeId, kind};

const BLOB_VERSION: u8 = 2;

/// The replicated state of one node.
pub(crate) struct Replicated<S> {
    pub(crate) machine: S,
    pub(crate) applied: EntryId,
    pub(crate) founding: Option<FoundingRecord>,
    configuration: Configuration,
    stamp_ms: u64,
    sessions: Sessions,
}

/// What applying an entry means to the node process that waits for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<O> {
    /// Nothing that anybody waits for.
    Nothing,
    /// A session was asked for; this is the one that the node has now, perhaps of a later process.
    Session { session: u64, node: NodeId, nonce: u64 },
    /// A command was executed.
    Outcome { session: u64, sequence: u64, outcome: O },
    /// A mark was passed: note the state hash. Somebody waits for it, unless the leader made it.
    Mark { waiting: Option<(u64, u64)> },
    /// What a majority noted at a mark.
    Agreed(Agreed),
    /// A command that its client has given up was passed over for good.
    Skipped { session: u64, sequence: u64 },
    /// A command was not executed, because one before it is missing.
    Gap { session: u64 },
}

/// Payload of an entry that opens a session.
pub(crate) fn session_payload(node: NodeId, nonce: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u64_le(node.get());
    out.put_u64_le(nonce);
    out.freeze()
}

/// Bytes that a session adds to a command.
pub(crate) const COMMAND_HEADER_BYTES: usize = 16;

/// Appends the payload of a command or a mark to `out`.
pub(crate) fn put_command(session: u64, sequence: u64, command: &[u8], out: &mut BytesMut) {
    out.put_u64_le(session);
    out.put_u64_le(sequence);
    out.put_slice(command);
}

impl<S: StateMachine> Replicated<S> {
    /// Before the founding record. The state machine is not used yet.
    pub(crate) fn empty() -> Self {
        Replicated {
            machine: S::create([0; 32]),
            applied: EntryId::ZERO,
            founding: None,
            configuration: Configuration::default(),
            stamp_ms: 0,
            sessions: Sessions::default(),
        }
    }

    /// Runs one entry. Entries come in order, each once.
    ///
    /// # Panics
    ///
    /// If the entry is not the one after the last applied.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Effect<S::Outcome> {
        assert_eq!(entry.index(), self.applied.index.next(), "entries are applied in order");
        self.applied = entry.id();
        self.stamp_ms = self.stamp_ms.max(entry.stamp_ms());
        let stamp_ms = planted::stamp_ms(self.stamp_ms);
        if entry.kind() != kind::COMMAND {
            self.machine.advance_clock(stamp_ms);
        }
        let mut payload = entry.payload();
        match entry.kind() {
            kind::COMMAND => self.admit(&mut payload, |state, session, sequence, command| {
                let outcome = state.machine.apply(entry.index(), stamp_ms, command);
                Effect::Outcome { session, sequence, outcome }
            }),
            kind::MARK if payload.is_empty() => Effect::Mark { waiting: None },
            kind::MARK => {
                self.admit(&mut payload, |_, session, sequence, _| Effect::Mark { waiting: Some((session, sequence)) })
            }
            kind::AGREED => Agreed::decode(&payload).map_or(Effect::Nothing, Effect::Agreed),
            kind::SKIP => self.admit(&mut payload, |_, session, sequence, _| Effect::Skipped { session, sequence }),
            kind::SESSION => self.apply_session(entry.index(), payload),
            // The record is the first entry of every log; anywhere else it would wipe the state.
            kind::FOUNDING if entry.index() == FoundingRecord::ENTRY_ID.index => {
                if let Some(record) = FoundingRecord::decode(&payload) {
                    self.machine = S::create(record.secret);
                    self.configuration = record.configuration.clone();
                    self.founding = Some(record);
                }
                Effect::Nothing
            }
            kind::CONFIGURATION => {
                // The core has looked at it before it let it in.
                self.configuration = Configuration::decode(&payload).expect("a configuration");
                Effect::Nothing
            }
            _ => Effect::Nothing,
        }
    }

    /// Runs `fresh` if this is the next command of its session, and only then.
    fn admit(
        &mut self,
        payload: &mut Bytes,
        fresh: impl FnOnce(&mut Self, u64, u64, &Bytes) -> Effect<S::Outcome>,
    ) -> Effect<S::Outcome> {
        let Some((session, sequence)) = take_command_header(payload) else { return Effect::Nothing };
        match self.sessions.admit(session, sequence) {
            Admission::Fresh => fresh(self, session, sequence, payload),
            Admission::Gap => Effect::Gap { session },
            Admission::Duplicate | Admission::Unknown => Effect::Nothing,
        }
    }

    fn apply_session(&mut self, index: Index, mut payload: Bytes) -> Effect<S::Outcome> {
        if payload.len() != 16 {
            return Effect::Nothing;
        }
        let node = NodeId::new(payload.get_u64_le());
        let nonce = payload.get_u64_le();
        let (session, nonce) = self.sessions.open(index.get(), node, nonce);
        Effect::Session { session, node, nonce }
    }

    /// The node's session: its number, the nonce of its process, and its last executed command.
    pub(crate) fn session(&self, node: NodeId) -> Option<(u64, u64, u64)> {
        self.sessions.find(node)
    }

    /// Who belongs to the cluster, as of the last entry applied.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The greatest stamp of all entries that have been applied.
    pub(crate) fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// Everything but the state machine, as bytes that are the same on every node.
    pub(crate) fn blob(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(BLOB_VERSION);
        out.put_u64_le(self.stamp_ms);
        let record = self.founding.as_ref().map(FoundingRecord::encode).unwrap_or_default();
        put_bytes(&record, &mut out);
        let configuration = self.founding.as_ref().map(|_| self.configuration.encode()).unwrap_or_default();
        put_bytes(&configuration, &mut out);
        self.sessions.encode(&mut out);
        out.freeze()
    }

    /// The state hash: over the applied index, the state machine and everything beside it.
    pub(crate) fn state_hash(&self) -> [u8; 32] {
        state_hash(self.applied.index, &self.machine.digest(), &blob_hash(&self.blob()))
    }

    /// What goes into a checkpoint taken now.
    pub(crate) fn checkpoint_meta(&self) -> CheckpointMeta {
        CheckpointMeta { last: self.applied, blob: self.blob() }
    }

    /// The state that a checkpoint holds; `None` if its blob is not of this version.
    pub(crate) fn restore(machine: S, meta: &CheckpointMeta) -> Option<Self> {
        let mut blob = &meta.blob[..];
        if blob.try_get_u8().ok()? != BLOB_VERSION {
            return None;
        }
        let stamp_ms = blob.try_get_u64_le().ok()?;
        let (record, configuration) = (take_bytes(&mut blob)?, take_bytes(&mut blob)?);
        let founding = if record.is_empty() { None } else { Some(FoundingRecord::decode(record)?) };
        let configuration = match founding {
            None => Configuration::default(),
            Some(_) => Configuration::decode(configuration)?,
        };
        let sessions = Sessions::decode(&mut blob)?;
        blob.is_empty().then_some(Replicated {
            machine,
            applied: meta.last,
            founding,
            configuration,
            stamp_ms,
            sessions,
        })
    }
}

/// Hash of what [`Replicated::blob`] gave.
pub(crate) fn blob_hash(blob: &[u8]) -> [u8; 32] {
    Sha256::digest(blob).into()
}

/// The state hash from its parts, so that whoever knows the parts can check it.
pub fn state_hash(applied: Index, machine_digest: &[u8; 32], blob_hash: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"kv-repl state hash 1");
    hash.update(applied.get().to_le_bytes());
    hash.update(machine_digest);
    hash.update(blob_hash);
    hash.finalize().into()
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = from.try_get_u32_le().ok()? as usize;
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes)
}

fn take_command_header(payload: &mut Bytes) -> Option<(u64, u64)> {
    if payload.len() < COMMAND_HEADER_BYTES {
        return None;
    }
    Some((payload.get_u64_le(), payload.get_u64_le()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::{Counter, entry};
    use crate::types::{Configuration, Incarnation, Kind, Member};

    #[test]
    fn a_cluster_is_founded_once() {
        let voters = vec![Member::new(NodeId::new(1), Incarnation::new(7))];
        let record = FoundingRecord { configuration: Configuration::new(voters), secret: [9; 32] };
        let mut state = Replicated::<Counter>::empty();
        state.apply(&record.entry());
        let session = state.apply(&entry(2, kind::SESSION, &session_payload(NodeId::new(1), 5)));
        assert_eq!(session, Effect::Session { session: 2, node: NodeId::new(1), nonce: 5 });
        let mut command = BytesMut::new();
        put_command(2, 1, b"count", &mut command);
        assert_eq!(
            state.apply(&entry(3, kind::COMMAND, &command)),
            Effect::Outcome { session: 2, sequence: 1, outcome: 1 }
        );
        let other = FoundingRecord { secret: [8; 32], ..record.clone() };
        assert_eq!(state.apply(&entry(4, kind::FOUNDING, &other.encode())), Effect::Nothing);
        assert_eq!((state.machine.0, state.founding), (1, Some(record)), "nothing was wiped");
    }

    #[test]
    fn only_what_clients_ask_for_is_forwarded() {
        let forwarded: Vec<u8> = (0..=u8::MAX).filter(|number| kind::is_forwarded(Kind(*number))).collect();
        assert_eq!(forwarded, [kind::COMMAND, kind::SESSION, kind::MARK, kind::SKIP].map(|kind| kind.0));
    }
}
