//! The log of a durable store: ops become entries, and are durable after a sync. No threads and no clock of its own.

use bytes::BytesMut;
use kv_wal::record::HEADER_BYTES;
use kv_wal::{Entry, EntryId, Index, Kind, Log, Term};

use super::error::DurableError;
use crate::outcome::Outcome;
use crate::store::Store;

/// There are no leaders here, hence one term.
pub(super) const TERM: Term = Term::new(1);
/// Carries an op.
const KIND_OP: Kind = Kind(1);
/// Carries a stamp only.
const KIND_CLOCK: Kind = Kind(2);

pub(super) const fn id_of(index: Index) -> EntryId {
    EntryId::new(TERM, index)
}

/// What one caller has asked for. It is durable as a whole or not at all.
#[derive(Debug)]
pub(super) enum Change {
    /// Encoded ops.
    Ops(Vec<Vec<u8>>),
    /// The clock takes a stamp, so that what has expired is removed.
    Clock,
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Ops(ops) => ops.iter().map(|op| HEADER_BYTES + op.len()).sum(),
            Change::Clock => HEADER_BYTES,
        }
    }
}

/// The state that is read: that after the entry `last`, which is durable.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) store: Store,
    pub(super) last: Index,
}

impl Live {
    /// Applies the next entry, which is durable.
    pub(super) fn apply(&mut self, entry: &Entry) -> Option<Outcome> {
        assert_eq!(entry.index(), self.last.next(), "entries are applied in the order of the log");
        let outcome = match entry.kind() {
            KIND_OP => Some(self.store.apply(entry.index(), entry.stamp_ms(), &entry.payload())),
            _ => {
                self.store.advance_clock(entry.stamp_ms());
                None
            }
        };
        self.last = entry.index();
        outcome
    }
}

/// Whether an entry of the log is of a kind that this release knows.
pub(super) fn is_known(entry: &Entry) -> bool {
    [KIND_OP, KIND_CLOCK].contains(&entry.kind())
}

/// The log, and what is to be known to add to it.
#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
    /// The greatest stamp of all entries, staged ones included.
    stamp_ms: u64,
    /// Bytes of entries that were there when the log was opened and that no checkpoint covered.
    found_bytes: u64,
    /// What [`Journal::grown_bytes`] was when the newest checkpoint was taken.
    covered_bytes: u64,
}

impl Journal {
    /// The log of a store whose state is `live`, to make which so many bytes of entries were replayed.
    pub(super) fn new(log: Log, live: &Live, replayed_bytes: u64) -> Journal {
        Journal { log, stamp_ms: live.store.clock_ms(), found_bytes: replayed_bytes, covered_bytes: 0 }
    }

    /// Stages the entries of a change, which are durable together after [`Journal::sync`].
    ///
    /// # Errors
    ///
    /// Nothing of it is staged then, and the log goes on.
    pub(super) fn stage(&mut self, change: &Change, now_ms: u64) -> Result<Vec<Entry>, DurableError> {
        // The machine's clock may be set back; that of the log never goes back.
        let stamp_ms = self.stamp_ms.max(now_ms);
        let mut buffer = BytesMut::with_capacity(change.bytes());
        let mut index = self.log.last().index;
        let mut encode = |kind, payload: &[u8]| {
            index = index.next();
            Entry::encode(&mut buffer, id_of(index), stamp_ms, kind, payload)
        };
        let entries: Vec<Entry> = match change {
            Change::Ops(ops) => ops.iter().map(|op| encode(KIND_OP, op)).collect(),
            Change::Clock => vec![encode(KIND_CLOCK, b"")],
        };
        self.log.append(&entries, None)?;
        self.stamp_ms = stamp_ms;
        Ok(entries)
    }

    /// Returns when all that is staged is durable.
    ///
    /// # Errors
    ///
    /// Nothing is known then about what was staged, and the log must not be used again.
    pub(super) fn sync(&mut self) -> Result<(), DurableError> {
        self.log.sync().map(drop).map_err(DurableError::Failed)
    }

    /// Bytes that the log has grown by, in all.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.found_bytes + self.log.stats().bytes_written
    }

    /// Bytes that the log has grown by since the newest checkpoint was taken.
    pub(super) fn uncovered_bytes(&self) -> u64 {
        self.grown_bytes() - self.covered_bytes
    }

    /// A checkpoint is there that was taken when the log had grown by so many bytes.
    pub(super) fn cover(&mut self, grown_bytes: u64) {
        self.covered_bytes = grown_bytes;
    }

    /// Removes the entries up to `upto`, and returns when that is durable.
    ///
    /// # Errors
    ///
    /// As for [`Journal::sync`]; or the disk is full, and nothing has changed.
    pub(super) fn forget(&mut self, upto: Index) -> Result<(), DurableError> {
        if upto <= self.log.base().index {
            return Ok(());
        }
        self.log.truncate_prefix(id_of(upto))?;
        self.sync()
    }

    /// Syncs and closes the log, and frees its directory.
    pub(super) fn close(self) -> Result<(), DurableError> {
        self.log.close().map_err(DurableError::Failed)
    }
}
