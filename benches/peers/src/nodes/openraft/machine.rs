//! A state machine that counts commands.

use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StoredMembership,
};

use super::Types;

/// Counts commands. A clone makes a snapshot of what has been counted when it was cloned.
#[derive(Clone, Default)]
pub(super) struct Counter {
    count: u64,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    snapshot: Option<(SnapshotMeta<u64, BasicNode>, u64)>,
}

impl Counter {
    fn take_snapshot(&self) -> (SnapshotMeta<u64, BasicNode>, u64) {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map_or(0, |id| id.index).to_string(),
        };
        (meta, self.count)
    }
}

impl RaftSnapshotBuilder<Types> for Counter {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let (meta, count) = self.take_snapshot();
        Ok(Snapshot { meta, snapshot: Box::new(count) })
    }
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotBuilder = Counter;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<u64>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(_) => self.count += 1,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            outcomes.push(self.count);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Counter {
        self.snapshot = Some(self.take_snapshot());
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<u64>, StorageError<u64>> {
        Ok(Box::new(0))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<u64>,
    ) -> Result<(), StorageError<u64>> {
        (self.count, self.applied, self.membership) = (*snapshot, meta.last_log_id, meta.last_membership.clone());
        self.snapshot = Some((meta.clone(), *snapshot));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let snapshot = self.snapshot.clone();
        Ok(snapshot.map(|(meta, count)| Snapshot { meta, snapshot: Box::new(count) }))
    }
}
