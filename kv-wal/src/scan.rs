//! Looks at a log without opening it: what each file holds, batch by batch, and what opening would make of it.
//!
//! Takes no lock, maps nothing, and opens every file for reading only: a damaged directory is left as it is.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::error::{Error, LogId};
use crate::format::{BatchHeader, Fault};
use crate::fs::{Fs, RealFs};
use crate::load::{Loaded, read, take_prepared};
use crate::record::{Entry, EntryId, Index};
use crate::recovery::{Recovery, Verdict};
use crate::segment::{Segment, segments_among};
use crate::walk::Found;

/// A directory as it is, and as [`Log::open`](crate::Log::open) would see it.
#[derive(Debug)]
pub struct Scan {
    /// The log that the segments are of; `None` if no header can be read.
    pub id: Option<LogId>,
    /// What opening would report.
    pub recovery: Recovery,
    /// The segment files, oldest first.
    pub segments: Vec<ScannedSegment>,
    catalog: Catalog,
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedSegment {
    /// The number that its name says.
    pub seq: u64,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What its header says.
    pub header: ScannedHeader,
    /// Its batches, in the order of writing. None if it has no header.
    pub batches: Vec<ScannedBatch>,
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScannedHeader {
    /// What the log looked like when the segment was begun.
    Sound {
        /// Sequence number of its first batch. All batches before that were durable.
        next_batch: u64,
        /// The entry before the first of the log.
        base: EntryId,
        /// The last entry of the log.
        last: EntryId,
    },
    /// Nothing: the segment was prepared and has not been begun.
    Blank,
    /// Neither of its two pages can be read, or it is the header of another segment.
    Unreadable,
    /// It is of another log, so opening would refuse the directory.
    Foreign {
        /// Which log.
        id: LogId,
    },
    /// It has been written by a newer release, so opening would refuse the directory.
    Version {
        /// Its format version.
        found: u32,
    },
}

/// A batch, or a run of batches whose headers cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedBatch {
    /// Sequence number of the batch; of the first of a run, which may also be something that was never a batch.
    pub seq: u64,
    /// Where it starts in the file.
    pub offset: u64,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What its header says; `None` if that cannot be read.
    pub header: Option<ScannedBatchHeader>,
}

/// What the header of a batch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedBatchHeader {
    /// Bytes of whole pages.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Index of its first entry. With no entries, the index after the last of the log; of a repair, 0: its entries say.
    pub first: Index,
    /// The last entry of the log after it.
    pub last: EntryId,
    /// The entry before the first of the log after it.
    pub base: EntryId,
    /// Whether it removes the entries from its first index on before it appends its own.
    pub cuts: bool,
    /// Whether its entries take the place of lost ones.
    pub fills: bool,
    /// All batches up to this one were durable when it was written.
    pub durable_batch: u64,
    /// The state blob after it.
    pub state: Option<Bytes>,
}

/// Scans the log in `dir`, which may be damaged, and changes nothing.
///
/// If another process has the log open, the result may show a batch half written, or a segment half gone.
///
/// ```
/// # use kv_wal::{Log, Options, Verdict};
/// # fn main() -> Result<(), kv_wal::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (mut log, _) = Log::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() })?;
/// # log.append(&[], Some(b"state"))?;
/// # log.close()?;
/// let scan = kv_wal::scan(dir.path())?;
/// println!("log {:?}: {}", scan.id, scan.recovery);
/// for segment in &scan.segments {
///     let damaged = segment.batches.iter().filter(|batch| batch.verdict == Verdict::Damaged).count();
///     println!("{}: {} batches, {damaged} damaged", segment.path.display(), segment.batches.len());
/// }
/// # assert_eq!(scan.segments[0].batches.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The directory or one of its files cannot be opened. What cannot be read in a file is damage, and no error.
pub fn scan(dir: &Path) -> Result<Scan, Error> {
    scan_with(&RealFs, dir)
}

/// Like [`scan`], on another file system.
///
/// # Errors
///
/// As for [`scan`].
pub fn scan_with(fs: &dyn Fs, dir: &Path) -> Result<Scan, Error> {
    let names = fs.list(dir).map_err(Error::io("list", dir))?;
    let mut files = Vec::new();
    for (seq, path) in segments_among(&names, dir) {
        let file = fs.open_read(&path).map_err(Error::io("open", &path))?;
        files.push(Loaded::new(Segment::unmapped(seq, path, file)?));
    }
    let id = files.iter().find_map(|file| Some(file.header.as_ref().ok()?.log_id));
    let mut segments: Vec<_> = files.iter().map(|file| ScannedSegment::new(file, id)).collect();
    take_prepared(&mut files);
    for file in &mut files {
        if file.header.as_ref().is_ok_and(|header| Some(header.log_id) != id) {
            file.header = Err(Fault::Unreadable);
        }
    }
    let read = read(&files, |segment, found, verdict| {
        let scanned = segments.iter_mut().find(|scanned| scanned.seq == segment.seq);
        scanned.expect("all are there").batches.push(ScannedBatch::new(found, verdict));
    });
    Ok(Scan { id, recovery: read.recovery(), segments, catalog: read.replay.catalog })
}

impl Scan {
    /// An entry that opening would find, read from its file, its checksum verified.
    ///
    /// # Errors
    ///
    /// It was truncated, is lost, lies outside the log, or cannot be read.
    pub fn entry(&self, index: Index) -> Result<Entry, Error> {
        let (segment, offset) = self.catalog.place_of(index)?;
        segment.read_entry(offset, index)
    }
}

impl ScannedSegment {
    fn new(Loaded { segment, header, .. }: &Loaded, log: Option<LogId>) -> ScannedSegment {
        let header = match header {
            Ok(header) if Some(header.log_id) != log => ScannedHeader::Foreign { id: header.log_id },
            Ok(header) => {
                let (base, last) = (header.standing.base, header.standing.last);
                ScannedHeader::Sound { next_batch: header.next_batch, base, last }
            }
            Err(Fault::Blank) => ScannedHeader::Blank,
            Err(Fault::Unreadable) => ScannedHeader::Unreadable,
            Err(Fault::Version(found)) => ScannedHeader::Version { found: *found },
        };
        let Segment { seq, path, bytes, .. } = &**segment;
        ScannedSegment { seq: *seq, path: path.clone(), bytes: *bytes, header, batches: Vec::new() }
    }
}

impl ScannedBatch {
    fn new(found: &Found, verdict: Verdict) -> ScannedBatch {
        let header = found.batch.as_ref().map(|batch| ScannedBatchHeader::new(&batch.header));
        ScannedBatch { seq: found.seq, offset: found.offset as u64, verdict, header }
    }
}

impl ScannedBatchHeader {
    fn new(header: &BatchHeader) -> ScannedBatchHeader {
        ScannedBatchHeader {
            bytes: header.total_bytes() as u64,
            entries: u64::from(header.count),
            first: if header.fills { Index::ZERO } else { header.first() },
            last: header.standing.last,
            base: header.standing.base,
            cuts: header.cuts_end,
            fills: header.fills,
            durable_batch: header.durable_batch,
            state: header.standing.state.clone(),
        }
    }
}
