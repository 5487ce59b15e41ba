//! The log itself, without threads of its own (but for the one that prepares segments): every step is a call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, Error, LogId};
use crate::format::{BATCH_BYTES_MAX, PAGE_BYTES, STATE_BYTES_MAX, Standing};
use crate::fs::{Fs, Lock, RealFs};
use crate::open;
use crate::reader::Reader;
use crate::record::{Entry, EntryId, Index};
use crate::recovery::Recovery;
use crate::writer::Writer;

/// How to open a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment file: a multiple of 4096, from 64 KiB to 1 GiB. May differ from one opening to the next.
    pub segment_bytes: u64,
    /// Appends are merged into one batch up to this many bytes. One append is always one batch, however large.
    pub batch_bytes_max: usize,
    /// Refuse a directory that holds another log than this.
    pub expect: Option<LogId>,
    /// Prepare the next segment on a thread. Without it, a rotation takes as long as writing a segment of zeros.
    pub prepare_ahead: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: 64 << 20, batch_bytes_max: 1 << 20, expect: None, prepare_ahead: true }
    }
}

/// Proof that a sync has returned: only [`Log::sync`] can make one. What it covers survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    last: Index,
    batch: u64,
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries staged.
    pub entries_appended: u64,
    /// Batches written.
    pub batches_written: u64,
    /// Bytes of batches written, with headers and padding.
    pub bytes_written: u64,
    /// Syncs of batches.
    pub syncs: u64,
    /// Segments started because the one before was full.
    pub rotations: u64,
}

/// A segmented write-ahead log in a directory.
///
/// Changes are *staged* by [`append`](Log::append), [`truncate_suffix`](Log::truncate_suffix),
/// [`truncate_prefix`](Log::truncate_prefix) and [`reset`](Log::reset), which touch no disk unless a new segment has to
/// be made, and become durable together by [`sync`](Log::sync). Of what was staged, a crash leaves a prefix: each append
/// survives as a whole or not at all, and never a later one without the earlier.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    reader: Reader,
    state: State,
    /// Released last, when nobody works in the directory any more.
    _lock: Box<dyn Lock>,
}

#[derive(Debug)]
enum State {
    Open(Box<Writer>),
    /// Takes no changes, and says why. The standing is the last one known.
    Refusing(Error, Standing),
}

impl Durable {
    /// The last entry of the log at that sync.
    pub fn last(&self) -> Index {
        self.last
    }

    /// The last batch covered. Grows with each sync that had something to write.
    pub fn batch(&self) -> u64 {
        self.batch
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        let bytes = self.segment_bytes;
        let allowed = "a multiple of 4096 from 65536 to 1073741824";
        let good = bytes.is_multiple_of(PAGE_BYTES as u64) && (64 << 10..=1 << 30).contains(&bytes);
        let wrong = |option, value, allowed| Err(Error::Options { option, value, allowed });
        if !good {
            return wrong("segment_bytes", bytes, allowed);
        }
        if self.batch_bytes_max > BATCH_BYTES_MAX {
            return wrong("batch_bytes_max", self.batch_bytes_max as u64, "at most 1073741824");
        }
        Ok(())
    }
}

impl Log {
    /// Opens the log in `dir`, which is created if it is absent, and recovers what a crash has left.
    ///
    /// What was durable before is there again, and is durable; of what was not, a prefix may be there, and is then
    /// durable too. A log with damage is opened for reading only: [`Recovery::is_damaged`].
    ///
    /// # Errors
    ///
    /// The directory is locked, its files are of a newer version or of another log, an option is out of range, the disk
    /// is full, or an operation fails. Damage is no error here: it is in the [`Recovery`].
    pub fn open(dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
        Log::open_with(Arc::new(RealFs), dir, options)
    }

    /// Like [`Log::open`], on another file system.
    ///
    /// # Errors
    ///
    /// As for [`Log::open`].
    pub fn open_with(fs: Arc<dyn Fs>, dir: &Path, options: Options) -> Result<(Log, Recovery), Error> {
        options.check()?;
        open::open(fs, dir, options)
    }

    /// A log that takes changes.
    pub(crate) fn writable(writer: Writer, lock: Box<dyn Lock>) -> Log {
        let reader = Reader::new(writer.catalog.clone());
        Log { id: writer.id, reader, state: State::Open(Box::new(writer)), _lock: lock }
    }

    /// A log that can only be read.
    pub(crate) fn damaged(id: LogId, reader: Reader, damage: Damage, standing: Standing, lock: Box<dyn Lock>) -> Log {
        Log { id, reader, state: State::Refusing(Error::Damaged { damage }, standing), _lock: lock }
    }

