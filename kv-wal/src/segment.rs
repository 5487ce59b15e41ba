//! One segment file: made ahead, really written with zeros, mapped once, and read by slices of the map.
//!
//! A segment is named only after its zeros are durable, so a segment that exists has its room: the disk cannot be full
//! when a batch is written. `fallocate` would not do: it leaves unwritten extents, each first write of which costs a
//! metadata write at the next sync.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::Error;
use crate::format::{HEADER_PAGES, PAGE_BYTES, SEQ_MAX, is_zero};
use crate::fs::{File, Fs, Region};
use crate::planted::{self, Mistake};
use crate::record::{DecodeError, Entry, HEADER_BYTES, Index};

/// A segment in the making. There is at most one.
pub(crate) const PREPARE_NAME: &str = "prepare.tmp";
/// What was a segment and may become one again. There is at most one.
pub(crate) const SPARE_NAME: &str = "spare.tmp";
/// Zeros written by one call.
const ZEROS_BYTES: usize = 256 << 10;
/// Zeros synced at once.
const SYNC_BYTES: u64 = 4 << 20;
/// Bytes read by one call at recovery.
const READ_BYTES: usize = 1 << 20;
/// Stands for a page that the disk refuses to read. Not zeros, which would look never written.
pub(crate) const UNREADABLE_BYTE: u8 = 0xdb;

/// A segment file, open and mapped. Readers keep it alive after it has been unlinked.
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn File>,
    /// Made since the log was opened: whoever may hold bytes of it read them from this `Segment`.
    fresh: bool,
    region: Arc<dyn Region>,
    /// All of the region. Only slices of what is published are given out, and looked into.
    map: Bytes,
    /// Bytes before this are durable and never change again.
    published: AtomicUsize,
    /// A page of its header is damaged on the disk: whoever writes to the segment writes that again.
    header_flawed: AtomicBool,
}

/// What slices of a segment's map hold on to.
struct Whole(Arc<dyn Region>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.whole()
    }
}

/// `{seq:016x}.wal`, so that names sort as the segments do.
fn path_of(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.wal"))
}

/// The number in a segment's name; `None` for a file that is no segment.
fn seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let canonical = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten().filter(|&seq| seq <= SEQ_MAX)
}

/// What a segment has in place of a map if it is only read by reads.
#[derive(Debug)]
struct Unmapped;

impl Region for Unmapped {
    fn whole(&self) -> &[u8] {
        &[]
    }
}

/// Number and path of each segment among the `names` in `dir`, oldest first.
pub(crate) fn segments_among(names: &[String], dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| seq_of(name)).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|seq| (seq, path_of(dir, seq))).collect()
}

/// Makes segments, of new files or of one that nobody needs any more.
#[derive(Debug)]
pub(crate) struct Maker {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Zeros to write from.
    zeros: Vec<u8>,
    /// What was a segment, and lies under [`SPARE_NAME`].
    spare: Option<Arc<Segment>>,
}

