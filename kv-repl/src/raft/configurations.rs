//! The configurations in the log, each in force from the moment its entry was appended (thesis, section 4.1).
//!
//! Nothing else remembers a configuration: the one in force is always that of the newest such entry, or the checkpoint's
//! if there is none, whatever is appended, replaced or cut off. Implementations that kept it apart have counted the votes
//! of members that no log names any more (openraft #1808, canonical/raft #250).

use crate::planted::{self, Mistake};
use crate::types::{Configuration, Entry, Index, kind};

pub(super) struct Configurations {
    /// In force before the first one of `in_log`.
    before: Configuration,
    /// Of the entries in the log, and their positions.
    in_log: Vec<(Index, Configuration)>,
}

impl Configurations {
    /// Those of `in_log` come after what `before` was taken from, in the order of the log.
    pub(super) fn new(before: Configuration, in_log: Vec<(Index, Configuration)>) -> Configurations {
        assert!(in_log.is_sorted_by(|a, b| a.0 < b.0), "in the order of the log");
        Configurations { before, in_log }
    }

    /// The one in force.
    pub(super) fn effective(&self) -> &Configuration {
        self.in_log.last().map_or(&self.before, |(_, configuration)| configuration)
    }

    /// Where the one in force stands in the log; zero if it has been there for longer than the log.
    pub(super) fn index(&self) -> Index {
        self.in_log.last().map_or(Index::ZERO, |(index, _)| *index)
    }

    /// The last one that is committed, as far as this node knows, and all after it: the cluster is in one of them.
    pub(super) fn possible(&self, committed: Index) -> impl Iterator<Item = &Configuration> {
        let after = self.in_log.partition_point(|(index, _)| *index <= committed);
        let last_committed = after.checked_sub(1).map_or(&self.before, |at| &self.in_log[at].1);
        std::iter::once(last_committed).chain(self.in_log[after..].iter().map(|(_, configuration)| configuration))
    }

    /// The log takes these entries, in place of whatever is there from the first of them on. True if another
    /// configuration may be in force now.
    ///
    /// # Panics
    ///
    /// If the payload of one is not that of a configuration: see [`is_readable`].
    pub(super) fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(first) = entries.first().map(Entry::index) else { return false };
        let count = self.in_log.len();
        if !planted::is(Mistake::ConfigurationNotReverted) {
            self.in_log.truncate(self.in_log.partition_point(|(index, _)| *index < first));
        }
        let is_cut = self.in_log.len() != count;
        let count = self.in_log.len();
        self.insert(entries);
        is_cut || self.in_log.len() != count
    }

    /// These entries are in the log, wherever: at its end, or known again after they were lost.
    pub(super) fn insert(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.kind() == kind::CONFIGURATION) {
            let configuration = Configuration::decode(&entry.payload()).expect("looked at before it was taken");
            let at = self.in_log.partition_point(|(index, _)| *index < entry.index());
            self.in_log.insert(at, (entry.index(), configuration));
        }
    }

    /// The log forgets everything up to and including `base`.
    pub(super) fn truncate_prefix(&mut self, base: Index) {
        let after = self.in_log.partition_point(|(index, _)| *index <= base);
        if let Some((_, last)) = self.in_log.drain(..after).next_back() {
            self.before = last;
        }
    }

    /// The log forgets everything up to and including `base`, where `configuration` is in force. What came before may not
    /// have been known.
    pub(super) fn rebase(&mut self, base: Index, configuration: Configuration) {
        self.truncate_prefix(base);
        self.before = configuration;
    }

    /// The log starts again after a checkpoint with this configuration.
    pub(super) fn reset(&mut self, configuration: Configuration) {
        *self = Configurations::new(configuration, Vec::new());
    }

    /// Those in the log, for checks.
    pub(super) fn in_log(&self) -> &[(Index, Configuration)] {
        &self.in_log
    }
}

/// Whether an entry, if it is to hold a configuration, holds one.
pub(super) fn is_readable(entry: &Entry) -> bool {
    entry.kind() != kind::CONFIGURATION || Configuration::decode(&entry.payload()).is_some()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::raft::tests::{entry, id, index};
    use crate::types::{Incarnation, Member, NodeId};

    fn configuration(number: u64) -> Configuration {
        Configuration::new(vec![Member::new(NodeId::new(number + 1), Incarnation::new(1))])
    }

    fn entry_with(at: u64, number: u64) -> Entry {
        let payload = configuration(number).encode();
        Entry::encode(&mut BytesMut::new(), id(1, at), 0, kind::CONFIGURATION, &payload)
    }

    proptest! {
        /// The twin keeps the whole log, and looks for the newest one in it each time.
        #[test]
        fn the_one_in_force_is_that_of_snapshot_and_log(
            steps in proptest::collection::vec((0u8..4, 0u64..6, 0u64..4, 1u64..9), 1..40),
        ) {
            let mut configurations = Configurations::new(configuration(0), Vec::new());
            let (mut before, mut base, mut log) = (configuration(0), 0, Vec::<Option<u64>>::new());
            for (choice, at, count, number) in steps {
                match choice {
                    0 | 1 => {
                        // From somewhere in the log, or its end; every second entry is a configuration.
                        let keep = (at as usize).min(log.len());
                        log.truncate(keep);
                        let new: Vec<Option<u64>> =
                            (0..count + 1).map(|nth| (nth % 2 == u64::from(choice)).then_some(number + nth)).collect();
                        let first = base + keep as u64 + 1;
                        let entries = (first..).zip(&new).map(|(at, number)| match number {
                            Some(number) => entry_with(at, *number),
                            None => entry(1, at),
                        });
                        let entries: Vec<Entry> = entries.collect();
                        log.extend(new);
                        configurations.append(&entries);
                    }
                    2 => {
                        let cut = (at as usize).min(log.len());
                        base += cut as u64;
                        if let Some(number) = log.drain(..cut).flatten().next_back() {
                            before = configuration(number);
                        }
                        configurations.truncate_prefix(index(base));
                    }
                    _ => {
                        base += log.len() as u64 + at;
                        log.clear();
                        before = configuration(number);
                        configurations.reset(before.clone());
                    }
                }
                let newest = log.iter().flatten().next_back().map(|number| configuration(*number));
                prop_assert_eq!(configurations.effective(), newest.as_ref().unwrap_or(&before));
            }
        }
    }

    #[test]
    fn an_entry_that_replaces_a_configuration_takes_it_out_of_force() {
        let mut configurations = Configurations::new(configuration(0), Vec::new());
        assert!(configurations.append(&[entry(1, 4), entry_with(5, 7)]));
        assert_eq!((configurations.effective(), configurations.index()), (&configuration(7), index(5)));
        assert!(!configurations.append(&[entry(1, 6)]), "nothing that concerns it");
        assert!(configurations.append(&[entry(2, 5)]));
        assert_eq!((configurations.effective(), configurations.index()), (&configuration(0), index(0)));
    }

    #[test]
    fn bytes_that_are_no_configuration_are_seen() {
        let nonsense = Entry::encode(&mut BytesMut::new(), id(1, 1), 0, kind::CONFIGURATION, b"payload");
        assert!(!is_readable(&nonsense));
        assert!(is_readable(&entry(1, 1)) && is_readable(&entry_with(1, 1)));
    }
}
