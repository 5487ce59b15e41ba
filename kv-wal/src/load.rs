//! Reads a directory of segments: their headers, what each holds, and what becomes of it. Changes nothing.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use crate::error::LogId;
use crate::format::{BATCHES_AT, BatchHeader, Fault, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, is_blank, is_zero};
use crate::recovery::{Recovery, Replay, Verdict};
use crate::segment::Segment;
use crate::walk::{Found, Walked, taken_over, walk};
use crate::window::Window;

/// Segments walked at the same time at most. Each takes little memory.
const THREADS_MAX: usize = 8;
/// Bytes of segments that one thread walks as fast as several would.
const WALKED_ALONE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a segment that is walked beside others.
const WALKED_TOGETHER_BYTES_MAX: u64 = 256 << 20;

/// A segment file and what its header says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) segment: Arc<Segment>,
    pub(crate) header: Result<SegmentHeader, Fault>,
    /// Nothing in it but zeros, all of which can be read. Looked for only where the header is blank.
    pub(crate) is_zeros: bool,
}

/// The part of a segment after what counts.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    pub(crate) segment: Arc<Segment>,
    pub(crate) salt: u64,
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
    /// The newest of them that has a header, and that.
    pub(crate) newest: Option<(Arc<Segment>, SegmentHeader)>,
    /// What lies in it where nothing counts any more.
    pub(crate) rest: Option<Rest>,
    /// What lies in the segment before it, if it has taken over before the end of that.
    pub(crate) overtaken: Option<Rest>,
}

impl Loaded {
    pub(crate) fn new(segment: Arc<Segment>) -> Loaded {
        let header = header_of(&segment);
        let is_zeros = header == Err(Fault::Blank) && segment.is_zero();
        // Where there is a batch there was a header.
        let is_begun = header == Err(Fault::Blank) && !is_zeros && has_batches(&segment);
        let header = if is_begun { Err(Fault::Unreadable) } else { header };
        Loaded { segment, header, is_zeros }
    }
}

fn header_of(segment: &Segment) -> Result<SegmentHeader, Fault> {
    match SegmentHeader::decode([&segment.read_page(0), &segment.read_page(1)]) {
        // A file under another's name is none we could place.
        Ok(header) if header.seq != segment.seq => Err(Fault::Unreadable),
        header => header,
    }
}

fn has_batches(segment: &Segment) -> bool {
    let mut has = false;
    Window::new(segment, segment.bytes).pages_from(BATCHES_AT, |_, page| {
        has |= page.len() == PAGE_BYTES && BatchHeader::is_any(&page[..SECTOR_BYTES]);
    });
    has
}

/// Takes out the segments that were prepared and never begun: a blank header was never written (A5), and neither was then
/// any batch, since the header is durable before the first. Segments are begun in order, so one before another that was
/// begun has lost its header.
pub(crate) fn take_prepared(files: &mut Vec<Loaded>) -> Vec<Loaded> {
    let begun = files.iter().rposition(|found| found.header != Err(Fault::Blank)).map_or(0, |newest| newest + 1);
    files[..begun].iter_mut().filter(|found| found.header == Err(Fault::Blank)).for_each(|found| {
        found.header = Err(Fault::Unreadable);
    });
    files.split_off(begun)
}

/// Reads and replays the segments, oldest first. `observe` is told of each batch what becomes of it.
pub(crate) fn read(files: &[Loaded], mut observe: impl FnMut(&Segment, &Found, Verdict)) -> Read {
    let headers = || files.iter().map(|file| file.header.as_ref().ok());
    let (Some(first), Some(newest)) = (headers().flatten().next(), headers().rposition(|header| header.is_some()))
    else {
        let mut read = Read { segments: files.iter().map(|found| found.segment.clone()).collect(), ..Read::default() };
        read.segments.iter().for_each(|_| read.replay.lose_segment());
        read.replay.finish();
        return read;
    };
    let mut read = Read { id: Some(first.log_id), replay: Replay::starting_at(first), ..Read::default() };
    let at_once = at_once(files);
    let before = files[..newest].iter().rposition(|file| file.header.is_ok());
    for start in (0..files.len()).step_by(at_once) {
        let chunk = start..(start + at_once).min(files.len());
        let walked = walk_all(files, chunk.clone());
        for (Loaded { segment, header, .. }, (at, found)) in files[chunk.clone()].iter().zip(chunk.zip(walked)) {
            read.segments.push_back(segment.clone());
            let (Ok(header), Some(walked)) = (header, found) else {
                read.replay.lose_segment();
                continue;
            };
            let observe = |found: &Found, verdict| observe(segment, found, verdict);
            let end = walked.end;
            // A later one without a header proves nothing: it may never have been begun.
            read.replay.segment(segment, header, walked.found, at < newest, observe);
            if Some(at) == before {
                read.overtaken = overtaken(segment, header, end, next_batch(files, at));
            }
            if at == newest {
                read.newest = Some((segment.clone(), header.clone()));
                let tail = &read.replay.tail;
                let start = tail.torn_at.or((!tail.damaged).then_some(tail.end));
                read.rest = start.map(|start| rest(segment, header, start));
            }
        }
    }
    read.replay.finish();
    if !read.goes_on() {
        // No more than the header of a new segment holds.
        read.replay.make_coarse();
    }
    read
}