    /// Stages consecutive entries, all of one batch: after a crash all of them are there, or none. If the first index is
    /// not above [`last`](Log::last), the entries from there on are overridden, atomically. With `state`, replaces the
    /// state blob, together with the entries.
    ///
    /// # Errors
    ///
    /// The entries are not consecutive or do not follow the log, the limits [`STATE_BYTES_MAX`] or [`BATCH_BYTES_MAX`]
    /// are passed, the disk is full, or the log is damaged or poisoned. Nothing is staged then.
    pub fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), Error> {
        let writer = self.writer()?;
        check_limits(entries, state)?;
        if let Some(first) = entries.first() {
            let Standing { base, last, .. } = writer.standing();
            if first.index() <= base.index {
                return Err(Error::Truncated { index: first.index(), base: base.index });
            }
            if first.index() > last.index.next() {
                return Err(Error::NotConsecutive { expected: last.index.next(), found: first.index() });
            }
        }
        if entries.is_empty() && state.is_none() {
            return Ok(());
        }
        writer.append(entries, state)
    }

    /// Stages the removal of all entries after `last`. Nothing happens if there are none.
    ///
    /// # Errors
    ///
    /// `last` lies below the base; or as for [`Log::append`].
    pub fn truncate_suffix(&mut self, last: Index) -> Result<(), Error> {
        let reader = self.reader.clone();
        let writer = self.writer()?;
        let standing = writer.standing();
        let (base, end) = (standing.base, standing.last);
        if last < base.index {
            return Err(Error::OutOfRange { index: last, base: base.index, last: end.index });
        }
        if last >= end.index {
            return Ok(());
        }
        let last = writer.id_of(last, &reader)?;
        writer.cut(base, last)
    }

    /// Stages the removal of all entries: the log starts again after `base`.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`].
    pub fn reset(&mut self, base: EntryId) -> Result<(), Error> {
        self.writer()?.cut(base, base)
    }

    /// Stages the removal of the entries up to `upto`, which becomes the base. Segments that hold nothing else are
    /// unlinked when that is durable. Nothing happens if the base is there already.
    ///
    /// # Errors
    ///
    /// `upto` lies beyond the end of the log (which asks for [`Log::reset`]); or as for [`Log::append`].
    pub fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), Error> {
        let writer = self.writer()?;
        let standing = writer.standing();
        let (base, last) = (standing.base.index, standing.last.index);
        if upto.index > last {
            return Err(Error::OutOfRange { index: upto.index, base, last });
        }
        if upto.index <= base {
            return Ok(());
        }
        writer.rebase(upto)
    }

    /// Writes what is staged and waits until the disk has it. Then readers see it.
    ///
    /// # Errors
    ///
    /// A write or a sync failed: nothing is known about what was staged, and from now on every change is refused with
    /// [`Error::Poisoned`]. Close the log and open it again.
    pub fn sync(&mut self) -> Result<Durable, Error> {
        let writer = self.writer()?;
        match writer.sync() {
            Ok(()) => Ok(Durable { last: writer.written.last.index, batch: writer.durable_batch }),
            Err(error) => {
                tracing::error!(%error, "log is poisoned");
                let standing = writer.standing().clone();
                self.state = State::Refusing(Error::Poisoned, standing);
                Err(error)
            }
        }
    }

    /// Reads what is durable, from any thread.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The name of this log.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The entry before the first, with what is staged.
    pub fn base(&self) -> EntryId {
        self.standing().base
    }

    /// The last entry, with what is staged; the base if there is none.
    pub fn last(&self) -> EntryId {
        self.standing().last
    }

    /// The newest state blob, with what is staged.
    pub fn state(&self) -> Option<Bytes> {
        self.standing().state.clone()
    }

    /// Counts since the log was opened; zeros if it takes no changes.
    pub fn stats(&self) -> Stats {
        if let State::Open(writer) = &self.state { writer.stats } else { Stats::default() }
    }

    /// Syncs what is staged and closes the log, so that the next opening finds nothing to do. (Dropping it loses what is
    /// staged.)
    ///
    /// # Errors
    ///
    /// As for [`Log::sync`].
    pub fn close(mut self) -> Result<(), Error> {
        self.sync()?;
        self.writer()?.mark()
    }

    fn standing(&self) -> &Standing {
        match &self.state {
            State::Open(writer) => writer.standing(),
            State::Refusing(_, standing) => standing,
        }
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        match &mut self.state {
            State::Open(writer) => Ok(writer),
            State::Refusing(error, _) => Err(error.clone()),
        }
    }
}

fn check_limits(entries: &[Entry], state: Option<&[u8]>) -> Result<(), Error> {
    let too_large = |what, bytes, bytes_max| Err(Error::TooLarge { what, bytes, bytes_max });
    let state_bytes = state.map_or(0, <[u8]>::len);
    if state_bytes > STATE_BYTES_MAX {
        return too_large("a state blob", state_bytes, STATE_BYTES_MAX);
    }
    let bytes = entries.iter().map(|entry| entry.frame().len()).sum();
    if bytes > BATCH_BYTES_MAX {
        return too_large("an append", bytes, BATCH_BYTES_MAX);
    }
    for pair in entries.windows(2) {
        let (expected, found) = (pair[0].index().next(), pair[1].index());
        if found != expected {
            return Err(Error::NotConsecutive { expected, found });
        }
    }
    Ok(())
}

/// The lock file of a directory.
pub(crate) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("LOCK")
}
