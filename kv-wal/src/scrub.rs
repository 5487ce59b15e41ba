//! Verifies what is durable before anybody needs it: reads every segment again, little by little, from the disk itself.
//!
//! A batch is bad if its header or its body does not match its checksum. What the next opening would lose by that is
//! *suspect*: of a batch whose header is sound, the entries that recovery could not keep; without a header, all of them,
//! though they can still be read one by one. Where two batches in a row that cut the end of the log have lost their
//! headers, that is everything before them. [`Log::repair`](crate::Log::repair) takes suspect entries as it takes lost ones.
//!
//! Reads go past the page cache, which may hold what the disk has lost. Only what is published is read: that is durable
//! and does not change. A segment being read is kept from being used again.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Damage, Error};
use crate::format::{BATCHES_AT, BatchHeader, HEADER_PAGES, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, Standing};
use crate::fs::{File, Fs};
use crate::reader::Reader;
use crate::record::Index;
use crate::segment::{Segment, UNREADABLE_BYTE};
use crate::walk::pieces;

/// Bytes read by one call.
const READ_BYTES: usize = 256 << 10;
/// Bytes that a thread verifies between two pauses.
const STEP_BYTES: usize = 1 << 20;
/// A thread begins a pass no sooner than this after the one before.
const PAUSE: Duration = Duration::from_secs(60);

/// Verifies a log pass by pass, each of them in steps, on whatever thread calls it. Get one by
/// [`Log::scrubber`](crate::Log::scrubber) or [`Wal::scrubber`](crate::Wal::scrubber).
#[derive(Debug)]
pub struct Scrubber {
    fs: Arc<dyn Fs>,
    reader: Reader,
    pages: Pages,
    /// The segment being verified.
    place: Option<Place>,
    /// Number of the last one verified in this pass.
    done: u64,
    /// How often the end of the log had been cut, after the last sound header.
    cuts: Option<u32>,
}

/// What a step has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Batches and header pages that are damaged, whether what they hold counts or not.
    pub flaws: Vec<Flaw>,
    /// Entries that the next opening would find lost by these: repair them. See [`Reader::suspects`].
    pub suspects: Vec<Damage>,
    /// Whether the next opening would not be sure of the newest state blob: append it again.
    pub is_state_suspect: bool,
    /// Whether the pass has ended: the next step begins another.
    pub finished: bool,
}

/// Where a batch or a header page is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The segment.
    pub path: PathBuf,
    /// Where in it the damage begins, or the batch that has it.
    pub offset: u64,
}

/// How far a segment has been verified.
#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    salt: u64,
    offset: usize,
    /// Whether it was the newest when it was opened.
    newest: bool,
}

impl Scrubber {
    pub(crate) fn new(fs: Arc<dyn Fs>, reader: Reader) -> Scrubber {
        Scrubber { fs, reader, pages: Pages::default(), place: None, done: 0, cuts: None }
    }

    /// Verifies the next batches, about `bytes_max` bytes of them; at least one batch.
    ///
    /// ```
    /// # use kv_wal::{Log, Options};
    /// # fn main() -> Result<(), kv_wal::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (log, _) = Log::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() })?;
    /// let mut scrubber = log.scrubber();
    /// loop {
    ///     let scrubbed = scrubber.step(1 << 20)?;
    ///     for lost in &scrubbed.suspects {
    ///         println!("{lost}: fetch them from elsewhere, and give them to Log::repair");
    ///     }
    ///     if scrubbed.finished {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A segment cannot be opened. (What cannot be read is a flaw, and no error.) The next call tries again.
    pub fn step(&mut self, bytes_max: usize) -> Result<Scrubbed, Error> {
        let mut scrubbed = Scrubbed::default();
        while scrubbed.bytes < bytes_max.max(1) as u64 {
            if self.place.is_none() {
                self.place = self.next_segment(&mut scrubbed)?;
            }
            let Some(mut place) = self.place.take() else {
                (self.done, self.cuts, scrubbed.finished) = (0, None, true);
                break;
            };
            let end = place.segment.published();
            if place.offset < end {
                self.batch(&mut place, end, &mut scrubbed);
                self.place = Some(place);
            }
        }
        Ok(scrubbed)
    }

