//! The content of an inner node: things in order of their keys.

use std::ops::Deref;

use super::heads::Heads;

/// Has a place in the order.
pub(super) trait Keyed {
    fn key(&self) -> &[u8];
}

/// At most `N` things in strictly rising order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Sorted<T, const N: usize> {
    heads: Heads<N>,
    all: Vec<T>,
}

impl<T: Keyed, const N: usize> Sorted<T, N> {
    pub(super) fn new(all: Vec<T>) -> Self {
        assert!(all.len() <= N, "fits into a node");
        let mut sorted = Sorted { heads: Heads::new(), all };
        sorted.look_at_keys();
        sorted
    }

    /// Where `key` is, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.find(key, self.all.len(), |at| self.all[at].key())
    }

    /// For change in place; the key must stay.
    pub(super) fn at_mut(&mut self, at: usize) -> &mut T {
        &mut self.all[at]
    }

    /// Adds `one` at `at`, where [`Sorted::find`] said it would be. There must be room.
    pub(super) fn insert(&mut self, at: usize, one: T) {
        let has_prefix = self.heads.insert(at, self.all.len(), one.key());
        self.all.insert(at, one);
        if !has_prefix {
            self.look_at_keys();
        }
    }

    /// Adds `one` at `at`; if there is no room, gives the right half, which is to be a node of its own.
    pub(super) fn insert_or_split(&mut self, at: usize, one: T) -> Option<Self> {
        if self.all.len() < N {
            self.insert(at, one);
            return None;
        }
        let middle = N / 2;
        let mut right = Sorted::new(self.all.split_off(middle));
        self.look_at_keys();
        if at <= middle {
            self.insert(at, one)
        } else {
            right.insert(at - middle, one)
        }
        Some(right)
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.heads.remove(at, self.all.len());
        self.all.remove(at)
    }

    /// Moves all of `right` to the end if there is room; otherwise both get half.
    pub(super) fn share_with(&mut self, right: &mut Self) {
        let total = self.all.len() + right.all.len();
        let keep = if total <= N { total } else { total / 2 };
        if self.all.len() < keep {
            self.all.extend(right.all.drain(..keep - self.all.len()));
        } else {
            right.all.splice(..0, self.all.drain(keep..));
        }
        self.look_at_keys();
        right.look_at_keys();
    }

    fn look_at_keys(&mut self) {
        self.heads.look_at_keys(self.all.len(), |at| self.all[at].key());
    }
}

impl<T, const N: usize> Deref for Sorted<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    impl Keyed for Bytes {
        fn key(&self) -> &[u8] {
            self
        }
    }

    /// Keys that share long prefixes, end early, and differ in zero bytes only.
    fn key() -> impl Strategy<Value = Bytes> {
        let shared = prop_oneof![Just(0usize), Just(1), Just(9), Just(40)];
        (shared, vec(0u8..3, 0..11)).prop_map(|(shared, rest)| Bytes::from([&vec![1; shared][..], &rest].concat()))
    }

    fn check(sorted: &Sorted<Bytes, 16>, probe: &Bytes) {
        assert!(sorted.is_sorted_by(|a, b| a < b));
        assert_eq!(sorted.find(probe), sorted.binary_search(probe));
        for (at, key) in sorted.iter().enumerate() {
            assert_eq!(sorted.find(key), Ok(at));
        }
    }

    proptest! {
        #[test]
        fn finds_what_comparing_keys_finds(keys in btree_set(key(), 0..16), probes in vec(key(), 1..20)) {
            let sorted = Sorted::new(keys.into_iter().collect());
            probes.iter().for_each(|probe| check(&sorted, probe));
        }

        #[test]
        fn keeps_order_through_changes(keys in vec(key(), 1..60)) {
            let mut sorted = Sorted::new(Vec::new());
            for key in &keys {
                match sorted.find(key) {
                    Ok(at) => drop(sorted.remove(at)),
                    Err(at) => {
                        if let Some(mut right) = sorted.insert_or_split(at, key.clone()) {
                            check(&sorted, key);
                            check(&right, key);
                            right.remove(0);
                            sorted.share_with(&mut right);
                            check(&right, key);
                        }
                    }
                }
                check(&sorted, key);
            }
        }
    }
}