/// The batch with which the segment after number `at` takes over, as far as that is known.
fn next_batch(files: &[Loaded], at: usize) -> Option<u64> {
    files[at + 1..].iter().find_map(|next| Some(next.header.as_ref().ok()?.next_batch))
}

/// Segments that are walked at the same time. Of small ones, a thread would take longer to start; of very large ones, a
/// single batch may take much memory.
fn at_once(files: &[Loaded]) -> usize {
    let bytes: u64 = files.iter().map(|file| file.segment.bytes).sum();
    let bytes_max = files.iter().map(|file| file.segment.bytes).max().unwrap_or(0);
    let threads = thread::available_parallelism().map_or(1, NonZero::get).clamp(1, THREADS_MAX);
    if (WALKED_ALONE_BYTES_MAX..).contains(&bytes) && bytes_max <= WALKED_TOGETHER_BYTES_MAX { threads } else { 1 }
}

/// What each of some segments holds; `None` for one without a header.
fn walk_all(files: &[Loaded], chunk: Range<usize>) -> Vec<Option<Walked>> {
    let walk_one = |at: usize| {
        let Loaded { segment, header, .. } = &files[at];
        let header = header.as_ref().ok()?;
        // A segment goes as far as the next one takes over. If that does not say where, as far as there are batches.
        Some(walk(&mut Window::new(segment, header.bytes), header, next_batch(files, at)))
    };
    if chunk.len() == 1 {
        return vec![walk_one(chunk.start)];
    }
    thread::scope(|scope| {
        let walk_one = &walk_one;
        let spawn = |at| (at, thread::Builder::new().spawn_scoped(scope, move || walk_one(at)));
        let threads: Vec<_> = chunk.map(spawn).collect();
        let join = |(at, thread): (usize, io::Result<thread::ScopedJoinHandle<'_, _>>)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // There are too many already.
            Err(_) => walk_one(at),
        };
        threads.into_iter().map(join).collect()
    })
}

/// What an opening that was stopped may have left to be erased.
fn overtaken(
    segment: &Arc<Segment>,
    header: &SegmentHeader,
    end: Option<usize>,
    next_batch: Option<u64>,
) -> Option<Rest> {
    let mut window = Window::new(segment, header.bytes);
    let start = end.or_else(|| taken_over(&mut window, BATCHES_AT, header.salt, next_batch?))?;
    Some(rest(segment, header, start))
}

fn rest(segment: &Arc<Segment>, header: &SegmentHeader, start: usize) -> Rest {
    let mut rest = Rest { segment: segment.clone(), salt: header.salt, start, written_bytes: 0, torn_bytes: 0 };
    // A file that has been shortened stays as it is.
    let present = segment.bytes as usize;
    Window::new(segment, header.bytes).pages_from(start, |at, page| {
        let end = at + PAGE_BYTES;
        if end <= present && !is_zero(page) {
            rest.written_bytes = end - start;
            rest.torn_bytes = if is_blank(page, header.salt) { rest.torn_bytes } else { end - start };
        }
    });
    rest
}

impl Read {
    /// Whether the log goes on in its newest segment.
    pub(crate) fn goes_on(&self) -> bool {
        let whole = |(segment, header): &(Arc<Segment>, SegmentHeader)| segment.bytes == header.bytes;
        !self.replay.tail.damaged && self.newest.as_ref().is_some_and(whole)
    }

    pub(crate) fn recovery(&self) -> Recovery {
        let Read { replay, segments, .. } = self;
        Recovery {
            report: replay.report(self.rest.as_ref().map_or(0, |rest| rest.torn_bytes as u64)),
            base: replay.standing.base,
            last: replay.standing.last,
            entries_recovered: replay.catalog.entries(),
            entries_rewritten: replay.tail.unmarked_entries,
            segments: segments.len() as u64,
        }
    }
}