impl Maker {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        Maker { fs, dir: dir.to_owned(), zeros: vec![0; ZEROS_BYTES], spare: None }
    }

    /// Makes segment `seq` of `bytes` zeros, durable under its name, in place of one of that name.
    pub(crate) fn make(&mut self, seq: u64, bytes: u64) -> Result<Arc<Segment>, Error> {
        assert!(bytes.is_multiple_of(PAGE_BYTES as u64), "a segment is whole pages");
        let path = path_of(&self.dir, seq);
        let spare = self.take_spare(bytes);
        let recycles = spare.is_some();
        let temporary = self.dir.join(if recycles { SPARE_NAME } else { PREPARE_NAME });
        let file = spare.map_or_else(|| self.fs.create(&temporary), |spare| Ok(spare.file.clone()));
        let filled = file.and_then(|file| self.empty(&*file, bytes, recycles).map(|()| file));
        let segment = filled.map_err(Error::preparing(&path)).and_then(|file| {
            // Mapped first: once it has its name, nothing else may fail that would leave it unused.
            let segment = Segment::new(seq, path, file, true)?;
            self.fs.rename(&temporary, &segment.path).map_err(Error::io("rename", &temporary))?;
            self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
            Ok(segment)
        });
        if segment.is_err() {
            // On a full disk, the half-made file is what fills it. If it cannot be removed, the next attempt reuses it.
            let _ = self.fs.remove(&temporary);
        }
        segment
    }

    /// The spare, if it has `bytes` and no reader holds it. One of another size would never be used.
    fn take_spare(&mut self, bytes: u64) -> Option<Arc<Segment>> {
        let spare = self.spare.take_if(Segment::is_unread)?;
        if spare.bytes == bytes {
            return Some(spare);
        }
        if let Err(error) = self.fs.remove(&self.dir.join(SPARE_NAME)) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a spare segment");
        }
        None
    }

    fn empty(&self, file: &dyn File, bytes: u64, recycles: bool) -> io::Result<()> {
        if recycles && !planted::is(Mistake::RecycledUnderItsOldName) {
            // Its old name must be gone for good before it loses what it holds.
            self.fs.sync_dir(&self.dir)?;
        }
        if recycles && planted::is(Mistake::RecycledAsItIs) { Ok(()) } else { self.fill(file, bytes) }
    }

    /// Zeros from end to end, durable.
    fn fill(&self, file: &dyn File, bytes: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < bytes {
            let count = (bytes - offset).min(self.zeros.len() as u64);
            file.write_at(&self.zeros[..count as usize], offset)?;
            offset += count;
            if offset.is_multiple_of(SYNC_BYTES) {
                // Little by little, so that the syncs of the log beside it wait for little.
                file.sync()?;
            }
        }
        file.sync()
    }

    /// Takes a segment that holds nothing any more out of the directory, and keeps it as a spare if there is none. One from
    /// before the log was opened is never used again: bytes read from it by an earlier opening may still be held. An error
    /// costs room only: the file is removed when the log is opened again.
    pub(crate) fn discard(&mut self, segment: Arc<Segment>) {
        let has_spare = self.spare.as_mut().is_some_and(Segment::is_unread);
        let result = if has_spare || !segment.fresh {
            self.fs.remove(&segment.path)
        } else {
            self.fs.rename(&segment.path, &self.dir.join(SPARE_NAME)).map(|()| self.spare = Some(segment.clone()))
        };
        if let Err(error) = result {
            tracing::warn!(segment = %segment.path.display(), %error, "cannot remove a purged segment");
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({}, {} of {} bytes published)", self.path.display(), self.published(), self.bytes)
    }
}

impl Segment {
    /// Maps the open file of segment `seq`; `fresh` if it was made since the log was opened.
    pub(crate) fn new(seq: u64, path: PathBuf, file: Arc<dyn File>, fresh: bool) -> Result<Arc<Segment>, Error> {
        let bytes = file.bytes().map_err(Error::io("measure", &path))?;
        let region = file.map().map_err(Error::io("map", &path))?;
        let map = Bytes::from_owner(Whole(region.clone()));
        Ok(Arc::new(Segment {
            seq,
            path,
            bytes,
            file,
            fresh,
            region,
            map,
            published: AtomicUsize::new(0),
            header_flawed: AtomicBool::new(false),
        }))
    }

    /// The open file of segment `seq`, to be read only by reads.
    pub(crate) fn unmapped(seq: u64, path: PathBuf, file: Arc<dyn File>) -> Result<Arc<Segment>, Error> {
        let bytes = file.bytes().map_err(Error::io("measure", &path))?;
        let (region, map) = (Arc::new(Unmapped), Bytes::new());
        Ok(Arc::new(Segment {
            seq,
            path,
            bytes,
            file,
            fresh: false,
            region,
            map,
            published: AtomicUsize::new(0),
            header_flawed: AtomicBool::new(false),
        }))
    }

    /// Gives up the map. Whether nobody else holds it, nor anything that was read from it.
    fn is_unread(self: &mut Arc<Self>) -> bool {
        let Some(segment) = Arc::get_mut(self) else { return false };
        segment.map = Bytes::new();
        Arc::get_mut(&mut segment.region).is_some()
    }

