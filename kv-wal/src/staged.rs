//! A batch while it gathers entries in memory, laid out as it will be on disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::damage::DamageList;
use crate::format::{BatchHeader, NO_BITMAP, PAGE_BYTES, SECTOR_BYTES, Standing, batch_bytes};
use crate::record::{Entry, EntryId, Index, Term};
use crate::segment::Segment;

/// Changes that will be written as one batch, hence survive a crash together or not at all.
#[derive(Debug)]
pub(crate) struct Staged {
    /// What the log looks like after it; its cuts are filled in when it is sealed.
    pub(crate) standing: Standing,
    /// Header sector, entries; after sealing also the padding.
    pub(crate) buffer: Vec<u8>,
    /// Of each entry, in the batch.
    pub(crate) offsets: Vec<u32>,
    /// First entry of each run of equal terms.
    pub(crate) runs: Vec<EntryId>,
    /// Whether it removes entries from the end of the log before it appends its own.
    pub(crate) cuts: bool,
    /// The first of its entries, which take the place of lost ones; `None` for a batch that follows the log.
    pub(crate) fills: Option<Index>,
    /// Bytes of its segment from where it will be written to the end, and those of them that are kept (see `Brings`).
    room: u64,
    reserve: u64,
    /// The segment it opens; `None` if it follows the batch before it.
    pub(crate) opens: Option<Arc<Segment>>,
}

/// What a batch is told about the batches before it when it is written.
#[derive(Debug)]
pub(crate) struct Seal {
    pub(crate) salt: u64,
    pub(crate) seq: u64,
    pub(crate) durable_batch: u64,
    pub(crate) chain: u32,
}

/// What a change brings, and hence what it leaves of a segment's end to others: on a full disk, state goes where no entry
/// can, and a truncation, which makes room, where no state can.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Brings {
    /// Entries of so many bytes.
    Entries(usize),
    State,
    Truncation,
}

impl Brings {
    pub(crate) fn entries(entries: &[Entry]) -> Brings {
        if entries.is_empty() { Brings::State } else { Brings::Entries(entries.iter().map(|e| e.frame().len()).sum()) }
    }

    /// Bytes of entries.
    pub(crate) fn bytes(self) -> usize {
        if let Brings::Entries(bytes) = self { bytes } else { 0 }
    }

    /// Bytes that it leaves of a segment that keeps `reserve`.
    pub(crate) fn leaves(self, reserve: u64) -> u64 {
        match self {
            Brings::Entries(_) => reserve,
            Brings::State => PAGE_BYTES as u64,
            Brings::Truncation => 0,
        }
    }
}

impl Staged {
    /// An empty batch that changes nothing. It uses the memory of a `retired` one.
    pub(crate) fn new(
        retired: Option<Staged>,
        standing: Standing,
        (room, reserve): (u64, u64),
        opens: Option<Arc<Segment>>,
    ) -> Self {
        let (mut buffer, mut offsets, mut runs) =
            retired.map_or_else(Default::default, |batch| (batch.buffer, batch.offsets, batch.runs));
        buffer.clear();
        buffer.resize(SECTOR_BYTES, 0);
        offsets.clear();
        runs.clear();
        Staged { standing, buffer, offsets, runs, cuts: false, fills: None, room, reserve, opens }
    }

    /// Whether a change can join: a cut only if no entry comes before it in the batch, entries only if the batch stays
    /// within `bytes_max` and its segment.
    pub(crate) fn accepts(&self, cuts: bool, brings: Brings, bytes_max: usize) -> bool {
        let body_bytes = self.buffer.len() - SECTOR_BYTES + brings.bytes();
        let fits = self.offsets.is_empty() || body_bytes <= bytes_max;
        let leaves = brings.leaves(self.reserve);
        fits && (!cuts || self.offsets.is_empty()) && batch_bytes(body_bytes) as u64 + leaves <= self.room
    }

    /// Bytes of its segment that are left for the next batch.
    pub(crate) fn room_after(&self) -> u64 {
        self.room - batch_bytes(self.buffer.len() - SECTOR_BYTES) as u64
    }

    /// Takes consecutive entries, the last of which becomes the last of the log.
    pub(crate) fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) {
        self.take(entries);
        if let Some(last) = entries.last() {
            self.standing.last = last.id();
        }
        if let Some(state) = state {
            self.standing.state = Some(Bytes::copy_from_slice(state));
            self.standing.state_in_doubt = false;
        }
    }

    /// Takes consecutive entries that take the place of lost ones. Only for a fresh batch.
    pub(crate) fn fill(&mut self, entries: &[Entry]) {
        self.fills = entries.first().map(Entry::index);
        self.take(entries);
        let last = entries.last().expect("a repair has entries").id();
        if last.index > self.standing.last.index {
            self.standing.last = last;
        }
    }

    fn take(&mut self, entries: &[Entry]) {
        let bytes: usize = entries.iter().map(|entry| entry.frame().len()).sum();
        self.buffer.reserve(batch_bytes(self.buffer.len() - SECTOR_BYTES + bytes) - self.buffer.len());
        self.offsets.reserve(entries.len());
        let mut term = self.runs.last().map(|_| self.standing.last.term);
        for entry in entries {
            let id = entry.id();
            if term != Some(id.term) {
                self.runs.push(id);
                term = Some(id.term);
            }
            self.offsets.push(self.buffer.len() as u32);
            self.buffer.extend_from_slice(entry.frame());
        }
    }

    /// Index of its first entry; if it has none, the index after the last of the log.
    pub(crate) fn first(&self) -> Index {
        self.fills.unwrap_or_else(|| self.standing.first(self.offsets.len()))
    }

    /// What becomes of lost entries by it.
    pub(crate) fn mend(&self, damage: &mut DamageList) {
        let first = self.first();
        if self.fills.is_some() {
            damage.remove(first, first.plus(self.offsets.len() as u64));
        } else if self.cuts {
            damage.cut(first);
        }
        damage.clip(self.standing.base.index);
    }

    /// The term of one of its entries.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let first = self.first();
        let run = self.runs.partition_point(|run| run.index <= index).checked_sub(1)?;
        (first <= index && index <= self.standing.last.index).then(|| self.runs[run].term)
    }

    /// Completes header and padding. `before` is the standing of the batch before it, and becomes that of this one.
    /// Gives the checksum of the header.
    pub(crate) fn seal(&mut self, before: &mut Standing, seal: &Seal) -> u32 {
        let body_bytes = self.buffer.len() - SECTOR_BYTES;
        self.buffer.resize(batch_bytes(body_bytes), 0);
        let (cuts, cut) = (before.cuts, before.cut);
        // One that fills moves the end at most onwards.
        let first = if self.fills.is_some() { self.standing.last.index.next() } else { self.first() };
        assert!(self.cuts || first > before.last.index, "an override is a cut");
        let cuts_end = self.cuts;
        let header = BatchHeader {
            salt: seal.salt,
            seq: seal.seq,
            durable_batch: seal.durable_batch,
            chain: seal.chain,
            body_crc: 0,
            body_bytes: u32::try_from(body_bytes).expect("limited by BATCH_BYTES_MAX"),
            count: u32::try_from(self.offsets.len()).expect("limited by BATCH_BYTES_MAX"),
            standing: Standing { cuts, cut, ..self.standing.clone() },
            cuts_end,
            fills: self.fills.is_some(),
            bitmap: NO_BITMAP,
            crc: 0,
        };
        before.advance(&self.standing, first, cuts_end);
        header.seal(&mut self.buffer)
    }
}
