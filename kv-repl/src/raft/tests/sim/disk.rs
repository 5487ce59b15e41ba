//! Disks with a live and a durable image, and what can happen to them.

use std::collections::BTreeSet;

use super::checks::configurations;
use super::{Node, Sim};
use crate::raft::{Boot, Lost, Raft, Write};
use crate::types::{Configuration, Entry, EntryId, HardState, Incarnation, Index, Member};

/// A disk: what is on it for certain. What was written and not synced waits in `Node::queue`.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(super) base: EntryId,
    pub(super) entries: Vec<Entry>,
    pub(super) hard_state: HardState,
    pub(super) checkpoint: EntryId,
    /// Entries that cannot be read any more. They are kept above, for comparison with what takes their place.
    pub(super) lost: BTreeSet<Index>,
}

impl Disk {
    pub(super) fn last(&self) -> Index {
        self.entries.last().map_or(self.base.index, Entry::index)
    }

    pub(super) fn write(&mut self, write: &Write) {
        if let Some(base) = write.reset {
            (self.base, self.entries) = (base, Vec::new());
            self.lost.clear();
        }
        if let Some(first) = write.entries.first() {
            assert!(first.index() <= self.last().next(), "writes leave no gap");
            self.entries.truncate(first.index().since(self.base.index.next()) as usize);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(hard_state) = write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "terms never go back");
            let same_term = hard_state.term == self.hard_state.term;
            let voted = self.hard_state.voted_for;
            assert!(!same_term || voted.is_none() || voted == hard_state.voted_for, "one vote a term");
            self.hard_state = hard_state;
        }
    }

    pub(super) fn truncate_prefix(&mut self, upto: EntryId) {
        let count = upto.index.since(self.base.index) as usize;
        self.entries.drain(..count);
        self.base = upto;
        self.lost.retain(|index| *index > upto.index);
    }

    pub(super) fn holds(&self, entry: &Entry) -> bool {
        if entry.index() <= self.checkpoint.index {
            return true;
        }
        let skip = entry.index().get().checked_sub(self.base.index.get() + 1);
        skip.and_then(|skip| self.entries.get(skip as usize)) == Some(entry)
    }

    pub(super) fn lost_after(&self, applied: Index) -> Vec<Lost> {
        let mut ranges: Vec<Lost> = Vec::new();
        for index in self.lost.iter().filter(|index| **index > applied) {
            let next = self.entries[index.since(self.base.index) as usize].id();
            match ranges.last_mut().filter(|range| range.next.index == *index) {
                Some(range) => range.next = next,
                None => ranges.push(Lost { first: *index, next }),
            }
        }
        ranges
    }

    pub(super) fn boot(&self, configuration: Configuration) -> Boot {
        let mut terms: Vec<EntryId> = Vec::new();
        let is_there = |index: &Index| !self.lost.contains(index);
        for entry in self.entries.iter().filter(|entry| is_there(&entry.index())) {
            if terms.last().is_none_or(|run| run.term != entry.term()) {
                terms.push(entry.id());
            }
        }
        let applied = self.checkpoint.index;
        let stamp_ms = self.entries.last().map_or(0, Entry::stamp_ms);
        Boot {
            hard_state: self.hard_state,
            configuration,
            configurations: configurations(&self.entries).filter(|(at, _)| *at > applied && is_there(at)).collect(),
            base: self.base,
            terms,
            last: self.last(),
            applied,
            stamp_ms,
            lost: self.lost_after(applied),
            is_diverged: false,
        }
    }
}

impl Sim {
    /// Entries on a disk that cannot be read any more, with which the node finds itself when it starts.
    pub(crate) fn lose(&mut self, node: usize, entries: impl IntoIterator<Item = u64>) {
        if self.nodes[node].raft.is_some() {
            self.crash(node);
        }
        let disk = &mut self.nodes[node].disk;
        let (base, last) = (disk.base.index, disk.last());
        // The last one, like the hard state, is known, or the disk counts as a new one.
        disk.lost.extend(entries.into_iter().map(Index::new).filter(|index| *index > base && *index < last));
    }

