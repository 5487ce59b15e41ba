//! When a leader puts a mark into the log, at which all replicas compare their states: after an interval, if anything has
//! been written meanwhile.

use std::time::Duration;

use crate::types::Index;

pub(super) struct Marks {
    interval: Duration,
    /// Last entry of the log when the last mark was made, or given up.
    last: Index,
    next_at: Duration,
}

/// What a mark itself adds to the log: the mark, and what the majority agreed on.
const OWN_ENTRIES: u64 = 2;

impl Marks {
    pub(super) fn new(interval: Duration) -> Marks {
        Marks { interval, last: Index::ZERO, next_at: interval }
    }

    /// Whether one is due, where the log ends with `last`.
    pub(super) fn is_due(&self, now: Duration, last: Index) -> bool {
        now >= self.next_at && self.is_wanted(last)
    }

    /// When one will be due, if there is something to compare.
    pub(super) fn deadline(&self, last: Index) -> Option<Duration> {
        self.is_wanted(last).then_some(self.next_at)
    }

    /// One has been made, or could not be.
    pub(super) fn made(&mut self, now: Duration, last: Index) {
        self.last = last;
        self.next_at = now + self.interval;
    }

    fn is_wanted(&self, last: Index) -> bool {
        last > self.last.plus(OWN_ENTRIES - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_idle_cluster_is_not_marked() {
        let mut marks = Marks::new(SECOND);
        assert!(!marks.is_due(SECOND / 2, Index::new(9)), "not yet");
        assert!(marks.is_due(SECOND, Index::new(9)));
        marks.made(SECOND, Index::new(10));
        assert!(!marks.is_due(SECOND * 9, Index::new(11)), "only what the mark itself has added");
        assert_eq!(marks.deadline(Index::new(11)), None);
        assert!(marks.is_due(SECOND * 9, Index::new(12)));
        assert_eq!(marks.deadline(Index::new(12)), Some(SECOND * 2));
    }
}
