//! A log in memory.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote};
use parking_lot::RwLock;

use super::Types;

#[derive(Default)]
struct Content {
    /// The last entry that was forgotten; the entries follow it without a gap.
    purged: Option<LogId<u64>>,
    entries: VecDeque<Entry<Types>>,
    vote: Option<Vote<u64>>,
}

impl Content {
    /// Of the first entry.
    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }
}

/// The log; a clone reads it.
#[derive(Clone, Default)]
pub(super) struct MemoryLog(Arc<RwLock<Content>>);

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        let content = self.0.read();
        let first = content.first();
        let offset = |index: u64| (index.saturating_sub(first) as usize).min(content.entries.len());
        let start = match range.start_bound() {
            Bound::Included(index) => offset(*index),
            Bound::Excluded(index) => offset(index + 1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => offset(index + 1),
            Bound::Excluded(index) => offset(*index),
            Bound::Unbounded => content.entries.len(),
        };
        Ok(content.entries.range(start..end).cloned().collect())
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let content = self.0.read();
        let last_log_id = content.entries.back().map(|entry| entry.log_id).or(content.purged);
        Ok(LogState { last_purged_log_id: content.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> MemoryLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        self.0.write().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(self.0.read().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.write().entries.extend(entries);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), StorageError<u64>> {
        let mut content = self.0.write();
        let kept = from.index - content.first();
        content.entries.truncate(kept as usize);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), StorageError<u64>> {
        let mut content = self.0.write();
        let count = (upto.index + 1 - content.first()) as usize;
        let count = count.min(content.entries.len());
        content.entries.drain(..count);
        content.purged = Some(upto);
        Ok(())
    }
}
