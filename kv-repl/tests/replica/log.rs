//! A log whose disk fails when it is told to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use kv_repl::types::{Entry, EntryId, Index};
use kv_repl::{Log, LogError, LogReader};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Disk {
    Sound,
    Panics,
    Full,
}

/// Sets what the disk of a [`FaultyLog`] does.
#[derive(Clone, Default)]
pub(crate) struct DiskSwitch(Arc<AtomicU8>);

impl DiskSwitch {
    pub(crate) fn set(&self, disk: Disk) {
        self.0.store(disk as u8, Ordering::SeqCst);
    }

    fn is(&self, disk: Disk) -> bool {
        self.0.load(Ordering::SeqCst) == disk as u8
    }
}

/// A log on files between the node and which stands a switch.
pub(crate) struct FaultyLog {
    pub(crate) inner: kv_wal::Log,
    pub(crate) disk: DiskSwitch,
}

#[derive(Clone)]
pub(crate) struct Reader(kv_wal::Reader);

impl Log for FaultyLog {
    type Reader = Reader;

    fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), LogError> {
        assert!(!self.disk.is(Disk::Panics), "told to");
        if self.disk.is(Disk::Full) {
            return Err(LogError::disk_full("told to"));
        }
        self.inner.append(entries, state).map_err(LogError::new)
    }

    fn reset(&mut self, base: EntryId) -> Result<(), LogError> {
        self.inner.reset(base).map_err(LogError::new)
    }

    fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), LogError> {
        self.inner.truncate_prefix(upto).map_err(LogError::new)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.inner.sync().map(|_| ()).map_err(LogError::new)
    }

    fn state(&self) -> Option<Bytes> {
        self.inner.state()
    }

    fn reader(&self) -> Reader {
        Reader(self.inner.reader())
    }
}

impl LogReader for Reader {
    fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        self.0.read(range, bytes_max).map_err(LogError::new)
    }

    fn base(&self) -> EntryId {
        self.0.base()
    }

    fn last(&self) -> EntryId {
        self.0.last()
    }

    fn term_runs(&self) -> Vec<EntryId> {
        self.0.term_runs()
    }
}
