//! One segment file: made ahead, really written with zeros, mapped once, and read by slices of the map.
//!
//! A segment is named only after its zeros are durable, so a segment that exists has its room: the disk cannot be full
//! when a batch is written. `fallocate` would not do: it leaves unwritten extents, each first write of which costs a
//! metadata write at the next sync.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::Error;
use crate::format::PAGE_BYTES;
use crate::fs::{File, Fs, Region};

/// A segment in the making. There is at most one.
pub(crate) const PREPARE_NAME: &str = "prepare.tmp";
/// Zeros written by one call.
const ZEROS_BYTES: usize = 1 << 20;
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
    /// Bytes before this are durable and never change again; only they are given out.
    published: AtomicUsize,
}

/// What a `Bytes` made of a segment holds on to.
struct Published {
    segment: Arc<Segment>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Published {
    fn as_ref(&self) -> &[u8] {
        self.segment.region.slice(self.range.clone())
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

/// Makes segment `seq` of `bytes` zeros, durable under its name, in place of one of that name.
pub(crate) fn prepare(fs: &dyn Fs, dir: &Path, seq: u64, bytes: u64) -> Result<Arc<Segment>, Error> {
    assert!(bytes.is_multiple_of(PAGE_BYTES as u64), "a segment is whole pages");
    let (temporary, path) = (dir.join(PREPARE_NAME), path_of(dir, seq));
    let write = || {
        let file = fs.create(&temporary)?;
        let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
        let mut offset = 0;
        while offset < bytes {
            let count = (bytes - offset).min(zeros.len() as u64);
            file.write_at(&zeros[..count as usize], offset)?;
            offset += count;
        }
        file.sync()?;
        fs.rename(&temporary, &path)?;
        fs.sync_dir(dir)?;
        Ok(file)
    };
    match write() {
        Ok(file) => Segment::new(seq, path, file),
        Err(error) => {
            // On a full disk, the half-made file is what fills it. If it cannot be removed, the next attempt reuses it.
            let _ = fs.remove(&temporary);
            Err(Error::io("prepare", &path)(error))
        }
    }
}

impl Segment {
    /// Maps the open file of segment `seq`.
    pub(crate) fn new(seq: u64, path: PathBuf, file: Arc<dyn File>) -> Result<Arc<Segment>, Error> {
        let bytes = file.bytes().map_err(Error::io("measure", &path))?;
        let region = file.map().map_err(Error::io("map", &path))?;
        Ok(Arc::new(Segment { seq, path, bytes, file, region, published: AtomicUsize::new(0) }))
    }

    /// Bytes before `end` are durable and will never be written again.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.bytes as usize, "published beyond the end of the segment");
        self.published.fetch_max(end, Ordering::Release);
    }

    /// What is published from `start` on, without a copy.
    pub(crate) fn published_from(self: &Arc<Self>, start: usize) -> Bytes {
        let end = self.published.load(Ordering::Acquire);
        Bytes::from_owner(Published { segment: self.clone(), range: start..end })
    }

    /// The whole file as the disk has it, by reads: what the disk refuses becomes [`UNREADABLE_BYTE`], and is found by
    /// its checksum like any other damage.
    pub(crate) fn read_all(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes as usize];
        for (chunk, buffer) in bytes.chunks_mut(READ_BYTES).enumerate() {
            let offset = (chunk * READ_BYTES) as u64;
            if self.file.read_at(buffer, offset).is_ok() {
                continue;
            }
            for (page, buffer) in buffer.chunks_mut(PAGE_BYTES).enumerate() {
                self.read_or_spoil(buffer, offset + (page * PAGE_BYTES) as u64);
            }
        }
        bytes
    }

    /// A page, as [`Segment::read_all`] reads it; zeros after the end of a file that is shorter.
    pub(crate) fn read_page(&self, page: u64) -> Vec<u8> {
        let mut buffer = vec![0; PAGE_BYTES];
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
