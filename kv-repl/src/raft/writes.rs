//! What is on its way to the disk, and what has arrived.
//!
//! Changes gather until the driver asks for outputs; then they leave together as one [`Write`] with the next sequence
//! number. A [`Durable`] says that all writes up to its number are on the disk. From that follows up to which index the
//! log *as it is now* is durable:
//!
//! ```text
//!   in flight: (7, last 120) (8, last 140) (9, last 140: hard state only)     gathered: last 150
//!   then entries replace the log from 131 on: every `last` is cut to 130, and the new entries gather
//! ```
//!
//! The cut is what makes it right: once entry 131 has been replaced, a sync of the write that held the old one says
//! nothing about the new one.

use std::collections::VecDeque;
use std::time::Duration;

use super::io::{Durable, Write};
use crate::types::{Entries, EntryId, HardState, Index};

pub(super) struct Writes {
    hard_state: Option<HardState>,
    reset: Option<EntryId>,
    /// Index of the last entry, gathered ones included.
    last: Index,
    /// Number that the next write will have, and those that have left.
    next: u64,
    in_flight: VecDeque<InFlight>,
    /// Bytes of the entries in flight.
    in_flight_bytes: usize,
    /// All writes up to this number are durable, and with them the log up to `durable`.
    durable_sequence: u64,
    durable: Index,
    /// Numbers of the writes that hold the newest hard state and the newest reset.
    hard_state_sequence: u64,
    reset_sequence: u64,
}

struct InFlight {
    sequence: u64,
    /// What it makes durable of the log as it is now.
    last: Index,
    bytes: usize,
    since: Duration,
}

impl Writes {
    /// Everything up to `last` is durable.
    pub(super) fn new(last: Index) -> Writes {
        Writes {
            hard_state: None,
            reset: None,
            last,
            next: 1,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            durable_sequence: 0,
            durable: last,
            hard_state_sequence: 0,
            reset_sequence: 0,
        }
    }

    /// The log takes the entries from `first` to `last`, in place of whatever is in it from `first` on.
    pub(super) fn append(&mut self, first: Index, last: Index) {
        self.cut(first.prev());
        self.last = last;
    }

