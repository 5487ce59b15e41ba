//! The log itself, without threads of its own (but for the one that prepares segments): every step is a call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, Error, LogId};
use crate::format::{BATCH_BYTES_MAX, INDEX_MAX, PAGE_BYTES, STATE_BYTES_MAX, Standing};
use crate::fs::{Fs, Lock, RealFs};
use crate::open;
use crate::reader::Reader;
use crate::record::{Entry, EntryId, Index};
use crate::recovery::Recovery;
use crate::scrub::Scrubber;
use crate::staged::Brings;
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
    pub(crate) last: Index,
    pub(crate) batch: u64,
}

/// Counts since the log was opened, and what it takes now.
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
    /// Segments there are now, the one that is written included.
    pub segments: u64,
    /// Bytes of their maps: pages of files, which the system takes back when it needs them.
    pub mapped_bytes: u64,
    /// Bytes of the heap that the index of the entries takes now.
    pub index_bytes: u64,
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
    writer: Box<Writer>,
    /// A write or a sync has failed: the writer is kept for what it knows, and writes no more.
    poisoned: bool,
    /// Released last, when nobody works in the directory any more.
    _lock: Box<dyn Lock>,
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
    /// durable too. Damage cuts nothing: what is sound can be read, state can be appended, and entries again when what
    /// is lost has been repaired or given up ([`Recovery::is_damaged`]).
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
        Log { id: writer.id, reader, writer: Box::new(writer), poisoned: false, _lock: lock }
    }

    /// Stages consecutive entries, all of one batch: after a crash all of them are there, or none. If the first index is
    /// not above [`last`](Log::last), the entries from there on are overridden, atomically. With `state`, replaces the
    /// state blob, together with the entries.
    ///
    /// # Errors
    ///
    /// The entries are not consecutive or do not follow the log, the limits [`STATE_BYTES_MAX`] or [`BATCH_BYTES_MAX`]
    /// are passed, the disk is full, entries are lost, or the log is poisoned. Nothing is staged then.
    pub fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), Error> {
        let writer = self.writer()?;
        check_limits(entries, state)?;
        if let Some(first) = entries.first() {
            if let Some(damage) = writer.damage().first() {
                return Err(Error::Damaged { damage });
            }
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

    /// Stages the removal of all entries after `last`, lost ones too, which are thereby given up. Nothing happens if there
    /// are none.
    ///
    /// # Errors
    ///
    /// `last` lies below the base or is lost itself; or as for [`Log::append`].
    pub fn truncate_suffix(&mut self, last: Index) -> Result<(), Error> {
        let reader = self.reader.clone();
        let writer = self.writer()?;
        let standing = writer.standing();
        let (base, end) = (standing.base, standing.last);
        if last < base.index {
            return Err(Error::OutOfRange { index: last, base: base.index, last: end.index });
        }
        let damage = writer.damage();
        if last >= end.index && !damage.reaches(last.next()) {
            return Ok(());
        }
        if let Some(damage) = damage.at(last) {
            return Err(Error::Damaged { damage });
        }
        let last = if last >= end.index { end } else { writer.id_of(last, &reader)? };
        writer.cut(base, last)
    }

    /// Stages the removal of all entries, lost ones too: the log starts again after `base`.
    ///
    /// # Errors
    ///
    /// As for [`Log::append`].
    pub fn reset(&mut self, base: EntryId) -> Result<(), Error> {
        let writer = self.writer()?;
        if base.index > INDEX_MAX {
            return Err(Error::OutOfRange { index: base.index, base: Index::ZERO, last: INDEX_MAX });
        }
        writer.cut(base, base)
    }

    /// Puts true entries, which the caller has from elsewhere, in the place of lost ones, and returns when they are
    /// durable. They are consecutive, and each of them is lost, suspect ([`Reader::suspects`]), or unreadable by now. What
    /// is lost at the end of the log,
    /// how much nobody knows, is repaired from its first index on, and what remains of it is given up by
    /// [`Log::truncate_suffix`].
    ///
    /// What is staged is written first.
    ///
    /// # Errors
    ///
    /// An entry is there already; or as for [`Log::append`] and [`Log::sync`].
    pub fn repair(&mut self, entries: &[Entry]) -> Result<Durable, Error> {
        check_limits(entries, None)?;
        self.sync()?;
        let reader = self.reader.clone();
        let writer = self.writer()?;
        let Some(first) = entries.first().map(Entry::index) else { return Ok(writer.durable()) };
        let (end, damage) = (writer.standing().last.index.next(), writer.damage());
        if first > end {
            return Err(Error::NotConsecutive { expected: end, found: first });
        }
        for entry in entries {
            let index = entry.index();
            if damage.at(index).is_none() && !reader.is_lost(index) {
                return Err(Error::NotLost { index });
            }
        }
        self.or_poison(|writer| writer.fill(entries))?;
        Ok(self.writer.durable())
    }

    /// Stages the removal of the entries up to `upto`, which becomes the base. Segments that hold nothing else are
    /// unlinked when that is durable. Nothing happens if the base is there already.
    ///
    /// # Errors
    ///
    /// `upto` lies beyond the end of the log (which asks for [`Log::reset`]), or the entry there has another term; or as
    /// for [`Log::append`].
    pub fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), Error> {
        let reader = self.reader.clone();
        let writer = self.writer()?;
        let standing = writer.standing();
        let (base, last) = (standing.base.index, standing.last.index);
        if upto.index > last {
            return Err(Error::OutOfRange { index: upto.index, base, last });
        }
        if upto.index <= base {
            return Ok(());
        }
        // The term of a lost entry is for the caller to know.
        if let Ok(EntryId { index, term: found }) = writer.id_of(upto.index, &reader)
            && found != upto.term
        {
            return Err(Error::WrongTerm { index, found, given: upto.term });
        }
        writer.rebase(upto)
    }

    /// Writes what is staged, and does not wait for the disk: makes a later [`sync`](Log::sync) shorter, which also frees
    /// the memory that the batches take. Nothing becomes durable by it, nor visible to readers.
    ///
    /// # Errors
    ///
    /// As for [`Log::sync`].
    pub fn write(&mut self) -> Result<(), Error> {
        self.or_poison(Writer::write)
    }

    /// Writes what is staged and waits until the disk has it. Then readers see it.
    ///
    /// # Errors
    ///
    /// A write or a sync failed: nothing is known about what was staged, and from now on every change is refused with
    /// [`Error::Poisoned`]. Close the log and open it again.
    pub fn sync(&mut self) -> Result<Durable, Error> {
        self.or_poison(Writer::sync)?;
        Ok(self.writer.durable())
    }

    /// Verifies what is durable, on the disk itself, on any thread.
    pub fn scrubber(&self) -> Scrubber {
        Scrubber::new(self.fs(), self.reader())
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

    /// Which entries are lost, in order, with what is staged. Until they are repaired ([`Log::repair`]) or given up
    /// ([`Log::truncate_suffix`], [`Log::truncate_prefix`], [`Log::reset`]) the log takes no entries.
    pub fn damage(&self) -> Vec<Damage> {
        self.writer.damage().ranges().to_vec()
    }

    /// Whether a newer state blob than [`Log::state`] may have been lost. A new one ends the doubt.
    pub fn is_state_in_doubt(&self) -> bool {
        self.standing().state_in_doubt
    }

    /// Counts since the log was opened, and what it takes now.
    pub fn stats(&self) -> Stats {
        self.reader.complete(self.counts())
    }

    /// Syncs what is staged and closes the log, so that the next opening finds nothing to do. (Dropping it loses what is
    /// staged.)
    ///
    /// # Errors
    ///
    /// As for [`Log::sync`].
    pub fn close(mut self) -> Result<(), Error> {
        self.sync()?;
        match self.or_poison(|writer| writer.mark(Brings::Entries(0))) {
            // Where there is room for entries no more: the next opening writes the last batch once more.
            Ok(()) | Err(Error::DiskFull { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether an append of so many bytes would be staged without waiting for a segment.
    pub(crate) fn is_ready(&mut self, bytes: usize) -> bool {
        self.writer().is_ok_and(|writer| writer.is_ready(bytes))
    }

    /// The counts alone, which cost nothing.
    pub(crate) fn counts(&self) -> Stats {
        self.writer.stats
    }

    pub(crate) fn fs(&self) -> Arc<dyn Fs> {
        self.writer.fs.clone()
    }

    fn standing(&self) -> &Standing {
        self.writer.standing()
    }

    fn writer(&mut self) -> Result<&mut Writer, Error> {
        if self.poisoned { Err(Error::Poisoned) } else { Ok(&mut self.writer) }
    }

    /// Does what writes. If that fails, nothing is known about what it covered, and nothing is tried again.
    fn or_poison(&mut self, write: impl FnOnce(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
        match write(self.writer()?) {
            Ok(()) => Ok(()),
            // Nothing was written.
            Err(error @ Error::DiskFull { .. }) => Err(error),
            Err(error) => {
                tracing::error!(%error, "log is poisoned");
                self.poisoned = true;
                Err(error)
            }
        }
    }
}

fn check_limits(entries: &[Entry], state: Option<&[u8]>) -> Result<(), Error> {
    let too_large = |what, bytes, bytes_max| Err(Error::TooLarge { what, bytes, bytes_max });
    let state_bytes = state.map_or(0, <[u8]>::len);
    if state_bytes > STATE_BYTES_MAX {
        return too_large("a state blob", state_bytes, STATE_BYTES_MAX);
    }
    if let Some(last) = entries.last().filter(|last| last.index() > INDEX_MAX) {
        return Err(Error::OutOfRange { index: last.index(), base: Index::ZERO, last: INDEX_MAX });
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
