//! Reads a directory of segments: their headers, what each holds, and what becomes of it. Changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::LogId;
use crate::format::{BATCHES_AT, Fault, PAGE_BYTES, SegmentHeader, is_blank, is_zero};
use crate::recovery::{Recovery, Replay, TailFound, Verdict};
use crate::segment::Segment;
use crate::walk::{Found, walk};
use crate::window::Window;

/// A segment file and what its header says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Result<SegmentHeader, Fault>,
}

/// The part of the newest segment where the log goes on, if it does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    pub(crate) start: usize,
    /// To the end of the last page that holds more than zeros.
    pub(crate) written_bytes: usize,
    /// To the end of the last page that has not been erased since it was written.
    pub(crate) torn_bytes: usize,
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
    /// What lies in the newest where nothing counts any more.
    pub(crate) rest: Rest,
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
    let mut buffer = Vec::new();
    for at in 0..files.len() {
        let (Loaded { segment, header }, later) = (&files[at], &files[at + 1..]);
        read.segments.push_back(segment.clone());
        read.newest = None;
        let Ok(header) = header else {
            read.replay.lose_segment();
            continue;
        };
        let mut window = Window::new(segment, header.bytes, &mut buffer);
        // A segment goes as far as the next one takes over. If that does not say where, as far as there are batches.
        let limit = later.iter().find_map(|next| Some(next.header.as_ref().ok()?.next_batch));
        let found = walk(&mut window, header, limit);
        let observe = |found: &Found, verdict| observe(segment, found, verdict);
        read.replay.segment(segment, header, found, !later.is_empty(), observe);
        if later.is_empty() {
            read.newest = Some(header.clone());
            read.rest = rest(&mut window, segment, header.salt, &read.replay.tail);
        }
    }
    read.replay.finish();
    read
}

fn rest(window: &mut Window<'_>, segment: &Segment, salt: u64, tail: &TailFound) -> Rest {
    let Some(start) = tail.torn_at.or((!tail.damaged).then_some(tail.end)) else { return Rest::default() };
    let mut rest = Rest { start, ..Rest::default() };
    // A file that has been shortened stays as it is.
    let present = segment.bytes as usize;
    window.pages_from(start, |at, page| {
        let end = at + PAGE_BYTES;
        if end <= present && !is_zero(page) {
            rest.written_bytes = end - start;
            rest.torn_bytes = if is_blank(page, salt) { rest.torn_bytes } else { end - start };
        }
    });
    rest
}

impl Read {
    pub(crate) fn recovery(&self) -> Recovery {
        let Read { replay, segments, .. } = self;
        Recovery {
            report: replay.report(self.rest.torn_bytes as u64),
            base: replay.standing.base,
            last: replay.standing.last,
            entries_recovered: replay.catalog.entries(),
            entries_rewritten: replay.tail.unmarked_entries,
            segments: segments.len() as u64,
        }
    }
}
