//! Reads a directory of segments: their headers, what each holds, and what becomes of it. Changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::LogId;
use crate::format::{BATCHES_AT, Fault, PAGE_BYTES, SegmentHeader, is_blank};
use crate::recovery::{Recovery, Replay, Verdict};
use crate::segment::Segment;
use crate::walk::{Found, walk};

/// A segment file and what its header says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Result<SegmentHeader, Fault>,
}

/// What reading has found.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) id: Option<LogId>,
    pub(crate) replay: Replay,
    /// All segments that were begun, oldest first.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// Header of the newest of them, if it has one.
    pub(crate) newest: Option<SegmentHeader>,
    /// What was read last: of the newest, if that has a header.
    pub(crate) bytes: Vec<u8>,
}

impl Loaded {
    pub(crate) fn new(segment: Arc<Segment>) -> Loaded {
        let header = header_of(&segment);
        Loaded { segment, header }
    }
}

fn header_of(segment: &Segment) -> Result<SegmentHeader, Fault> {
    match SegmentHeader::decode([&segment.read_page(0), &segment.read_page(1)]) {
        // A file under another's name is none we could place.
        Ok(header) if header.seq != segment.seq => Err(Fault::Unreadable),
        // Where there is a batch there was a header.
        Err(Fault::Blank) if !segment.is_zero_from(BATCHES_AT as u64) => Err(Fault::Unreadable),
        header => header,
    }
}

/// Takes out the segments that were prepared and never begun: a blank header was never written (A5), and neither was then
/// any batch, since the header is durable before the first. Segments are begun in order, so one before another that was
/// begun has lost its header.
pub(crate) fn take_prepared(files: &mut Vec<Loaded>) -> Vec<Arc<Segment>> {
    let begun = files.iter().rposition(|found| found.header != Err(Fault::Blank)).map_or(0, |newest| newest + 1);
    files[..begun].iter_mut().filter(|found| found.header == Err(Fault::Blank)).for_each(|found| {
        found.header = Err(Fault::Unreadable);
    });
    files.drain(begun..).map(|found| found.segment).collect()
}

/// Reads and replays the segments, oldest first. `observe` is told of each batch what becomes of it.
pub(crate) fn read(files: &[Loaded], mut observe: impl FnMut(&Segment, &Found, Verdict)) -> Read {
    let Some(first) = files.iter().find_map(|found| found.header.as_ref().ok()) else {
        let mut read = Read { segments: files.iter().map(|found| found.segment.clone()).collect(), ..Read::default() };
        read.segments.iter().for_each(|_| read.replay.lose_segment());
        read.replay.finish();
        return read;
    };
    let mut read = Read { id: Some(first.log_id), replay: Replay::starting_at(first), ..Read::default() };
    for at in 0..files.len() {
        let (Loaded { segment, header }, later) = (&files[at], &files[at + 1..]);
        read.segments.push_back(segment.clone());
        let Ok(header) = header else {
            read.replay.lose_segment();
            read.newest = None;
            continue;
        };
        segment.read_all(header.bytes, &mut read.bytes);
        // A segment goes as far as the next one takes over. If that does not say where, as far as there are batches.
        let limit = later.iter().find_map(|next| Some(next.header.as_ref().ok()?.next_batch));
        let found = walk(&read.bytes, header, limit);
        let observe = |found: &Found, verdict| observe(segment, found, verdict);
        read.replay.segment(segment, header, found, !later.is_empty(), observe);
        read.newest = Some(header.clone());
    }
    read.replay.finish();
    read
}

impl Read {
    /// Where in the newest segment nothing counts any more, and how much has been written from there on: whole pages.
    pub(crate) fn torn(&self) -> Option<(usize, usize)> {
        let (tail, header) = (&self.replay.tail, self.newest.as_ref()?);
        let start = tail.torn_at.or((!tail.damaged).then_some(tail.end))?;
        Some((start, self.pages_from(start, |page| is_blank(page, header.salt))))
    }

    /// Bytes of the newest segment from `start` to the end of the last page that is not `empty`.
    pub(crate) fn pages_from(&self, start: usize, empty: impl Fn(&[u8]) -> bool) -> usize {
        // A file that has been shortened stays as it is.
        let present = self.segments.back().map_or(0, |newest| newest.bytes as usize / PAGE_BYTES * PAGE_BYTES);
        let mut pages = self.bytes[start..present.clamp(start, self.bytes.len())].chunks(PAGE_BYTES);
        pages.rposition(|page| !empty(page)).map_or(0, |page| (page + 1) * PAGE_BYTES)
    }

    pub(crate) fn recovery(&self) -> Recovery {
        let Read { replay, segments, .. } = self;
        Recovery {
            report: replay.report(self.torn().map_or(0, |(_, bytes)| bytes) as u64),
            base: replay.standing.base,
            last: replay.standing.last,
            entries_recovered: replay.catalog.entries(),
            entries_rewritten: replay.tail.unmarked_entries,
            segments: segments.len() as u64,
        }
    }
}
