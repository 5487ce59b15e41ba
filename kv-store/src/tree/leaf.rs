//! A leaf: the records of its pairs, one after the other in one piece of memory.
//!
//! ```text
//!   ends     [ 31 | 60 | 60 | 95 | ...
//!   records  [ record 0 | record 1 | record 3 | ...
//!   large    [ record 2, in memory of its own
//! ```
//!
//! So a leaf is copied by copying bytes, a pair costs little beside its key and value, and reading one touches memory that lies
//! together. A record that is too large to be moved about whenever a neighbour changes lies elsewhere, and is shared by the
//! copies of the leaf.

use std::sync::Arc;

use super::heads::Heads;
use super::{LEAF_PAIRS_MAX, record};
use crate::digest::{RangeDigest, Secret};
use crate::pair::PairRef;

/// Longest record in a leaf; a larger one is in memory of its own.
const RECORD_BYTES_MAX: usize = 384;

/// Where the records of a full leaf end can be said in two bytes.
const _: () = assert!(RECORD_BYTES_MAX * LEAF_PAIRS_MAX <= u16::MAX as usize);
/// Which records are large is said in the bits of a word.
const _: () = assert!(LEAF_PAIRS_MAX < u64::BITS as usize);

/// At most [`LEAF_PAIRS_MAX`] pairs in strictly rising order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    heads: Heads<LEAF_PAIRS_MAX>,
    count: usize,
    /// Where each record ends; one that is large takes no room.
    ends: [u16; LEAF_PAIRS_MAX],
    records: Vec<u8>,
    /// Bit `n` is set if record `n` is large.
    is_large: u64,
    large: Vec<Arc<[u8]>>,
}

impl Leaf {
    pub(super) fn new() -> Leaf {
        Leaf {
            heads: Heads::new(),
            count: 0,
            ends: [0; LEAF_PAIRS_MAX],
            records: Vec::new(),
            is_large: 0,
            large: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where `key` is, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.find(key, self.count, |at| self.key(at))
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        record::key(self.record(at))
    }

    /// The pair at `at`, and its key.
    pub(super) fn pair(&self, at: usize) -> (&[u8], PairRef<'_>) {
        if self.is_large(at) {
            let shared = &self.large[self.large_before(at)];
            let (key, pair) = record::read(shared);
            return (key, pair.sharing(shared));
        }
        record::read(self.record(at))
    }

    /// What the pair at `at` adds to the digest; without a secret pairs add nothing to the sum.
    pub(super) fn digest_at(&self, at: usize, secret: Option<&Secret>) -> RangeDigest {
        let (key, pair) = self.pair(at);
        super::digest_of(key, &pair, secret)
    }

    /// What the pairs at these places add.
    pub(super) fn digest(&self, places: std::ops::Range<usize>, secret: Option<&Secret>) -> RangeDigest {
        places.map(|at| self.digest_at(at, secret)).sum()
    }

    /// Puts another pair in the place of the one at `at`, which has the same key.
    pub(super) fn replace(&mut self, at: usize, key: &[u8], pair: &PairRef<'_>) {
        self.put(at, key, pair);
    }

    /// Adds a pair at `at`, where [`Leaf::find`] said it would be. There must be room.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], pair: &PairRef<'_>) {
        assert!(self.count < LEAF_PAIRS_MAX, "there is room");
        let has_prefix = self.heads.insert(at, self.count, key);
        self.ends.copy_within(at..self.count, at + 1);
        self.ends[at] = self.start(at) as u16;
        let below = (1 << at) - 1;
        self.is_large = self.is_large & below | (self.is_large & !below) << 1;
        self.count += 1;
        self.put(at, key, pair);
        if !has_prefix {
            self.look_at_keys();
        }
    }

    /// Adds a pair at `at`; if there is no room, gives the right half, which is to be a leaf of its own.
    pub(super) fn insert_or_split(&mut self, at: usize, key: &[u8], pair: &PairRef<'_>) -> Option<Leaf> {
        if self.count < LEAF_PAIRS_MAX {
            self.insert(at, key, pair);
            return None;
        }
        let middle = LEAF_PAIRS_MAX / 2;
        let mut right = self.split_off(middle);
        if at <= middle {
            self.insert(at, key, pair);
        } else {
            right.insert(at - middle, key, pair);
        }
        Some(right)
    }

    pub(super) fn remove(&mut self, at: usize) {
        if self.is_large(at) {
            self.large.remove(self.large_before(at));
        } else {
            self.resize(at, 0);
        }
        self.heads.remove(at, self.count);
        self.ends.copy_within(at + 1..self.count, at);
        let below = (1 << at) - 1;
        self.is_large = self.is_large & below | (self.is_large >> 1) & !below;
        self.count -= 1;
    }

