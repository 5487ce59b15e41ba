//! Ways to make a batch durable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::fs::fdatasync;

use kv_peers::PAGE_BYTES;

/// How a batch is written and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Whole pages by `pwrite`, then `fdatasync`.
    Pwrite,
    /// Only the bytes by `pwrite`, then `fdatasync`: the kernel has to read the rest of the page, if it has not got it.
    PwritePart,
    /// Stored into a map, then `msync` of those pages.
    Map,
}

/// Bytes of the pages that a batch takes.
pub(crate) fn pages_of(batch_bytes: usize) -> usize {
    batch_bytes.next_multiple_of(PAGE_BYTES)
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Pwrite => "`pwrite` of pages, `fdatasync`",
            Way::PwritePart => "`pwrite` of a part of a page, `fdatasync`",
            Way::Map => "store into the map, `msync`",
        }
    }

    /// Writes and syncs so many batches from the start of `file`, and gives the time of each.
    pub(crate) fn time(self, file: &File, batch_bytes: usize, rounds: usize) -> io::Result<Vec<Duration>> {
        let mut batch = kv_peers::payload(batch_bytes).to_vec();
        let offsets = (0..rounds).map(|round| round * pages_of(batch_bytes));
        match self {
            Way::Pwrite | Way::PwritePart => {
                if self == Way::Pwrite {
                    batch.resize(pages_of(batch_bytes), 0);
                }
                let write =
                    |offset: usize| file.write_all_at(&batch, offset as u64).and_then(|()| Ok(fdatasync(file)?));
                offsets.map(|offset| timed(|| write(offset))).collect()
            }
            Way::Map => {
                let mut map = map(file)?;
                let mut store = |offset: usize| {
                    map[offset..offset + batch_bytes].copy_from_slice(&batch);
                    map.flush_range(offset, batch_bytes)
                };
                offsets.map(|offset| timed(|| store(offset))).collect()
            }
        }
    }
}

/// The whole file as memory.
pub(crate) fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file lies in a directory of its own, which only this process knows, and nothing else here writes to the
    // file or shortens it while the map lives.
    unsafe { MmapMut::map_mut(file) }
}

fn timed(write: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let start = Instant::now();
    write()?;
    Ok(start.elapsed())
}
