//! The content of a node: things in order of their keys, searched without looking at the keys.
//!
//! A search that compares keys waits for memory at each step, since each key lies somewhere else. So a node keeps eight
//! bytes of each key in one array, its *heads*: those after the prefix that all keys of the node share, as a big-endian
//! number, padded with zeros. If one key is before another, its head is not greater; so keys are compared only where
//! heads are equal. (Graefe, "Modern B-tree techniques", 2011, sections 3.2 and 3.3: poor man's normalized keys after
//! prefix truncation.)
//!
//! The prefix need only be shared, not the longest one that is: a removal leaves it as it is. An insertion of a key
//! without it, a split and a merge look at the keys again.

use std::ops::Deref;

use bytes::Bytes;

/// Bytes of a shared prefix that a node leaves out of its heads, at most.
const PREFIX_BYTES_MAX: usize = 31;

/// Has a place in the order.
pub(super) trait Keyed {
    fn key(&self) -> &Bytes;
}

/// At most `N` things in strictly rising order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Sorted<T, const N: usize> {
    prefix: [u8; PREFIX_BYTES_MAX],
    prefix_bytes: u8,
    heads: [u64; N],
    all: Vec<T>,
}

impl<T: Keyed, const N: usize> Sorted<T, N> {
    pub(super) fn new(all: Vec<T>) -> Self {
        assert!(all.len() <= N, "fits into a node");
        let mut sorted = Sorted { prefix: [0; PREFIX_BYTES_MAX], prefix_bytes: 0, heads: [0; N], all };
        sorted.look_at_keys();
        sorted
    }

    /// Where `key` is, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let head = match key.strip_prefix(prefix) {
            Some(rest) => head(rest),
            None if key < prefix => return Err(0),
            None => return Err(self.all.len()),
        };
        // Counting all of them takes fewer cycles than the memory it waits for; a binary search would wait thrice.
        let heads = &self.heads[..self.all.len()];
        let first = heads.iter().map(|other| usize::from(*other < head)).sum();
        let equal = heads[first..].iter().take_while(|other| **other == head).count();
        let found = self.all[first..first + equal].binary_search_by(|one| one.key()[..].cmp(key));
        found.map(|at| first + at).map_err(|at| first + at)
    }

    /// For change in place; the key must stay.
    pub(super) fn at_mut(&mut self, at: usize) -> &mut T {
        &mut self.all[at]
    }

    /// Adds `one` at `at`, where [`Sorted::find`] said it would be. There must be room.
    pub(super) fn insert(&mut self, at: usize, one: T) {
        let count = self.all.len();
        let head = one.key().strip_prefix(self.prefix()).map(head);
        self.all.insert(at, one);
        match head {
            Some(head) => {
                self.heads.copy_within(at..count, at + 1);
                self.heads[at] = head;
            }
            None => self.look_at_keys(),
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
        self.heads.copy_within(at + 1..self.all.len(), at);
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

    fn prefix(&self) -> &[u8] {
        &self.prefix[..usize::from(self.prefix_bytes)]
    }

    /// Sets prefix and heads anew. What the first and the last key share, all between them share.
    fn look_at_keys(&mut self) {
        let (Some(first), Some(last)) = (self.all.first(), self.all.last()) else {
            self.prefix_bytes = 0;
            return;
        };
        let (first, last) = (first.key(), last.key());
        let shared = first.iter().zip(last).take(PREFIX_BYTES_MAX).take_while(|(a, b)| a == b).count();
        self.prefix[..shared].copy_from_slice(&first[..shared]);
        self.prefix_bytes = shared as u8;
        for (slot, one) in self.heads.iter_mut().zip(&self.all) {
            *slot = head(&one.key()[shared..]);
        }
    }
}

impl<T, const N: usize> Deref for Sorted<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all
    }
}

/// The first eight bytes as a number that orders as they do.
fn head(rest: &[u8]) -> u64 {
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    impl Keyed for Bytes {
        fn key(&self) -> &Bytes {
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
