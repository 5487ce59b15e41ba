//! A batch while it gathers entries in memory, laid out as it will be on disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::format::{BatchHeader, NonZeroMap, SECTOR_BYTES, Standing, batch_bytes};
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
    /// Bytes of its segment from where it will be written to the end.
    room: u64,
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

impl Staged {
    /// An empty batch that changes nothing. `buffer` is reused.
    pub(crate) fn new(standing: Standing, mut buffer: Vec<u8>, room: u64, opens: Option<Arc<Segment>>) -> Self {
        buffer.clear();
        buffer.resize(SECTOR_BYTES, 0);
        Staged { standing, buffer, offsets: Vec::new(), runs: Vec::new(), room, opens }
    }

    /// Whether a change can join: a cut only if no entry comes before it in the batch, entries only if the batch stays
    /// within `bytes_max` and its segment.
    pub(crate) fn accepts(&self, cuts: bool, more_bytes: usize, bytes_max: usize) -> bool {
        let body_bytes = self.buffer.len() - SECTOR_BYTES + more_bytes;
        let fits = self.offsets.is_empty() || body_bytes <= bytes_max;
        fits && (!cuts || self.offsets.is_empty()) && batch_bytes(body_bytes) as u64 <= self.room
    }

    /// Bytes of its segment that are left for the next batch.
    pub(crate) fn room_after(&self) -> u64 {
        self.room - batch_bytes(self.buffer.len() - SECTOR_BYTES) as u64
    }

    /// Takes consecutive entries, the last of which becomes the last of the log.
    pub(crate) fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) {
        let mut term = self.runs.last().map(|_| self.standing.last.term);
        for entry in entries {
            let id = entry.id();
            if term != Some(id.term) {
                self.runs.push(id);
                term = Some(id.term);
            }
            self.offsets.push(self.buffer.len() as u32);
            self.buffer.extend_from_slice(entry.frame());
            self.standing.last = id;
        }
        if let Some(state) = state {
            self.standing.state = Some(Bytes::copy_from_slice(state));
        }
    }

    /// The term of one of its entries.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let first = self.standing.first(self.offsets.len());
        let run = self.runs.partition_point(|run| run.index <= index).checked_sub(1)?;
        (first <= index && index <= self.standing.last.index).then(|| self.runs[run].term)
    }

    /// Completes header and padding. `before` is the standing of the batch before it, and becomes that of this one.
    /// Gives the checksum of the header.
    pub(crate) fn seal(&mut self, before: &mut Standing, seal: &Seal) -> u32 {
        let body_bytes = self.buffer.len() - SECTOR_BYTES;
        self.buffer.resize(batch_bytes(body_bytes), 0);
        let (cuts, cut) = (before.cuts, before.cut);
        let first = self.standing.first(self.offsets.len());
        let cuts_end = first <= before.last.index;
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
            written: NonZeroMap::EMPTY,
            crc: 0,
        };
        before.advance(&self.standing, first, cuts_end);
        header.seal(&mut self.buffer)
    }
}
