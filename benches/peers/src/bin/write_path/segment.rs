//! A segment file before its first batch: what was done to it decides what a write costs later.

use std::fs::File;
use std::io;
use std::path::Path;

use kv_peers::{SEGMENT_BYTES, fill};
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

/// Any byte but zero.
const OTHER_BYTE: u8 = 0xa5;

/// How a segment was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// Has its blocks, marked as unwritten.
    Fallocated,
    /// Zeros were written, so many bytes a call: the page cache is made of pieces as large as the calls.
    Zeros { call_bytes: usize },
    /// Was full of something else, which the page cache still holds.
    RecycledWarm,
    /// Was full of something else, which the page cache has dropped.
    RecycledCold,
}

impl Prepared {
    pub(crate) const ALL: [Prepared; 5] = [
        Prepared::Fallocated,
        Prepared::Zeros { call_bytes: 1 << 20 },
        Prepared::Zeros { call_bytes: 4 << 10 },
        Prepared::RecycledWarm,
        Prepared::RecycledCold,
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Prepared::Fallocated => "`fallocate` only".to_owned(),
            Prepared::Zeros { call_bytes } => format!("zeros, {} KiB a call", call_bytes >> 10),
            Prepared::RecycledWarm => "recycled, in the cache".to_owned(),
            Prepared::RecycledCold => "recycled, not in the cache".to_owned(),
        }
    }

    /// A durable segment, in place of the file that is there.
    pub(crate) fn make(self, path: &Path) -> io::Result<File> {
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        let file = File::options().create_new(true).read(true).write(true).open(path)?;
        match self {
            Prepared::Fallocated => fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES)?,
            Prepared::Zeros { call_bytes } => fill(&file, 0, call_bytes)?,
            Prepared::RecycledWarm | Prepared::RecycledCold => fill(&file, OTHER_BYTE, 1 << 20)?,
        }
        file.sync_all()?;
        if self == Prepared::RecycledCold {
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(file)
    }
}
