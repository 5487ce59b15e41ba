//! Walks the bytes of one segment and says of each batch what can be proved about it. Pure: bytes in, findings out.
//!
//! The walk goes from batch to batch. Where a header cannot be read, it looks at each later page for a header of this
//! segment (same salt) with a later sequence number and goes on there; a payload cannot imitate one, since nobody outside
//! knows the salt. What it finds is judged by `recovery`, which knows what later segments say.

use crate::format::{BatchHeader, Fault, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, is_zero};
use crate::record::{Entry, EntryId, HEADER_BYTES, Index, Term};

/// What can be proved about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// All of it is as it was written.
    Intact,
    /// At least one of its sectors was never written.
    Unwritten,
    /// Neither.
    Spoiled,
}

/// A batch, or a run of batches whose headers cannot be read.
#[derive(Debug)]
pub(crate) struct Found {
    /// Of the batch; of the first of a run.
    pub(crate) seq: u64,
    pub(crate) evidence: Evidence,
    /// `None` if it cannot be read.
    pub(crate) batch: Option<Batch>,
    /// In the segment.
    pub(crate) offset: usize,
}

/// A batch with a sound header. The rest is known only if it is intact.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    /// Of its entries, in the batch.
    pub(crate) offsets: Vec<u32>,
    pub(crate) runs: Vec<EntryId>,
}

/// All that a segment holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) found: Vec<Found>,
    /// From the end of the last batch with a sound header to the last sector that is not zeros.
    pub(crate) residue_bytes: u64,
}

/// Walks `bytes`, a whole segment with header `segment`, as far as batch `limit` (exclusive), where the next segment
/// takes over; to the end of what is there if none does.
pub(crate) fn scan(bytes: &[u8], segment: &SegmentHeader, limit: Option<u64>) -> Scan {
    let mut found = Vec::new();
    let (mut offset, mut seq, mut chain) = (PAGE_BYTES, segment.next_batch, Some(segment.chain));
    while limit.is_none_or(|limit| seq < limit) {
        match header_at(bytes, offset, segment.salt) {
            Ok(header) if header.seq == seq => {
                let item = examine(header, chain, bytes, offset);
                let header = &item.batch.as_ref().expect("its header is sound").header;
                (offset, seq, chain) = (offset + header.total_bytes(), seq + 1, Some(header.crc));
                found.push(item);
            }
            other => {
                let zeros = matches!(other, Err(Fault::Zeros));
                let evidence = if zeros { Evidence::Unwritten } else { Evidence::Spoiled };
                let later = resync(bytes, offset, segment.salt, seq, limit);
                let nothing = zeros && later.is_none() && limit.is_none() && is_zero(&bytes[offset.min(bytes.len())..]);
                let full = limit.is_none() && offset + PAGE_BYTES > bytes.len();
                if !nothing && !full {
                    found.push(Found { seq, evidence, batch: None, offset });
                }
                let Some((at, header)) = later else { break };
                (offset, seq, chain) = (at, header.seq, None);
            }
        }
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    let residue_sectors = rest.chunks(SECTOR_BYTES).rposition(|sector| !is_zero(sector)).map_or(0, |at| at + 1);
    Scan { found, residue_bytes: (residue_sectors * SECTOR_BYTES) as u64 }
}

/// The header at `offset`, if it is one of this use of the file and its batch ends within it.
fn header_at(bytes: &[u8], offset: usize, salt: u64) -> Result<BatchHeader, Fault> {
    let sector = bytes.get(offset..offset + SECTOR_BYTES).ok_or(Fault::Unreadable)?;
    let header = BatchHeader::decode(sector)?;
    let ours = header.salt == salt && header.total_bytes() <= bytes.len() - offset;
    if ours { Ok(header) } else { Err(Fault::Unreadable) }
}

/// The next batch whose header is sound.
fn resync(bytes: &[u8], offset: usize, salt: u64, seq: u64, limit: Option<u64>) -> Option<(usize, BatchHeader)> {
    (offset + PAGE_BYTES..bytes.len()).step_by(PAGE_BYTES).find_map(|at| {
        let header = header_at(bytes, at, salt).ok()?;
        (header.seq > seq && limit.is_none_or(|limit| header.seq < limit)).then_some((at, header))
    })
}

fn examine(header: BatchHeader, chain: Option<u32>, bytes: &[u8], offset: usize) -> Found {
    let body = &bytes[offset + SECTOR_BYTES..offset + header.total_bytes()];
    // A batch without entries is all in its header.
    let sound = header.count == 0 || crc32c::crc32c(body) == header.body_crc;
    let entries = if sound { walk(&header, body) } else { None };
    let evidence = match &entries {
        Some(_) if chain.is_none_or(|chain| chain == header.chain) => Evidence::Intact,
        _ if !sound && header.written.shows_unwritten(body) => Evidence::Unwritten,
        _ => Evidence::Spoiled,
    };
    let (offsets, runs) = entries.unwrap_or_default();
    Found { seq: header.seq, evidence, batch: Some(Batch { header, offsets, runs }), offset }
}

/// Where the entries lie and where their terms change; `None` if they are not what the header says. Their own checksums
/// are left for when they are read: the body's covers them.
fn walk(header: &BatchHeader, body: &[u8]) -> Option<(Vec<u32>, Vec<EntryId>)> {
    let body = &body[..header.body_bytes as usize];
    let mut offsets = Vec::with_capacity(header.count as usize);
    let mut runs: Vec<EntryId> = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let frame_bytes = Entry::frame_bytes_of(&body[at..]).ok()?;
        let id = id_of(&body[at..at + HEADER_BYTES]);
        if id.index != header.first().plus(offsets.len() as u64) {
            return None;
        }
        if runs.last().is_none_or(|run| run.term != id.term) {
            runs.push(id);
        }
        offsets.push((SECTOR_BYTES + at) as u32);
        at += frame_bytes;
    }
    (offsets.len() == header.count as usize).then_some((offsets, runs))
}

/// Index and term of an encoded entry (see `record`), without its checksum.
fn id_of(frame: &[u8]) -> EntryId {
    let read = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
    EntryId::new(Term::new(read(16)), Index::new(read(8)))
}
