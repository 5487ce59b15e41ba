//! What must hold after every step.

use super::{Node, Sim};
use crate::raft::{Agreed, Role};
use crate::types::{Configuration, Entry, Index, Member, kind};

impl Sim {
    /// Who belongs to the cluster according to the committed entries up to here.
    pub(crate) fn configuration_at(&self, index: Index) -> Configuration {
        let upto = &self.committed[..(index.get() as usize).min(self.committed.len())];
        configurations(upto).next_back().map_or_else(|| self.founders.clone(), |(_, last)| last)
    }

    /// All that have been committed.
    pub(crate) fn configurations(&self) -> impl Iterator<Item = Configuration> {
        configurations(&self.committed).map(|(_, configuration)| configuration)
    }

    /// The configurations that an entry which `node` applies may have been committed by: the one before it, or a later
    /// one, in force at whoever leads, or led until just now.
    pub(super) fn may_have_committed(&self, node: usize, index: Index) -> Vec<Configuration> {
        let running = self.nodes.iter().enumerate().filter_map(|(at, node)| node.raft.as_ref().map(|raft| (at, raft)));
        let leading = running.filter(|(at, raft)| raft.role() == Role::Leader || *at == node);
        leading.map(|(_, raft)| raft.configuration().clone()).chain([self.configuration_at(index)]).collect()
    }

    /// The configuration in force is the one that follows from snapshot and log, whatever has been cut off; and the core
    /// knows the log that is on the disk.
    pub(super) fn check_log(&self, node: usize) {
        let Some(raft) = self.nodes[node].raft.as_ref().filter(|raft| !raft.is_damaged()) else { return };
        let expected = self.in_log_of(node);
        assert_eq!(raft.configuration(), &expected, "node {node}: thesis 4.1, the newest one in the log is in force");
        let Node { disk, queue, .. } = &self.nodes[node];
        // One entry at each step, another each time.
        let entries = if queue.is_empty() { &disk.entries[..] } else { &[] };
        if let Some(entry) = entries.get(self.now.as_millis() as usize / 5 % entries.len().max(1)) {
            assert!(
                raft.log.contains(entry.id()),
                "node {node}: {} is on the disk, and the core says otherwise",
                entry.id()
            );
        }
    }

    /// Whether a message with a configuration is on its way.
    pub(crate) fn is_change_flying(&self) -> bool {
        self.flying.iter().any(|flying| configurations(flying.message.entries()).next().is_some())
    }

    /// The newest configuration in a node's log, be it durable or not.
    pub(crate) fn in_log_of(&self, node: usize) -> Configuration {
        let Node { disk, queue, .. } = &self.nodes[node];
        let mut below = Index::new(u64::MAX);
        let mut newest = None;
        for write in queue.iter().rev() {
            newest = newest.or_else(|| newest_below(&write.entries, below));
            below = write.entries.first().map_or(below, |first| below.min(first.index()));
            if let Some(base) = write.reset {
                newest = newest.or_else(|| Some(self.configuration_at(base.index)));
            }
        }
        let newest = newest.or_else(|| newest_below(&disk.entries, below));
        newest.unwrap_or_else(|| self.configuration_at(disk.base.index))
    }

    /// State machine safety (5.4.3): every node applies the same entries in the same order; and what is applied anywhere
    /// is durable on a majority.
    pub(super) fn apply(&mut self, node: usize, entry: Entry) {
        let at = self.nodes[node].applied.len();
        assert_eq!(entry.index().get() as usize, at + 1, "entries are applied in order, each once");
        match self.committed.get(at) {
            Some(known) => assert_eq!(known, &entry, "state machine safety: node {node} applies another entry"),
            None => {
                self.committed.push(entry.clone());
                let disks = self.nodes.iter().map(|node| (node.me, &node.disk));
                let disks = disks.chain(self.lost.iter().map(|(member, disk)| (*member, disk)));
                let holders: Vec<Member> =
                    disks.filter(|(_, disk)| disk.holds(&entry)).map(|(member, _)| member).collect();
                let by = self.may_have_committed(node, entry.index());
                let is_held = by.iter().any(|by| by.is_majority(|voter| holders.contains(&voter)));
                assert!(
                    is_held,
                    "{entry:?} is committed at node {node}, and durable on {holders:?} only\n{}",
                    self.describe()
                );
            }
        }
        self.note(node, &format!("applies {}", entry.id()));
        self.compare(node, &entry);
        self.nodes[node].applied.push(entry);
    }

    /// A state is right or wrong, and says so at marks. Nobody may be condemned for being right.
    fn compare(&mut self, node: usize, entry: &Entry) {
        let (now, is_wrong) = (self.now, self.nodes[node].is_wrong);
        let hash = |index: Index, is_wrong: bool| [index.get() as u8 ^ if is_wrong { 0xff } else { 0 }; 32];
        if entry.kind() == kind::MARK {
            self.raft(node).handle_marked(now, entry.index(), hash(entry.index(), is_wrong));
        } else if entry.kind() == kind::AGREED {
            let agreed = Agreed::decode(&entry.payload()).expect("as it was written");
            assert_eq!(agreed.hash, hash(agreed.index, false), "the majority is right");
            self.agreed += 1;
            self.nodes[node].disagreed += usize::from(is_wrong);
        }
    }
}

pub(super) fn configurations(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (Index, Configuration)> {
    let found = entries.iter().filter(|entry| entry.kind() == kind::CONFIGURATION);
    found.map(|entry| (entry.index(), Configuration::decode(&entry.payload()).expect("a configuration")))
}

fn newest_below(entries: &[Entry], below: Index) -> Option<Configuration> {
    let upto = entries.partition_point(|entry| entry.index() < below);
    configurations(&entries[..upto]).next_back().map(|(_, configuration)| configuration)
}
