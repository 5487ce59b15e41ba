//! Opening a log: lock, sync, read, judge, replay, and write again what is not proved durable.
//!
//! 1. Lock the directory.
//! 2. Sync every file and the directory, then read. After a failed sync the page cache may show bytes that the disk does
//!    not have; from here on, what is read can at least not vanish by a kill of this process.
//! 3. Read all segment headers, then each segment, with reads and not through the map: a bad sector is then an error
//!    and not a signal.
//! 4. Replay (see `recovery`). With damage, stop here: the log can be read.
//! 5. Start a new segment, and append to it, as one batch, what no header proves durable (a sync that failed may have
//!    left it in the page cache only). When that is synced, the log is open.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::error::{Error, LogId};
use crate::format::{BatchHeader, Fault, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, VERSION, batch_bytes, is_zero};
use crate::fs::{Fs, Lock};
use crate::log::{Log, Options, Stats, lock_path};
use crate::pool::Pool;
use crate::reader::Reader;
use crate::record::Entry;
use crate::recovery::{Recovery, Replay, Report, Source};
use crate::scan::scan;
use crate::segment::{PREPARE_NAME, Segment, path_of, seq_of};
use crate::writer::{Position, Tail, Writer};

/// A segment file and what its first page says.
struct Found {
    segment: Arc<Segment>,
    header: Result<SegmentHeader, Fault>,
}

/// What reading has found.
struct Read {
    id: Option<LogId>,
    replay: Replay,
    /// Segments that stay, oldest first.
    used: VecDeque<Arc<Segment>>,
    /// Segments that were begun, and hold nothing.
    empty: Vec<Arc<Segment>>,
}

pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
    fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
    let lock = lock(&*fs, dir)?;
    let mut files = find(&*fs, dir)?;
    let prepared = take_prepared(&mut files);
    check_ids(&files, options.expect)?;
    let mut read = read(files);
    let report = read.replay.finish();
    let recovery = recovery(&read, report);
    if let Report::Damaged { ranges, .. } = &recovery.report {
        let damage = ranges.first().copied().expect("damage has a range");
        let reader = Reader::new(Arc::new(RwLock::new(read.replay.catalog)));
        let id = read.id.or(options.expect).unwrap_or(LogId([0; 16]));
        return Ok((Log::damaged(id, reader, damage, read.replay.standing, lock), recovery));
    }
    let writer = start(fs, dir, options, read, prepared)?;
    Ok((Log::writable(writer, lock), recovery))
}

fn lock(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn Lock>, Error> {
    let path = lock_path(dir);
    fs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path },
        _ => Error::io("lock", &path)(error),
    })
}