    /// Entries on a disk that cannot be read any more, while the node runs, which has applied them; says how many.
    pub(crate) fn spoil(&mut self, node: usize, entries: impl IntoIterator<Item = u64>) -> usize {
        let Node { raft, disk, applied, .. } = &mut self.nodes[node];
        let (base, last, applied) = (disk.base.index, disk.last(), Index::new(applied.len() as u64));
        let entries = entries.into_iter().map(Index::new);
        let spoiled = entries.filter(|index| raft.is_some() && *index > base && *index < last && *index <= applied);
        let before = disk.lost.len();
        disk.lost.extend(spoiled);
        disk.lost.len() - before
    }

    /// The same, of one that it need not have applied.
    pub(crate) fn spoil_unapplied(&mut self, node: usize, entry: u64) -> usize {
        usize::from(self.nodes[node].disk.lost.insert(Index::new(entry)))
    }

    /// The log of a node on its disk, from the entry after the first to the last.
    pub(crate) fn log_of(&self, node: usize) -> (Index, Index) {
        let disk = &self.nodes[node].disk;
        (disk.base.index, disk.last())
    }

    /// Whether the disk of a node has lost entries.
    pub(crate) fn has_lost(&self, node: usize) -> bool {
        !self.nodes[node].disk.lost.is_empty()
    }

    /// Another disk, with nothing on it.
    pub(crate) fn wipe(&mut self, node: usize) {
        if self.nodes[node].raft.is_some() {
            self.crash(node);
        }
        let victim = &mut self.nodes[node];
        let lost = victim.me;
        victim.me = Member::new(victim.me.id, Incarnation::new(victim.me.incarnation.get() + 100));
        victim.applied.clear();
        self.lost.push((lost, std::mem::take(&mut victim.disk)));
    }

    /// Writes a checkpoint of what a node has applied and leaves the log as it is.
    pub(crate) fn checkpoint_only(&mut self, node: usize) {
        let applied = self.nodes[node].applied.last().map(Entry::id);
        let checkpoint = &mut self.nodes[node].disk.checkpoint;
        *checkpoint = applied.map_or(*checkpoint, |last| checkpoint.max_by_index(last));
    }

    /// Writes a checkpoint of what a node has applied and truncates its log, unless a follower needs it.
    pub(crate) fn checkpoint(&mut self, node: usize) {
        let floor = self.nodes[node].raft.as_ref().map(Raft::truncation_floor);
        self.checkpoint_up_to(node, floor.unwrap_or_default());
    }

    /// As [`Sim::checkpoint`], with `floor` in place of what the core asks for.
    pub(crate) fn checkpoint_up_to(&mut self, node: usize, floor: Index) {
        let victim = &mut self.nodes[node];
        let (Some(raft), Some(last)) = (&mut victim.raft, victim.applied.last().map(Entry::id)) else { return };
        if last.index <= victim.disk.checkpoint.index {
            return;
        }
        victim.disk.checkpoint = last;
        // The log can only be truncated as far as it is durable here.
        let on_disk = last.index > victim.disk.base.index && last.index <= victim.disk.last();
        let needed = last.index > floor;
        if last.index <= raft.durable() && on_disk && !needed && raft.handle_truncated(last) {
            victim.disk.truncate_prefix(last);
        }
    }
}

pub(super) fn holds_id(disk: &Disk) -> bool {
    let skip = disk.checkpoint.index.since(disk.base.index.next()) as usize;
    disk.entries.get(skip).map(Entry::id) == Some(disk.checkpoint)
}

pub(super) trait MaxByIndex {
    fn max_by_index(self, other: Self) -> Self;
}

impl MaxByIndex for EntryId {
    fn max_by_index(self, other: EntryId) -> EntryId {
        if other.index > self.index { other } else { self }
    }
}