    /// Moves all of `right` to the end if there is room; otherwise both get half.
    pub(super) fn share_with(&mut self, right: &mut Leaf) {
        let total = self.count + right.count;
        let keep = if total <= LEAF_PAIRS_MAX { total } else { total / 2 };
        if self.count < keep {
            let rest = right.split_off(keep - self.count);
            self.append(right);
            *right = rest;
        } else {
            let mut moved = self.split_off(keep);
            moved.append(right);
            *right = moved;
        }
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink(&mut self) {
        self.records.shrink_to_fit();
        self.large.shrink_to_fit();
    }

    fn is_large(&self, at: usize) -> bool {
        self.is_large & 1 << at != 0
    }

    fn large_before(&self, at: usize) -> usize {
        (self.is_large & ((1 << at) - 1)).count_ones() as usize
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { usize::from(self.ends[at - 1]) }
    }

    fn record(&self, at: usize) -> &[u8] {
        if self.is_large(at) {
            return &self.large[self.large_before(at)];
        }
        &self.records[self.start(at)..usize::from(self.ends[at])]
    }

    /// Writes the record of a pair at `at`, in place of what is there.
    fn put(&mut self, at: usize, key: &[u8], pair: &PairRef<'_>) {
        let bytes = record::bytes(key, pair);
        if bytes <= RECORD_BYTES_MAX {
            if self.is_large(at) {
                self.large.remove(self.large_before(at));
                self.is_large &= !(1 << at);
            }
            self.resize(at, bytes);
            let start = self.start(at);
            record::write(key, pair, &mut self.records[start..start + bytes]);
            return;
        }
        self.resize(at, 0);
        let mut record = vec![0; bytes];
        record::write(key, pair, &mut record);
        let (place, record) = (self.large_before(at), Arc::from(record));
        if self.is_large(at) {
            self.large[place] = record;
        } else {
            self.large.insert(place, record);
            self.is_large |= 1 << at;
        }
    }

    /// Gives the record at `at` so many bytes, with anything in them.
    fn resize(&mut self, at: usize, bytes: usize) {
        let (start, end, all) = (self.start(at), usize::from(self.ends[at]), self.records.len());
        let (before, after) = (end - start, start + bytes);
        if bytes > before {
            let more = bytes - before;
            if self.records.capacity() < all + more {
                // Little more than is needed: memory is what a store runs out of.
                self.records.reserve_exact((all + more).next_multiple_of(128) - all);
            }
            self.records.resize(all + more, 0);
            self.records.copy_within(end..all, after);
        } else if bytes < before {
            self.records.copy_within(end..all, after);
            self.records.truncate(all - (before - bytes));
        } else {
            return;
        }
        for end in &mut self.ends[at..self.count] {
            *end = (usize::from(*end) + bytes - before) as u16;
        }
    }

    /// Keeps the first `keep` pairs and gives the others.
    fn split_off(&mut self, keep: usize) -> Leaf {
        let (start, large) = (self.start(keep), self.large_before(keep));
        let mut right = Leaf::new();
        right.count = self.count - keep;
        for (to, from) in right.ends.iter_mut().zip(&self.ends[keep..self.count]) {
            *to = from - start as u16;
        }
        right.records.reserve_exact((self.records.len() - start).next_multiple_of(128));
        right.records.extend_from_slice(&self.records[start..]);
        right.large = self.large.split_off(large);
        right.is_large = self.is_large >> keep;
        self.count = keep;
        self.records.truncate(start);
        self.records.shrink_to(start.next_multiple_of(128));
        self.is_large &= (1 << keep) - 1;
        self.look_at_keys();
        right.look_at_keys();
        right
    }

    /// Takes the pairs of `right`, which come after its own, and for which there is room.
    fn append(&mut self, right: &Leaf) {
        let start = self.records.len();
        for at in 0..right.count {
            self.ends[self.count + at] = start as u16 + right.ends[at];
        }
        self.records.extend_from_slice(&right.records);
        self.large.extend_from_slice(&right.large);
        self.is_large |= right.is_large << self.count;
        self.count += right.count;
        self.look_at_keys();
    }

    fn look_at_keys(&mut self) {
        let mut heads = std::mem::replace(&mut self.heads, Heads::new());
        heads.look_at_keys(self.count, |at| self.key(at));
        self.heads = heads;
    }
}