    /// Opens the next segment, and verifies its header.
    fn next_segment(&mut self, scrubbed: &mut Scrubbed) -> Result<Option<Place>, Error> {
        while let Some((segment, newest)) = self.reader.segment_after(self.done) {
            let file = match self.fs.open_direct(&segment.path) {
                // Purged since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.done = segment.seq;
                    continue;
                }
                file => file.map_err(Error::io("open", &segment.path))?,
            };
            if segment.seq != self.done + 1 {
                // Those between are gone.
                self.cuts = None;
            }
            self.done = segment.seq;
            scrubbed.bytes += BATCHES_AT as u64;
            let pages: Vec<_> = (0..HEADER_PAGES).map(|page| self.header(&segment, &*file, page, scrubbed)).collect();
            if let Some(header) = pages.into_iter().flatten().next() {
                let (standing, first) = (&header.standing, header.standing.last.index.next());
                self.follow(standing, first, false, (segment.seq, 0), scrubbed);
                return Ok(Some(Place { segment, file, salt: header.salt, offset: BATCHES_AT, newest }));
            }
            let whole = 0..segment.published();
            scrubbed.suspects.extend(self.reader.suspect(&segment, &whole, |_, _| true));
            scrubbed.is_state_suspect |= newest;
        }
        Ok(None)
    }

    fn header(
        &mut self,
        segment: &Segment,
        file: &dyn File,
        page: usize,
        scrubbed: &mut Scrubbed,
    ) -> Option<SegmentHeader> {
        let bytes = self.pages.read(segment, file, page * PAGE_BYTES, PAGE_BYTES);
        let header = bytes.ok().and_then(|page| SegmentHeader::decode_page(page).ok());
        let header = header.filter(|header| header.seq == segment.seq);
        if header.is_none() {
            segment.report_header();
            scrubbed.flaws.push(Flaw { path: segment.path.clone(), offset: (page * PAGE_BYTES) as u64 });
        }
        header
    }

    /// A sound header says how often the end of the log had been cut before it. If it was more than once since the last
    /// sound one, recovery cannot tell where, and gives up everything up to `first`, where it goes on.
    /// What was written at this `place` or later, repairs for instance, does not depend on what was before.
    fn follow(&mut self, next: &Standing, first: Index, cuts_end: bool, place: (u64, usize), scrubbed: &mut Scrubbed) {
        if self.cuts.is_some_and(|cuts| next.cuts.wrapping_sub(cuts) > 1) {
            scrubbed.suspects.extend(self.reader.suspect_before(first, place));
        }
        self.cuts = Some(next.cuts.wrapping_add(u32::from(cuts_end)));
    }

    /// Verifies the batch at a place, and moves on to the next; or over what has no header.
    fn batch(&mut self, place: &mut Place, end: usize, scrubbed: &mut Scrubbed) {
        let (start, segment) = (place.offset, place.segment.clone());
        let flaw = || Flaw { path: segment.path.clone(), offset: start as u64 };
        let Some(header) = self.batch_header(place, end) else {
            // As recovery does it: the next header of this segment ends what is lost.
            place.offset += PAGE_BYTES;
            while place.offset < end && self.batch_header(place, end).is_none() {
                place.offset += PAGE_BYTES;
            }
            scrubbed.bytes += (place.offset - start) as u64;
            scrubbed.flaws.push(flaw());
            scrubbed.suspects.extend(self.reader.suspect(&segment, &(start..place.offset), |_, _| true));
            if place.newest && place.offset >= segment.published() {
                scrubbed.is_state_suspect = true;
                let now = Standing { cuts: self.reader.cuts(), ..Standing::default() };
                self.follow(&now, Index::new(u64::MAX), false, (segment.seq, end), scrubbed);
            }
            return;
        };
        let first = if header.fills { header.standing.last.index.next() } else { header.first() };
        self.follow(&header.standing, first, header.cuts_end, (segment.seq, start), scrubbed);
        place.offset += header.total_bytes();
        scrubbed.bytes += header.total_bytes() as u64;
        if header.count > 0 && self.body_crc(place, start + SECTOR_BYTES..place.offset) != Some(header.body_crc) {
            scrubbed.flaws.push(flaw());
            let next = self.batch_header(place, end);
            let is_marked = !place.newest || next.is_some_and(|next| next.durable_batch >= header.seq);
            // Recovery keeps nothing of a damaged batch that nothing proves durable.
            let kept = if is_marked { self.kept(place, start, &header) } else { Vec::new() };
            let is_lost = |_, offset: usize| kept.binary_search(&offset).is_err();
            scrubbed.suspects.extend(self.reader.suspect(&segment, &(start..place.offset), is_lost));
        }
    }

    /// Where the entries of a damaged batch lie that recovery would keep, in order.
    fn kept(&mut self, place: &Place, start: usize, header: &BatchHeader) -> Vec<usize> {
        let mut body = Vec::with_capacity(header.total_bytes() - SECTOR_BYTES);
        let end = start + header.total_bytes();
        for page in (start..end).step_by(PAGE_BYTES) {
            let part = page.max(start + SECTOR_BYTES)..page + PAGE_BYTES;
            let bytes = part.len();
            match self.pages.read(&place.segment, &*place.file, part.start, bytes) {
                Ok(part) => body.extend_from_slice(part),
                Err(_) => body.resize(body.len() + bytes, UNREADABLE_BYTE),
            }
        }
        let pieces = pieces(header, &body, false);
        pieces.iter().flat_map(|piece| &piece.offsets).map(|&offset| start + offset as usize).collect()
    }

    fn batch_header(&mut self, place: &Place, end: usize) -> Option<BatchHeader> {
        let page = self.pages.read(&place.segment, &*place.file, place.offset, PAGE_BYTES).ok()?;
        let header = BatchHeader::decode(&page[..SECTOR_BYTES], place.salt).ok()?;
        (header.total_bytes() <= end - place.offset).then_some(header)
    }

    /// `None` if a part of it cannot be read.
    fn body_crc(&mut self, place: &Place, body: Range<usize>) -> Option<u32> {
        let mut crc = 0;
        let mut at = body.start;
        while at < body.end {
            let bytes = (body.end - at).min(READ_BYTES - at % PAGE_BYTES);
            crc = crc32c::crc32c_append(crc, self.pages.read(&place.segment, &*place.file, at, bytes).ok()?);
            at += bytes;
        }
        Some(crc)
    }
}