    /// Term or vote have changed.
    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = Some(hard_state);
        self.hard_state_sequence = self.next;
    }

    /// The log starts again after `base`, which a durable checkpoint ends with. What was durable up to there still is,
    /// in the checkpoint; earlier writes make nothing more of it durable.
    pub(super) fn reset(&mut self, base: EntryId) {
        self.reset = Some(base);
        self.reset_sequence = self.next;
        self.durable = self.durable.min(base.index);
        self.cut(self.durable);
        self.last = base.index;
    }

    fn cut(&mut self, upto: Index) {
        for write in &mut self.in_flight {
            write.last = write.last.min(upto);
        }
        self.durable = self.durable.min(upto);
    }

    /// What has gathered, if anything: with the entries that the log has taken and nobody has written. It leaves now.
    pub(super) fn take(&mut self, now: Duration, entries: Entries) -> Option<Write> {
        if entries.is_empty() && self.hard_state.is_none() && self.reset.is_none() {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        let bytes = entries.bytes();
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight { sequence, last: self.last, bytes, since: now });
        Some(Write { entries, hard_state: self.hard_state.take(), reset: self.reset.take(), sequence })
    }

    /// A sync has covered `done` and all before it.
    ///
    /// # Panics
    ///
    /// If `done` comes from another node's core.
    pub(super) fn complete(&mut self, done: &Durable) {
        assert!(done.sequence < self.next, "only what was written can be durable");
        while let Some(write) = self.in_flight.pop_front_if(|write| write.sequence <= done.sequence) {
            self.durable_sequence = write.sequence;
            self.durable = self.durable.max(write.last);
            self.in_flight_bytes -= write.bytes;
        }
    }

    /// Bytes of entries that have left and are not durable.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// When the oldest write left that is not durable yet.
    pub(super) fn oldest_since(&self) -> Option<Duration> {
        self.in_flight.front().map(|write| write.since)
    }

    /// The log as it is now is durable up to here.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Whether term and vote as they are now are durable.
    pub(super) fn is_hard_state_durable(&self) -> bool {
        self.hard_state_sequence <= self.durable_sequence
    }

    /// Whether the last reset is durable.
    pub(super) fn is_reset_durable(&self) -> bool {
        self.reset_sequence <= self.durable_sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::log::Log;
    use crate::raft::tests::{entries, id};
    use crate::types::{Entry, Term};
    use proptest::prelude::*;

    /// A log and its writes, as the core holds them.
    struct Both {
        log: Log,
        writes: Writes,
    }

    impl Both {
        fn new() -> Both {
            Both { log: Log::new(EntryId::ZERO, Vec::new(), Index::ZERO), writes: Writes::new(Index::ZERO) }
        }

        fn append(&mut self, entries: Vec<Entry>) {
            self.writes.append(entries[0].index(), entries[entries.len() - 1].index());
            self.log.append(entries.into());
            self.log.check();
        }

        fn take(&mut self) -> Option<Write> {
            self.writes.take(Duration::ZERO, self.log.take_unwritten())
        }

        fn waiting_bytes(&self) -> usize {
            self.writes.in_flight_bytes() + self.log.unwritten_bytes()
        }
    }

    #[test]
    fn changes_between_two_outputs_are_one_write() {
        let mut both = Both::new();
        both.append(entries(1, 1..=2));
        both.append(entries(1, 3..=3));
        both.writes.set_hard_state(HardState { term: Term::new(1), voted_for: None });
        let write = both.take().unwrap();
        assert_eq!(write.entries.len(), 3);
        assert!(write.hard_state.is_some());
        assert!(both.take().is_none());
        assert!(!both.writes.is_hard_state_durable());
        both.writes.complete(&write.into_durable());
        assert!(both.writes.is_hard_state_durable());
        assert_eq!(both.writes.durable(), Index::new(3));
    }

    #[test]
    fn the_sync_of_a_replaced_entry_says_nothing_about_the_new_one() {
        let mut both = Both::new();
        both.append(entries(1, 1..=5));
        let old = both.take().unwrap();
        both.append(entries(2, 3..=4));
        let new = both.take().unwrap();
        both.writes.complete(&old.into_durable());
        assert_eq!(both.writes.durable(), Index::new(2));
        both.writes.complete(&new.into_durable());
        assert_eq!(both.writes.durable(), Index::new(4));
    }

    #[test]
    fn a_reset_drops_what_has_not_been_written() {
        let mut both = Both::new();
        both.append(entries(1, 1..=5));
        both.log.reset(id(2, 9));
        both.writes.reset(id(2, 9));
        both.append(entries(2, 10..=10));
        assert_eq!(both.waiting_bytes(), Entries::from(entries(2, 10..=10)).bytes());
        let write = both.take().unwrap();
        assert_eq!((write.reset, write.entries.len()), (Some(id(2, 9)), 1));
        assert!(!both.writes.is_reset_durable());
        both.writes.complete(&write.into_durable());
        assert_eq!(both.writes.durable(), Index::new(10));
    }

    proptest! {
        /// The twin keeps a live and a durable log, and compares: durable is the common prefix or less.
        #[test]
        fn never_claims_more_than_the_disk_holds(steps in proptest::collection::vec((0u8..4, 1u64..8, 1u64..4), 1..60)) {
            let mut both = Both::new();
            let (mut live, mut disk): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
            let mut queue: VecDeque<Write> = VecDeque::new();
            for (term, (choice, at, count)) in (1..).zip(steps) {
                match choice {
                    0 | 1 => {
                        let first = at.min(live.len() as u64 + 1);
                        live.truncate(first as usize - 1);
                        let new = entries(term, first..=first + count - 1);
                        live.extend(new.iter().cloned());
                        both.append(new);
                    }
                    2 => queue.extend(both.take()),
                    _ => {
                        if let Some(write) = queue.pop_front() {
                            write_out(&mut disk, &write);
                            both.writes.complete(&write.into_durable());
                        }
                    }
                }
                let common = live.iter().zip(&disk).take_while(|(a, b)| a == b).count() as u64;
                prop_assert!(both.writes.durable().get() <= common);
            }
            queue.extend(both.take());
            for write in queue {
                write_out(&mut disk, &write);
                both.writes.complete(&write.into_durable());
            }
            prop_assert_eq!(&disk, &live);
            prop_assert_eq!(both.writes.durable().get(), live.len() as u64);
            prop_assert_eq!((both.waiting_bytes(), both.writes.oldest_since()), (0, None));
        }
    }

    fn write_out(disk: &mut Vec<Entry>, write: &Write) {
        let Some(first) = write.entries.first() else { return };
        let kept = first.index().get() as usize - 1;
        assert!(kept <= disk.len(), "writes leave no gap");
        disk.truncate(kept);
        disk.extend(write.entries.iter().cloned());
    }
}
