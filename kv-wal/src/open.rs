//! Opening a log: lock, sync, read, judge, replay, and write again what is not proved durable.
//!
//! 1. Lock the directory.
//! 2. Sync every file and the directory, then read. After a failed sync the page cache may show bytes that the disk does
//!    not have; from here on, what is read can at least not vanish by a kill of this process.
//! 3. Read all segment headers, then each segment, with reads and not through the map: a bad sector is then an error
//!    and not a signal.
//! 4. Replay (see `recovery`).
//! 5. Settle the newest segment: what was accepted there and no header proves durable is written again as it is (a sync
//!    that failed may have left it in the page cache only), a torn batch and what follows it becomes zeros, all synced.
//!    From here on everything accepted is durable, and nothing else is left to be found.
//! 6. Go on writing where the newest segment ends; or, if something in it is damaged, in a new segment, whose header
//!    says what is lost.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::error::{Error, LogId};
use crate::format::{
    BATCHES_AT, BatchHeader, Fault, HEADER_PAGES, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, VERSION, is_zero,
};
use crate::fs::{Fs, Lock};
use crate::log::{Log, Options, Stats, lock_path};
use crate::planted::{self, Mistake};
use crate::pool::Pool;
use crate::recovery::{Recovery, Replay};
use crate::scan::scan;
use crate::segment::{PREPARE_NAME, SPARE_NAME, Segment, path_of, seq_of};
use crate::writer::{Position, Tail, Writer};

/// A segment file and what its first page says.
struct Found {
    segment: Arc<Segment>,
    header: Result<SegmentHeader, Fault>,
}

/// What reading has found.
#[derive(Debug, Default)]
struct Read {
    id: Option<LogId>,
    replay: Replay,
    /// All segments that were begun, oldest first.
    segments: VecDeque<Arc<Segment>>,
    /// Header of the newest of them, if it has one.
    newest: Option<SegmentHeader>,
    /// What was read last: of the newest, if that has a header.
    bytes: Vec<u8>,
}

pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
    fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
    let lock = lock(&*fs, dir)?;
    let mut files = find(&*fs, dir)?;
    let prepared = take_prepared(&mut files);
    check_ids(&files, options.expect)?;
    let read = read(files);
    let torn_bytes = settle(&read)?;
    let recovery = recovery(&read, torn_bytes);
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
    for name in names.iter().filter(|name| [PREPARE_NAME, SPARE_NAME].contains(&name.as_str())) {
        let path = dir.join(name);
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
    let first_batch = || BatchHeader::decode(&segment.read_page(HEADER_PAGES as u64)[..SECTOR_BYTES]);
    match SegmentHeader::decode([&segment.read_page(0), &segment.read_page(1)]) {
        // A file under another's name is none we could place.
        Ok(header) if header.seq != segment.seq => Err(Fault::Unreadable),
        // Where there is a batch there was a header.
        Err(Fault::Zeros) if first_batch().is_ok() => Err(Fault::Unreadable),
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
    let Some(first) = files.iter().find_map(|found| found.header.as_ref().ok()) else {
        let mut read = Read { segments: files.iter().map(|found| found.segment.clone()).collect(), ..Read::default() };
        read.segments.iter().for_each(|_| read.replay.lose_segment());
        read.replay.finish();
        return read;
    };
    let mut read = Read { id: Some(first.log_id), replay: Replay::starting_at(first), ..Read::default() };
    for at in 0..files.len() {
        let (Found { segment, header }, later) = (&files[at], &files[at + 1..]);
        read.segments.push_back(segment.clone());
        let Ok(header) = header else {
            read.replay.lose_segment();
            read.newest = None;
            continue;
        };
        segment.read_all(header.bytes, &mut read.bytes);
        // A segment goes as far as the next one takes over. If that does not say where, as far as there are batches.
        let limit = later.iter().find_map(|next| Some(next.header.as_ref().ok()?.next_batch));
        let found = scan(&read.bytes, header, limit);
        read.replay.segment(segment, header, found, !later.is_empty());
        read.newest = Some(header.clone());
    }
    read.replay.finish();
    read
}

/// Makes what was found in the newest segment the truth. Gives how much was written of a torn batch and after it, which
/// are zeros then.
///
/// A crash on the way leaves the same batches to be found, or fewer of those that nobody was told are durable.
fn settle(read: &Read) -> Result<u64, Error> {
    let (Some(segment), Some(_)) = (read.segments.back(), &read.newest) else { return Ok(0) };
    let (tail, bytes) = (&read.replay.tail, &read.bytes);
    let again = if planted::is(Mistake::OpenedWithoutWritingAgain) { &[] } else { &tail.unmarked[..] };
    for range in again {
        segment.file.write_at(&bytes[range.clone()], range.start as u64).map_err(Error::io("write", &segment.path))?;
    }
    let mut torn_bytes = 0;
    if let Some(start) = tail.torn_at {
        let mut pages = bytes[start..].chunks(PAGE_BYTES);
        torn_bytes = pages.rposition(|page| !is_zero(page)).map_or(0, |page| (page + 1) * PAGE_BYTES);
        let zeros = vec![0; if planted::is(Mistake::CutButNotErased) { 0 } else { torn_bytes }];
        segment.file.write_at(&zeros, start as u64).map_err(Error::io("write", &segment.path))?;
    }
    if torn_bytes > 0 || !tail.unmarked.is_empty() {
        segment.file.sync().map_err(Error::io("sync", &segment.path))?;
    }
    Ok(torn_bytes as u64)
}

fn recovery(read: &Read, torn_bytes: u64) -> Recovery {
    let Read { replay, segments, .. } = read;
    Recovery {
        report: replay.report(torn_bytes),
        base: replay.standing.base,
        last: replay.standing.last,
        entries_recovered: replay.catalog.entries(),
        entries_rewritten: replay.tail.unmarked_entries,
        segments: segments.len() as u64,
    }
}

/// The writer goes on where the log ends.
fn start(
    fs: Arc<dyn Fs>,
    dir: &Path,
    options: Options,
    read: Read,
    prepared: Vec<Arc<Segment>>,
) -> Result<Writer, Error> {
    let Read { id, replay, mut segments, newest, .. } = read;
    let id = id.or(options.expect).map_or_else(|| draw_id(&*fs, dir), Ok)?;
    let newest_seq = segments.back().map_or(0, |segment| segment.seq);
    let ready = first_prepared(&*fs, options, newest_seq + 1, prepared)?;
    let mut pool = Pool::new(fs.clone(), dir, options.segment_bytes, newest_seq + 1, ready, options.prepare_ahead)?;
    let tail = match newest {
        Some(header) if !replay.tail.damaged => {
            let segment = segments.pop_back().expect("the newest one");
            Tail { segment, salt: header.salt, offset: replay.tail.end as u64 }
        }
        _ => {
            let (standing, damage) = (&replay.standing, &replay.damage);
            let position = Position { log_id: id, seq: replay.seq, chain: replay.chain, standing, damage };
            Tail::start(&*fs, pool.take(BATCHES_AT as u64)?, &position)?
        }
    };
    pool.prepare_ahead();
    let mut writer = Writer {
        fs,
        id,
        batch_bytes_max: options.batch_bytes_max,
        catalog: Arc::new(RwLock::new(replay.catalog)),
        pool,
        tail,
        older: segments,
        written: replay.standing,
        damage: replay.damage,
        seq: replay.seq,
        chain: replay.chain,
        durable_batch: replay.seq,
        staged: Vec::new(),
        unsynced: Vec::new(),
        retired: Vec::new(),
        stats: Stats::default(),
    };
    writer.purge();
    Ok(writer)
}

/// Of the segments that were prepared and never begun, the one that comes next, if it is good. The others are removed.
fn first_prepared(
    fs: &dyn Fs,
    options: Options,
    next_seq: u64,
    prepared: Vec<Arc<Segment>>,
) -> Result<Option<Arc<Segment>>, Error> {
    let (mut ready, mut bytes) = (None, Vec::new());
    for segment in prepared {
        let next = segment.seq == next_seq && segment.bytes == options.segment_bytes;
        if next {
            segment.read_all(segment.bytes, &mut bytes);
        }
        if next && is_zero(&bytes) {
            ready = Some(segment);
        } else {
            fs.remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
        }
    }
    Ok(ready)
}

fn draw_id(fs: &dyn Fs, dir: &Path) -> Result<LogId, Error> {
    let mut id = [0; 16];
    fs.random(&mut id).map_err(Error::io("draw an id for", dir))?;
    Ok(LogId(id))
}