    /// Bytes before `end` are durable and will never be written again.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.bytes as usize, "published beyond the end of the segment");
        self.published.fetch_max(end, Ordering::Release);
    }

    /// The disk has lost a page of the header.
    pub(crate) fn report_header(&self) {
        self.header_flawed.store(true, Ordering::Release);
    }

    /// Whether that has been reported since the last call.
    pub(crate) fn take_header_report(&self) -> bool {
        self.header_flawed.load(Ordering::Acquire) && self.header_flawed.swap(false, Ordering::AcqRel)
    }

    /// Where what is published ends.
    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// What is published from `start` on, without a copy.
    pub(crate) fn published_from(&self, start: usize) -> Bytes {
        self.map.slice(start..self.published())
    }

    /// Writes `data` at `offset`.
    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_at(data, offset).map_err(Error::io("write", &self.path))
    }

    /// Writes its header, whose page this is, once for each of its pages.
    pub(crate) fn write_header(&self, page: &[u8]) -> Result<(), Error> {
        self.write(&page.repeat(HEADER_PAGES), 0)
    }

    /// Returns when what has been written is durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync().map_err(Error::io("sync", &self.path))
    }

    /// The bytes from `offset` on, by reads. What the disk refuses, or the file has not, becomes [`UNREADABLE_BYTE`], and is
    /// found by its checksum like any other damage.
    pub(crate) fn read_or_spoil(&self, buffer: &mut [u8], offset: u64) {
        let present = self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (present, absent) = buffer.split_at_mut(present);
        absent.fill(UNREADABLE_BYTE);
        if self.file.read_at(present, offset).is_ok() {
            return;
        }
        let to_page = (offset.next_multiple_of(PAGE_BYTES as u64) - offset).min(present.len() as u64) as usize;
        let (head, pages) = present.split_at_mut(to_page);
        let mut at = offset;
        for part in std::iter::once(head).chain(pages.chunks_mut(PAGE_BYTES)) {
            if let Err(error) = self.file.read_at(part, at) {
                tracing::warn!(segment = %self.path.display(), offset = at, %error, "unreadable page");
                part.fill(UNREADABLE_BYTE);
            }
            at += part.len() as u64;
        }
    }

    /// The entry at `offset`, by reads, its checksum verified.
    pub(crate) fn read_entry(&self, offset: u32, index: Index) -> Result<Entry, Error> {
        let (offset, mut frame) = (u64::from(offset), vec![0; HEADER_BYTES]);
        let read = |buffer: &mut [u8], offset| self.file.read_at(buffer, offset).map_err(Error::io("read", &self.path));
        read(&mut frame, offset)?;
        if let Err(DecodeError::Short { needed, .. }) = Entry::frame_bytes_of(&frame) {
            frame.resize(needed, 0);
            read(&mut frame[HEADER_BYTES..], offset + HEADER_BYTES as u64)?;
        }
        Entry::expect_first(frame.into(), index).map_err(|source| Error::Unreadable { index, source })
    }

    /// Whether the file holds zeros only, all of which can be read.
    pub(crate) fn is_zero(&self) -> bool {
        let mut buffer = vec![0; READ_BYTES];
        (0..self.bytes).step_by(READ_BYTES).all(|at| {
            let chunk = &mut buffer[..(self.bytes - at).min(READ_BYTES as u64) as usize];
            self.file.read_at(chunk, at).is_ok() && is_zero(chunk)
        })
    }

    /// A page, as [`Segment::read_or_spoil`] reads it.
    pub(crate) fn read_page(&self, page: u64) -> Vec<u8> {
        let mut buffer = vec![0; PAGE_BYTES];
        self.read_or_spoil(&mut buffer, page * PAGE_BYTES as u64);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_none_of_ours() {
        for seq in [1, 0xabc, SEQ_MAX] {
            let path = path_of(Path::new("dir"), seq);
            assert_eq!(seq_of(path.file_name().unwrap().to_str().unwrap()), Some(seq));
        }
        for name in [
            "LOCK",
            PREPARE_NAME,
            "1.wal",
            "000000000000000G.wal",
            "+00000000000000a.wal",
            "000000000000000A.wal",
            "8000000000000000.wal",
        ] {
            assert_eq!(seq_of(name), None, "{name}");
        }
    }
}
