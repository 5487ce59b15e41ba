//! Walks the bytes of one segment and says of each batch what can be proved about it. Pure: bytes in, findings out.
//!
//! The walk goes from batch to batch. Where a header cannot be read, it looks at each later page for a header of this
//! segment (same salt) with a later sequence number and goes on there; a payload cannot imitate one, since nobody outside
//! knows the salt. What it finds is judged by `recovery`, which knows what later segments say.

use crate::format::{BATCHES_AT, BatchHeader, Fault, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, is_blank};
use crate::record::{Entry, EntryId, HEADER_BYTES, Index, Term};
use crate::window::Window;

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

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) found: Vec<Found>,
    /// Where the next segment has taken over; `None` if there is no telling.
    pub(crate) end: Option<usize>,
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

/// A batch with a sound header.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    /// Its entries: one piece if it is intact, otherwise what has sound checksums of its own.
    pub(crate) pieces: Vec<Piece>,
}

/// Consecutive entries of a batch.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first: Index,
    /// Of the entries, in the batch.
    pub(crate) offsets: Vec<u32>,
    /// First entry of each run of equal terms.
    pub(crate) runs: Vec<EntryId>,
}

/// Walks a segment with header `segment` as far as batch `limit` (exclusive), where the next segment takes over; to the end
/// of what is there if none does.
pub(crate) fn walk(window: &mut Window<'_>, segment: &SegmentHeader, limit: Option<u64>) -> Walked {
    let mut found = Vec::new();
    let mut is_whole = true;
    let (mut offset, mut seq, mut chain) = (BATCHES_AT, segment.next_batch, Some(segment.chain));
    while limit.is_none_or(|limit| seq < limit) {
        match header_at(window, offset, segment.salt) {
            Ok(header) if header.seq == seq => {
                let body = window.get(offset + SECTOR_BYTES..offset + header.total_bytes());
                let item = examine(header, chain, body, offset);
                let header = &item.batch.as_ref().expect("its header is sound").header;
                (offset, seq, chain) = (offset + header.total_bytes(), seq + 1, Some(header.crc));
                found.push(item);
            }
            other => {
                let blank = matches!(other, Err(Fault::Blank));
                let evidence = if blank { Evidence::Unwritten } else { Evidence::Spoiled };
                let Rest { later, all_blank } = rest(window, offset, segment.salt, seq, limit);
                let nothing = blank && all_blank && limit.is_none();
                let full = limit.is_none() && (offset + PAGE_BYTES) as u64 > segment.bytes;
                if !nothing && !full {
                    found.push(Found { seq, evidence, batch: None, offset });
                }
                let Some((at, header)) = later else {
                    is_whole = false;
                    break;
                };
                (offset, seq, chain) = (at, header.seq, None);
            }
        }
    }
    Walked { found, end: is_whole.then_some(offset) }
}

/// Where the first batch starts, from `from` on, that the next segment has taken over: number `limit` or a later one.
pub(crate) fn taken_over(window: &mut Window<'_>, from: usize, salt: u64, limit: u64) -> Option<usize> {
    let mut pages = (from..window.bytes()).step_by(PAGE_BYTES);
    pages.find(|&at| header_at(window, at, salt).is_ok_and(|header| header.seq >= limit))
}

/// The header at `offset`, if it is one of this use of the file and its batch ends within it.
fn header_at(window: &mut Window<'_>, offset: usize, salt: u64) -> Result<BatchHeader, Fault> {
    let room = window.bytes().saturating_sub(offset);
    if room < SECTOR_BYTES {
        return Err(Fault::Unreadable);
    }
    let header = BatchHeader::decode(window.get(offset..offset + SECTOR_BYTES), salt)?;
    if header.total_bytes() <= room { Ok(header) } else { Err(Fault::Unreadable) }
}

/// What follows a place where no header is.
struct Rest {
    /// The next batch whose header is sound.
    later: Option<(usize, BatchHeader)>,
    /// Nothing has been written there.
    all_blank: bool,
}

fn rest(window: &mut Window<'_>, offset: usize, salt: u64, seq: u64, limit: Option<u64>) -> Rest {
    let mut all_blank = true;
    for at in (offset..window.bytes()).step_by(PAGE_BYTES) {
        if is_blank(window.get(at..(at + PAGE_BYTES).min(window.bytes())), salt) {
            continue;
        }
        all_blank = false;
        if at > offset
            && let Ok(header) = header_at(window, at, salt)
            && header.seq > seq
            && limit.is_none_or(|limit| header.seq < limit)
        {
            return Rest { later: Some((at, header)), all_blank };
        }
    }
    Rest { later: None, all_blank }
}

fn examine(header: BatchHeader, chain: Option<u32>, body: &[u8], offset: usize) -> Found {
    let sound = header.is_body(body);
    let chained = chain.is_none_or(|chain| chain == header.chain);
    let pieces = pieces(&header, body, sound);
    let whole = pieces.iter().map(|piece| piece.offsets.len()).sum::<usize>() == header.count as usize;
    let evidence = match (sound, chained) {
        (true, true) if whole => Evidence::Intact,
        (false, _) if header.shows_unwritten(body) => Evidence::Unwritten,
        _ => Evidence::Spoiled,
    };
    let pieces = if chained { pieces } else { Vec::new() };
    Found { seq: header.seq, evidence, batch: Some(Batch { header, pieces }), offset }
}

/// The entries of a batch: where they lie and where their terms change. Of a `sound` body all of them, by what it says:
/// the checksum of each is left for when it is read. Otherwise those whose own checksums match, as far as their lengths
/// lead.
pub(crate) fn pieces(header: &BatchHeader, body: &[u8], sound: bool) -> Vec<Piece> {
    let body = &body[..header.body_bytes as usize];
    let standing = &header.standing;
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut at, mut count) = (0, 0);
    while let Ok(frame_bytes) = Entry::frame_bytes_of(&body[at..])
        && count < u64::from(header.count)
    {
        let id = id_of(&body[at..at + HEADER_BYTES]);
        let inside = standing.base.index < id.index && id.index <= standing.last.index;
        let placed = if header.fills { inside } else { id.index == header.first().plus(count) };
        if placed && (sound || Entry::verify_first(&body[at..]).is_ok()) {
            let last = pieces.last_mut().filter(|piece| piece.end() == id.index);
            let offset = (SECTOR_BYTES + at) as u32;
            match last {
                Some(piece) => piece.push(id, offset),
                None => pieces.push(Piece { first: id.index, offsets: vec![offset], runs: vec![id] }),
            }
        }
        at += frame_bytes;
        count += 1;
    }
    pieces
}

impl Piece {
    /// Index after its last entry.
    pub(crate) fn end(&self) -> Index {
        self.first.plus(self.offsets.len() as u64)
    }

    fn push(&mut self, id: EntryId, offset: u32) {
        if self.runs.last().is_none_or(|run| run.term != id.term) {
            self.runs.push(id);
        }
        self.offsets.push(offset);
    }
}

/// Index and term of an encoded entry (see `record`), without its checksum.
fn id_of(frame: &[u8]) -> EntryId {
    let read = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
    EntryId::new(Term::new(read(16)), Index::new(read(8)))
}
