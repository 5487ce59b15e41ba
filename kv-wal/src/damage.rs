//! Which entries are lost: ranges of indexes, in order, with gaps between them.

use crate::error::Damage;
use crate::record::Index;

/// Lost ranges, in order, none of which touch. Only the last may have no end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DamageList {
    ranges: Vec<Damage>,
}

impl Damage {
    /// Index after the last one lost; the greatest index if the end is not known.
    fn end(&self) -> Index {
        self.last.map_or(Index::new(u64::MAX), Index::next)
    }

    fn new(first: Index, end: Index) -> Damage {
        Damage { first, last: (end.get() < u64::MAX).then(|| end.prev()) }
    }
}

impl DamageList {
    pub(crate) fn ranges(&self) -> &[Damage] {
        &self.ranges
    }

    pub(crate) fn first(&self) -> Option<Damage> {
        self.ranges.first().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The range that `index` is in.
    pub(crate) fn at(&self, index: Index) -> Option<Damage> {
        self.next_from(index).filter(|range| range.first <= index)
    }

    /// The first range that ends after `index`.
    pub(crate) fn next_from(&self, index: Index) -> Option<Damage> {
        self.ranges.get(self.ranges.partition_point(|range| range.end() <= index)).copied()
    }

    /// Whether anything at or after `index` is lost.
    pub(crate) fn reaches(&self, index: Index) -> bool {
        self.ranges.last().is_some_and(|range| range.end() > index)
    }

    /// The entries from `first` up to `end` (exclusive) are lost.
    pub(crate) fn add(&mut self, first: Index, end: Index) {
        if first >= end {
            return;
        }
        let from = self.ranges.partition_point(|range| range.end() < first);
        let to = self.ranges.partition_point(|range| range.first <= end);
        let touched = &self.ranges[from..to.max(from)];
        let first = touched.first().map_or(first, |range| range.first.min(first));
        let end = touched.last().map_or(end, |range| range.end().max(end));
        self.ranges.splice(from..to.max(from), [Damage::new(first, end)]);
    }

    /// What is after `first` is lost, up to an end that nobody knows.
    pub(crate) fn add_open(&mut self, first: Index) {
        self.add(first, Index::new(u64::MAX));
    }

    pub(crate) fn add_all(&mut self, other: &DamageList) {
        other.ranges.iter().for_each(|range| self.add(range.first, range.end()));
    }

    /// The entries from `first` up to `end` (exclusive) are there again, or of no account.
    pub(crate) fn remove(&mut self, first: Index, end: Index) {
        let from = self.ranges.partition_point(|range| range.end() <= first);
        let to = self.ranges.partition_point(|range| range.first < end);
        if from >= to || first >= end {
            return;
        }
        let (start, stop) = (self.ranges[from].first, self.ranges[to - 1].end());
        let left = (start < first).then(|| Damage::new(start, first));
        let right = (end < stop).then(|| Damage::new(end, stop));
        self.ranges.splice(from..to, left.into_iter().chain(right));
    }

    /// Entries from `first` on were overridden: their loss is of no account.
    pub(crate) fn cut(&mut self, first: Index) {
        self.remove(first, Index::new(u64::MAX));
    }

    /// Nor is the loss of entries up to the base.
    pub(crate) fn clip(&mut self, base: Index) {
        self.remove(Index::ZERO, base.next());
    }

    /// At most `count` ranges that cover the same: the last ones become one, with what is between them.
    pub(crate) fn coarse(&self, count: usize) -> DamageList {
        let mut list = self.clone();
        if let (Some(&at), Some(&last)) = (self.ranges.get(count - 1), self.ranges.last()) {
            list.add(at.first, last.end());
        }
        list
    }
}

impl FromIterator<Damage> for DamageList {
    fn from_iter<T: IntoIterator<Item = Damage>>(ranges: T) -> Self {
        let mut list = DamageList::default();
        ranges.into_iter().for_each(|range| list.add(range.first, range.end()));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change, and what it does to a set of lost indexes below 64.
    fn change(list: &mut DamageList, lost: &mut u64, kind: u8, first: u64, count: u64) {
        let (from, to) = (Index::new(first), Index::new(first + count));
        let mask = |from: u64, to: u64| (from..to.min(64)).fold(0, |mask, bit| mask | 1 << bit);
        match kind {
            0 | 1 => (list.add(from, to), *lost |= mask(first, first + count)).0,
            2 => (list.remove(from, to), *lost &= !mask(first, first + count)).0,
            3 => (list.cut(from), *lost &= !mask(first, 64)).0,
            _ => (list.clip(from), *lost &= !mask(0, first + 1)).0,
        }
    }

    proptest! {
        #[test]
        fn a_list_is_a_set(changes in proptest::collection::vec((0..5u8, 0..50u64, 0..14u64), 0..20)) {
            let (mut list, mut lost) = (DamageList::default(), 0);
            for (kind, first, count) in changes {
                change(&mut list, &mut lost, kind, first, count);
                for index in 0..64 {
                    prop_assert_eq!(list.at(Index::new(index)).is_some(), lost >> index & 1 == 1);
                    prop_assert_eq!(list.reaches(Index::new(index)), lost >> index != 0);
                }
                prop_assert!(list.ranges().windows(2).all(|pair| pair[0].end() < pair[1].first));
                let coarse = list.coarse(2);
                prop_assert!(coarse.ranges().len() <= 2);
                prop_assert!((0..64).all(|index| lost >> index & 1 == 0 || coarse.at(Index::new(index)).is_some()));
            }
        }
    }

    #[test]
    fn a_range_without_end_shrinks_as_it_is_filled() {
        let mut list = DamageList::default();
        list.add_open(Index::new(10));
        list.remove(Index::new(10), Index::new(13));
        assert_eq!(list.ranges(), [Damage { first: Index::new(13), last: None }]);
        assert!(list.reaches(Index::new(1 << 40)));
        list.cut(Index::new(13));
        assert!(list.is_empty());
    }
}