/// The segments of the directory, oldest first, synced.
fn find(fs: &dyn Fs, dir: &Path) -> Result<Vec<Found>, Error> {
    let names = fs.list(dir).map_err(Error::io("list", dir))?;
    if names.iter().any(|name| name == PREPARE_NAME) {
        let path = dir.join(PREPARE_NAME);
        fs.remove(&path).map_err(Error::io("remove", &path))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| seq_of(name)).collect();
    numbers.sort_unstable();
    let mut files = Vec::new();
    for seq in numbers {
        let path = path_of(dir, seq);
        let file = fs.open(&path).map_err(Error::io("open", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        let segment = Segment::new(seq, path, file)?;
        let header = header_of(&segment);
        files.push(Found { segment, header });
    }
    fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(files)
}

fn header_of(segment: &Segment) -> Result<SegmentHeader, Fault> {
    match SegmentHeader::decode(&segment.read_page(0)) {
        // A file under another's name is none we could place.
        Ok(header) if header.seq != segment.seq => Err(Fault::Unreadable),
        // Where there is a batch there was a header.
        Err(Fault::Zeros) if BatchHeader::decode(&segment.read_page(1)[..SECTOR_BYTES]).is_ok() => {
            Err(Fault::Unreadable)
        }
        header => header,
    }
}

/// Takes out the segments that were prepared and never begun: a header of zeros was never written (A5), and neither was
/// then any batch, since the header is durable before the first.
fn take_prepared(files: &mut Vec<Found>) -> Vec<Arc<Segment>> {
    files.extract_if(.., |found| found.header == Err(Fault::Zeros)).map(|found| found.segment).collect()
}

/// All segments must be ours, and of a version we know.
fn check_ids(files: &[Found], expect: Option<LogId>) -> Result<(), Error> {
    let mut expected = expect;
    for Found { segment, header } in files {
        let path = segment.path.clone();
        match header {
            Ok(header) => {
                let (found, expected) = (header.log_id, *expected.get_or_insert(header.log_id));
                if found != expected {
                    return Err(Error::ForeignSegment { path, found, expected });
                }
            }
            Err(Fault::Version(found)) => return Err(Error::Version { path, found: *found, supported: VERSION }),
            Err(Fault::Zeros | Fault::Unreadable) => {}
        }
    }
    Ok(())
}

fn read(files: Vec<Found>) -> Read {
    let first = files.iter().find_map(|found| found.header.as_ref().ok());
    let mut replay = first.map_or_else(Replay::default, Replay::starting_at);
    let id = first.map(|header| header.log_id);
    let (mut used, mut empty) = (VecDeque::new(), Vec::new());
    for at in 0..files.len() {
        let (Found { segment, header }, later) = (&files[at], &files[at + 1..]);
        let Ok(header) = header else {
            replay.lose_segment();
            used.push_back(segment.clone());
            continue;
        };
        let bytes = segment.read_all();
        let scan = scan(&bytes, header, later.iter().find_map(|next| Some(next.header.as_ref().ok()?.next_batch)));
        let empty_here = scan.found.is_empty();
        replay.segment(Source { segment, bytes: &bytes }, header, scan, marked_by(later));
        if empty_here { empty.push(segment.clone()) } else { used.push_back(segment.clone()) }
    }
    Read { id, replay, used, empty }
}

/// Up to which batch later segments prove everything durable. One that cannot be read was begun, hence proves all.
fn marked_by(later: &[Found]) -> u64 {
    let mark = |found: &Found| found.header.as_ref().map_or(u64::MAX, |header| header.durable_batch);
    later.iter().map(mark).max().unwrap_or(0)
}

fn recovery(read: &Read, report: Report) -> Recovery {
    let (catalog, standing) = (&read.replay.catalog, &read.replay.standing);
    Recovery {
        report,
        base: standing.base,
        last: standing.last,
        entries_recovered: catalog.entries(),
        entries_rewritten: read.replay.rewrite().map_or(0, |entries| entries.len() as u64),
        segments: (read.used.len() + read.empty.len()) as u64,
    }
}

/// Starts a new segment on a log without damage, and writes there what is not proved durable.
fn start(
    fs: Arc<dyn Fs>,
    dir: &Path,
    options: Options,
    read: Read,
    prepared: Vec<Arc<Segment>>,
) -> Result<Writer, Error> {
    let Read { id, replay, used, empty } = read;
    let id = id.or(options.expect).map_or_else(|| draw_id(&*fs, dir), Ok)?;
    let rewrite = replay.rewrite();
    let newest = used.iter().chain(&empty).map(|segment| segment.seq).max().unwrap_or(0);
    let need = rewrite.as_deref().map_or(0, bytes_of);
    let (segment, pool) = first_segment(&fs, dir, options, newest, prepared, need)?;
    let (seq, chain, durable_batch) = (replay.seq, replay.chain, replay.durable_batch());
    let position = Position { log_id: id, seq, durable_batch, chain };
    let tail = Tail::start(&*fs, segment, &position, replay.durable_standing.clone())?;
    let mut writer = Writer {
        fs,
        id,
        batch_bytes_max: options.batch_bytes_max,
        catalog: Arc::new(RwLock::new(replay.catalog)),
        pool,
        tail,
        older: used,
        written: replay.durable_standing,
        seq,
        chain,
        durable_batch,
        staged: Vec::new(),
        spare: Vec::new(),
        stats: Stats::default(),
    };
    if let Some(entries) = rewrite {
        writer.replace(replay.standing, &entries)?;
        writer.mark()?;
    }
    writer.stats = Stats::default();
    for segment in empty {
        // Its header is superseded by the new one.
        writer.fs.remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
    }
    writer.purge();
    writer.pool.prepare_ahead();
    Ok(writer)
}

/// A segment with room for a batch of `need` bytes of entries: one left from before if there is one that fits.
fn first_segment(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    options: Options,
    newest: u64,
    prepared: Vec<Arc<Segment>>,
    need: usize,
) -> Result<(Arc<Segment>, Pool), Error> {
    let pool = |next| Pool::new(fs.clone(), dir, options.segment_bytes, next, options.prepare_ahead);
    let mut reuse = None;
    for segment in prepared {
        let next = segment.seq > newest && segment.bytes == options.segment_bytes;
        if reuse.is_none() && next && is_zero(&segment.read_all()) {
            reuse = Some(segment);
        } else {
            fs.remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
        }
    }
    // Room for the batch that marks it durable, too.
    let bytes_min = (2 * PAGE_BYTES + batch_bytes(need)) as u64;
    match reuse {
        Some(segment) if segment.bytes >= bytes_min => {
            let next = segment.seq + 1;
            Ok((segment, pool(next)?))
        }
        reuse => {
            let mut pool = pool(reuse.map_or(newest + 1, |segment| segment.seq))?;
            Ok((pool.take(bytes_min)?, pool))
        }
    }
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.frame().len()).sum()
}

fn draw_id(fs: &dyn Fs, dir: &Path) -> Result<LogId, Error> {
    let mut id = [0; 16];
    fs.random(&mut id).map_err(Error::io("draw an id for", dir))?;
    Ok(LogId(id))
}