/// Memory that the disk can be read into directly.
#[derive(Debug, Default)]
struct Pages {
    memory: Vec<u8>,
}

impl Pages {
    /// Bytes of a file, read as whole pages.
    fn read(&mut self, segment: &Segment, file: &dyn File, offset: usize, bytes: usize) -> io::Result<&[u8]> {
        let start = offset / PAGE_BYTES * PAGE_BYTES;
        let whole = (offset + bytes).next_multiple_of(PAGE_BYTES) - start;
        if self.memory.len() < whole + PAGE_BYTES {
            self.memory.resize(whole.max(READ_BYTES) + PAGE_BYTES, 0);
        }
        let aligned = self.memory.as_ptr().align_offset(PAGE_BYTES);
        let buffer = &mut self.memory[aligned..aligned + whole];
        match file.read_at(buffer, start as u64) {
            // Such reads are not for this disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => segment.file.read_at(buffer, start as u64)?,
            result => result?,
        }
        Ok(&buffer[offset - start..][..bytes])
    }
}

/// A thread that scrubs until it is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    /// Waits, unless asked to stop. Whether to go on.
    fn pause(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.told.wait_timeout_while(asked, time, |asked| !*asked);
        !*result.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Background {
    /// Reads at most `bytes_per_second`, and tells `report` of each step that has found something or ended a pass.
    pub(crate) fn start(
        mut scrubber: Scrubber,
        bytes_per_second: u64,
        mut report: impl FnMut(&Scrubbed) + Send + 'static,
    ) -> io::Result<Background> {
        let stop = Arc::<Stop>::default();
        let stopping = stop.clone();
        let work = move || {
            let mut pause = Duration::ZERO;
            while stopping.pause(pause) {
                pause = PAUSE;
                match scrubber.step(STEP_BYTES) {
                    Ok(scrubbed) => {
                        if !scrubbed.flaws.is_empty() || scrubbed.finished {
                            report(&scrubbed);
                        }
                        let paced = Duration::from_secs_f64(scrubbed.bytes as f64 / bytes_per_second.max(1) as f64);
                        pause = if scrubbed.finished { PAUSE.max(paced) } else { paced };
                    }
                    Err(error) => tracing::warn!(%error, "cannot scrub the log"),
                }
            }
        };
        let thread = thread::Builder::new().name("kv-wal-scrub".to_owned()).spawn(work)?;
        Ok(Background { stop, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        *self.stop.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.told.notify_all();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
