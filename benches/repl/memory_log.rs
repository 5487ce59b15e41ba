//! A log in memory, so that what is measured is not the disk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use kv_repl::types::{Entry, EntryId, Index};
use kv_repl::{Log, LogError, LogReader};
use parking_lot::RwLock;

#[derive(Default)]
struct Content {
    base: EntryId,
    entries: Vec<Entry>,
    state: Option<Bytes>,
}

/// The log; a clone is a reader of it.
#[derive(Clone, Default)]
pub(crate) struct MemoryLog(Arc<RwLock<Content>>);

impl Content {
    fn offset(&self, index: Index) -> usize {
        index.since(self.base.index.next()) as usize
    }
}

impl Log for MemoryLog {
    type Reader = MemoryLog;

    fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), LogError> {
        let mut content = self.0.write();
        if let Some(first) = entries.first() {
            let offset = content.offset(first.index());
            content.entries.truncate(offset);
            content.entries.extend_from_slice(entries);
        }
        if let Some(state) = state {
            content.state = Some(Bytes::copy_from_slice(state));
        }
        Ok(())
    }

    fn reset(&mut self, base: EntryId) -> Result<(), LogError> {
        let mut content = self.0.write();
        (content.base, content.entries) = (base, Vec::new());
        Ok(())
    }

    fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), LogError> {
        let mut content = self.0.write();
        let count = content.offset(upto.index.next());
        content.entries.drain(..count);
        content.base = upto;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn waits(&self) -> bool {
        false
    }

    fn state(&self) -> Option<Bytes> {
        self.0.read().state.clone()
    }

    fn reader(&self) -> MemoryLog {
        self.clone()
    }
}

impl LogReader for MemoryLog {
    fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let content = self.0.read();
        let end = content.offset(range.end).min(content.entries.len());
        let found = content.entries.get(content.offset(range.start)..end);
        let found = found.filter(|_| range.start > content.base.index).ok_or_else(|| LogError::new("not there"))?;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.frame().len();
            is_first || bytes <= bytes_max
        };
        Ok(found.iter().take_while(fits).cloned().collect())
    }

    fn base(&self) -> EntryId {
        self.0.read().base
    }

    fn last(&self) -> EntryId {
        let content = self.0.read();
        content.entries.last().map_or(content.base, Entry::id)
    }

    fn term_runs(&self) -> Vec<EntryId> {
        let mut runs: Vec<EntryId> = self.0.read().entries.iter().map(Entry::id).collect();
        runs.dedup_by_key(|id| id.term);
        runs
    }
}
