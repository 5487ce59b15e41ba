//! What the driver's own tests work with.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::replicated::Replicated;
use super::traits::{BoxError, CheckpointMeta, LogError, LogReader, StateMachine};
use crate::types::{Entry, EntryId, Index, Kind, Term};

/// A state machine that counts commands since its creation.
pub(super) struct Counter(pub(super) u64);

impl StateMachine for Counter {
    type Outcome = u64;
    type View = u64;

    fn create(_secret: [u8; 32]) -> Counter {
        Counter(0)
    }

    fn apply(&mut self, _index: Index, _stamp_ms: u64, _command: &Bytes) -> u64 {
        self.0 += 1;
        self.0
    }

    fn view(&self) -> u64 {
        self.0
    }

    fn digest(&self) -> [u8; 32] {
        [self.0 as u8; 32]
    }

    fn save(view: &u64, meta: &CheckpointMeta, out: &mut dyn io::Write) -> io::Result<()> {
        for number in [*view, meta.last.term.get(), meta.last.index.get()] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&meta.blob)
    }

    fn load(input: &mut dyn io::Read) -> Result<(Counter, CheckpointMeta), BoxError> {
        let mut number = || {
            let mut bytes = [0; 8];
            input.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        let (count, term, index) = (number()?, number()?, number()?);
        let mut blob = Vec::new();
        input.read_to_end(&mut blob)?;
        let last = EntryId::new(Term::new(term), Index::new(index));
        Ok((Counter(count), CheckpointMeta { last, blob: Bytes::from(blob) }))
    }
}

/// An entry of term 1.
pub(super) fn entry(at: u64, kind: Kind, payload: &[u8]) -> Entry {
    Entry::encode(&mut BytesMut::new(), EntryId::new(Term::new(1), Index::new(at)), 0, kind, payload)
}

/// A state that has applied `applied` entries without effect.
pub(super) fn state_at(applied: u64) -> Replicated<Counter> {
    let mut state = Replicated::empty();
    for at in 1..=applied {
        state.apply(&entry(at, crate::types::kind::NOOP, b""));
    }
    state
}

/// A log that has been reset to begin after entry 20.
#[derive(Clone)]
pub(super) struct Reset;

impl LogReader for Reset {
    fn read(&self, _range: Range<Index>, _bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        Err(LogError::new("gone"))
    }

    fn base(&self) -> EntryId {
        EntryId::new(Term::new(1), Index::new(20))
    }

    fn last(&self) -> EntryId {
        self.base()
    }

    fn term_runs(&self) -> Vec<EntryId> {
        Vec::new()
    }
}
