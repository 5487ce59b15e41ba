//! One segment file: made ahead, really written with zeros, mapped once, and read by slices of the map.
//!
//! A segment is named only after its zeros are durable, so a segment that exists has its room: the disk cannot be full
//! when a batch is written. `fallocate` would not do: it leaves unwritten extents, each first write of which costs a
//! metadata write at the next sync.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::Error;
use crate::format::PAGE_BYTES;
use crate::fs::{File, Fs, Region};
use crate::planted::{self, Mistake};

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
const UNREADABLE_BYTE: u8 = 0xdb;

/// A segment file, open and mapped. Readers keep it alive after it has been unlinked.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn File>,
    region: Arc<dyn Region>,
    /// All of the region. Only slices of what is published are given out, and looked into.
    map: Bytes,
    /// Bytes before this are durable and never change again.
    published: AtomicUsize,
}

/// What slices of a segment's map hold on to.
struct Whole(Arc<dyn Region>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.whole()
    }
}

/// `{seq:016x}.wal`, so that names sort as the segments do.
pub(crate) fn path_of(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.wal"))
}

/// The number in a segment's name; `None` for a file that is no segment.
pub(crate) fn seq_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let canonical = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
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
        // Readers keep a segment alive: then it is no spare.
        let spare = self.spare.take_if(|spare| spare.bytes == bytes && spare.is_unread());
        let (temporary, file) = match spare {
            Some(spare) => (self.dir.join(SPARE_NAME), Ok(spare.file.clone())),
            None => (self.dir.join(PREPARE_NAME), self.fs.create(&self.dir.join(PREPARE_NAME))),
        };
        let recycles = temporary.ends_with(SPARE_NAME);
        let made = file.and_then(|file| {
            if recycles && !planted::is(Mistake::RecycledUnderItsOldName) {
                // Its old name must be gone for good before it loses what it holds.
                self.fs.sync_dir(&self.dir)?;
            }
            if !(recycles && planted::is(Mistake::RecycledAsItIs)) {
                self.fill(&*file, bytes)?;
            }
            self.fs.rename(&temporary, &path)?;
            self.fs.sync_dir(&self.dir)?;
            Ok(file)
        });
        match made {
            Ok(file) => Segment::new(seq, path, file),
            Err(error) => {
                // On a full disk, the half-made file is what fills it. If it cannot be removed, the next attempt reuses it.
                let _ = self.fs.remove(&temporary);
                Err(Error::preparing(&path)(error))
            }
        }
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

    /// Takes a segment that holds nothing any more out of the directory, and keeps it as a spare if there is none. An
    /// error costs room only: the file is removed when the log is opened again.
    pub(crate) fn discard(&mut self, segment: Arc<Segment>) {
        let has_spare = self.spare.as_mut().is_some_and(Segment::is_unread);
        let result = if has_spare {
            self.fs.remove(&segment.path)
        } else {
            self.fs.rename(&segment.path, &self.dir.join(SPARE_NAME)).map(|()| self.spare = Some(segment.clone()))
        };
        if let Err(error) = result {
            tracing::warn!(segment = %segment.path.display(), %error, "cannot remove a purged segment");
        }
    }
}

impl Segment {
    /// Maps the open file of segment `seq`.
    pub(crate) fn new(seq: u64, path: PathBuf, file: Arc<dyn File>) -> Result<Arc<Segment>, Error> {
        let bytes = file.bytes().map_err(Error::io("measure", &path))?;
        let region = file.map().map_err(Error::io("map", &path))?;
        let map = Bytes::from_owner(Whole(region.clone()));
        Ok(Arc::new(Segment { seq, path, bytes, file, region, map, published: AtomicUsize::new(0) }))
    }

    /// Gives up the map. Whether nobody else holds it, nor anything that was read from it.
    fn is_unread(self: &mut Arc<Self>) -> bool {
        let Some(segment) = Arc::get_mut(self) else { return false };
        segment.map = Bytes::new();
        Arc::strong_count(&segment.region) == 1
    }

    /// Bytes before `end` are durable and will never be written again.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.bytes as usize, "published beyond the end of the segment");
        self.published.fetch_max(end, Ordering::Release);
    }

    /// What is published from `start` on, without a copy.
    pub(crate) fn published_from(&self, start: usize) -> Bytes {
        self.map.slice(start..self.published.load(Ordering::Acquire))
    }

    /// The file as the disk has it, by reads: `bytes` of it, in a buffer that may have been used before. What the disk
    /// refuses, or the file has not, becomes [`UNREADABLE_BYTE`], and is found by its checksum like any other damage.
    pub(crate) fn read_all(&self, bytes: u64, all: &mut Vec<u8>) {
        all.resize(bytes as usize, UNREADABLE_BYTE);
        let (present, absent) = all.split_at_mut(self.bytes.min(bytes) as usize);
        absent.fill(UNREADABLE_BYTE);
        for (chunk, buffer) in present.chunks_mut(READ_BYTES).enumerate() {
            let offset = (chunk * READ_BYTES) as u64;
            if self.file.read_at(buffer, offset).is_ok() {
                continue;
            }
            for (page, buffer) in buffer.chunks_mut(PAGE_BYTES).enumerate() {
                self.read_or_spoil(buffer, offset + (page * PAGE_BYTES) as u64);
            }
        }
    }

    /// A page, as [`Segment::read_all`] reads it.
    pub(crate) fn read_page(&self, page: u64) -> Vec<u8> {
        let mut buffer = vec![UNREADABLE_BYTE; PAGE_BYTES];
        let offset = page * PAGE_BYTES as u64;
        let bytes = self.bytes.saturating_sub(offset).min(PAGE_BYTES as u64);
        self.read_or_spoil(&mut buffer[..bytes as usize], offset);
        buffer
    }

    fn read_or_spoil(&self, buffer: &mut [u8], offset: u64) {
        if let Err(error) = self.file.read_at(buffer, offset) {
            tracing::warn!(segment = %self.path.display(), offset, %error, "unreadable page");
            buffer.fill(UNREADABLE_BYTE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_none_of_ours() {
        for seq in [1, 0xabc, u64::MAX] {
            let path = path_of(Path::new("dir"), seq);
            assert_eq!(seq_of(path.file_name().unwrap().to_str().unwrap()), Some(seq));
        }
        for name in
            ["LOCK", PREPARE_NAME, "1.wal", "000000000000000G.wal", "+00000000000000a.wal", "000000000000000A.wal"]
        {
            assert_eq!(seq_of(name), None, "{name}");
        }
    }
}
