//! Opening a log: lock, sync, read, judge, replay, and write again what is not proved durable.
//!
//! 1. Lock the directory.
//! 2. Sync every file and the directory, then read. After a failed sync the page cache may show bytes that the disk does
//!    not have; from here on, what is read can at least not vanish by a kill of this process.
//! 3. Read all segment headers, then each segment, with reads and not through the map: a bad sector is then an error
//!    and not a signal.
//! 4. Replay (see `recovery`).
//! 5. Settle the newest segment: its header, and what was accepted there and no header proves durable, are written again
//!    as they are (a sync that failed may have left them in the page cache only); a torn batch and what follows it is
//!    erased; all that is synced. From here on everything accepted is durable, and nothing else is left to be found.
//! 6. Go on writing where the newest segment ends; or, if something in it is damaged, in a new segment, whose header
//!    says what is lost.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::error::{Error, LogId};
use crate::format::{BATCHES_AT, BatchHeader, Fault, SECTOR_BYTES, VERSION, erased_sector};
use crate::fs::{Fs, Lock};
use crate::load::{Loaded, Read, Rest, read, take_prepared};
use crate::log::{Log, Options, Stats, lock_path};
use crate::planted::{self, Mistake};
use crate::pool::Pool;
use crate::recovery::Recovery;
use crate::segment::{PREPARE_NAME, SPARE_NAME, Segment, segments_among};
use crate::writer::{Position, Tail, Writer};

/// Bytes erased by one write.
const ERASED_AT_ONCE: usize = 1 << 20;

pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
    fs.create_dir_all(dir).map_err(Error::io("create", dir))?;
    let lock = lock(&*fs, dir)?;
    let mut files = find(&*fs, dir)?;
    let prepared = take_prepared(&mut files);
    check_ids(&files, options.expect)?;
    let mut read = read(&files, |_, _, _| {});
    settle(&read)?;
    let recovery = read.recovery();
    let goes_on = read.goes_on();
    // Of an opening that began a new segment and got no further.
    erase(read.overtaken.as_ref())?;
    if goes_on {
        erase(read.rest.as_ref())?;
    }
    let writer = start(fs, dir, options, &mut read, prepared)?;
    if !goes_on {
        // What is cut may hold the only proof that something damaged was durable: the new segment has to say so first.
        erase(read.rest.as_ref())?;
    }
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
fn find(fs: &dyn Fs, dir: &Path) -> Result<Vec<Loaded>, Error> {
    let names = fs.list(dir).map_err(Error::io("list", dir))?;
    for name in names.iter().filter(|name| [PREPARE_NAME, SPARE_NAME].contains(&name.as_str())) {
        let path = dir.join(name);
        fs.remove(&path).map_err(Error::io("remove", &path))?;
    }
    let mut files = Vec::new();
    for (seq, path) in segments_among(&names, dir) {
        let file = fs.open(&path).map_err(Error::io("open", &path))?;
        let segment = Segment::new(seq, path, file, false)?;
        segment.sync()?;
        files.push(Loaded::new(segment));
    }
    fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Ok(files)
}

/// All segments must be ours, and of a version we know.
fn check_ids(files: &[Loaded], expect: Option<LogId>) -> Result<(), Error> {
    let mut expected = expect;
    for Loaded { segment, header, .. } in files {
        let path = segment.path.clone();
        match header {
            Ok(header) => {
                let (found, expected) = (header.log_id, *expected.get_or_insert(header.log_id));
                if found != expected {
                    return Err(Error::ForeignSegment { path, found, expected });
                }
            }
            Err(Fault::Version(found)) => return Err(Error::Version { path, found: *found, supported: VERSION }),
            Err(Fault::Blank | Fault::Unreadable) => {}
        }
    }
    Ok(())
}

/// Makes what was found in the newest segment the truth: writes again what nothing proves durable.
///
/// A crash on the way, or a sync that fails, leaves the same to be found and done.
fn settle(read: &Read) -> Result<(), Error> {
    let Some((segment, header)) = &read.newest else { return Ok(()) };
    // Nothing is made longer.
    let has_header = segment.bytes >= BATCHES_AT as u64;
    if has_header && !planted::is(Mistake::OpenedWithoutWritingTheHeaderAgain) {
        segment.write_header(&header.encode())?;
    }
    let unmarked = &read.replay.tail.unmarked[..];
    for range in if planted::is(Mistake::OpenedWithoutWritingAgain) { &[] } else { unmarked } {
        segment.write(&read_again(segment, range, header.salt)?, range.start as u64)?;
    }
    segment.sync()
}

/// Erases a torn batch and what follows it, of which nobody was told that it is durable. A crash on the way leaves the same
/// to be found and done, or less.
fn erase(rest: Option<&Rest>) -> Result<(), Error> {
    // What an earlier opening has erased may be on the disk still: it is erased again.
    let Some(Rest { segment, salt, start, written_bytes, .. }) = rest.filter(|rest| rest.written_bytes > 0) else {
        return Ok(());
    };
    if planted::is(Mistake::CutButNotErased) {
        return Ok(());
    }
    let erased = if planted::is(Mistake::ErasedByZeros) { [0; SECTOR_BYTES] } else { erased_sector(*salt) };
    let erased = erased.repeat(ERASED_AT_ONCE / SECTOR_BYTES);
    for at in (0..*written_bytes).step_by(ERASED_AT_ONCE) {
        let part = &erased[..ERASED_AT_ONCE.min(written_bytes - at)];
        segment.write(part, (start + at) as u64)?;
    }
    segment.sync()
}

/// A batch that has been found intact.
fn read_again(segment: &Segment, range: &Range<usize>, salt: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; range.len()];
    segment.read_or_spoil(&mut bytes, range.start as u64);
    if !BatchHeader::is_batch(&bytes, salt) {
        return Err(Error::io("read", &segment.path)(io::Error::other("it does not read the same twice")));
    }
    // One without entries counts even if the file ends within it. Nothing is made longer.
    bytes.truncate(segment.bytes as usize - range.start);
    Ok(bytes)
}

/// The writer goes on where the log ends.
fn start(
    fs: Arc<dyn Fs>,
    dir: &Path,
    options: Options,
    read: &mut Read,
    prepared: Vec<Loaded>,
) -> Result<Writer, Error> {
    let goes_on = read.goes_on();
    let (id, segments) = (read.id, std::mem::take(&mut read.segments));
    let mut replay = std::mem::take(&mut read.replay);
    let id = match id.or(options.expect) {
        Some(id) => id,
        None if segments.is_empty() => draw_id(&*fs, dir)?,
        None => return Err(Error::Nameless { dir: dir.to_owned() }),
    };
    let newest_seq = segments.back().map_or(0, |segment| segment.seq);
    let ready = first_prepared(&*fs, options, newest_seq + 1, prepared)?;
    let unmarked = replay.tail.unmarked_entries > 0;
    let mut pool = Pool::new(fs.clone(), dir, options.segment_bytes, newest_seq + 1, ready, options.prepare_ahead)?;
    let tail = match &read.newest {
        Some((_, header)) if goes_on => {
            let segment = segments.back().expect("the newest one").clone();
            Tail { segment, salt: header.salt, offset: replay.tail.end as u64, header: header.encode() }
        }
        _ => {
            let (standing, damage) = (&replay.standing, &replay.damage);
            let position = Position { log_id: id, seq: replay.seq, chain: replay.chain, standing, damage };
            Tail::start(&*fs, pool.take(BATCHES_AT as u64)?, &position)?
        }
    };
    pool.prepare_ahead();
    segments.into_iter().for_each(|segment| replay.catalog.add_segment(segment));
    if !goes_on {
        replay.catalog.add_segment(tail.segment.clone());
    }
    let mut writer = Writer {
        fs,
        id,
        batch_bytes_max: options.batch_bytes_max,
        catalog: Arc::new(RwLock::new(replay.catalog)),
        pool,
        tail,
        written: replay.standing,
        damage: replay.damage,
        seq: replay.seq,
        chain: replay.chain,
        durable_batch: replay.seq,
        unmarked,
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
    prepared: Vec<Loaded>,
) -> Result<Option<Arc<Segment>>, Error> {
    let mut ready = None;
    for Loaded { segment, is_zeros, .. } in prepared {
        if is_zeros && segment.seq == next_seq && segment.bytes == options.segment_bytes {
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
