//! The state at one moment. A view is a root of the copy-on-write tree and never changes.

use std::iter::FusedIterator;

use crate::digest::{RangeDigest, Secret, state_hash};
use crate::pair::PairRef;
use crate::tree::{Range, Tree};

/// What a stored pair costs beside the bytes of its key and value, as [`ReadView::memory_bytes`] counts. A convention
/// that all replicas share, near to what a pair takes, not a measurement.
pub const PAIR_OVERHEAD_BYTES: u64 = 64;

/// The state of a [`Store`](crate::Store) at one moment. Taking and cloning one is O(1), it never blocks the store, and
/// any thread may read it for as long as it likes; the store copies what the view still holds before it changes it.
///
/// Ranges are half-open and in byte order: `from` is in, `to` is not, and `None` has no end. The key after `key` is
/// `key` with a zero byte at its end.
///
/// A pair whose deadline is not after [`clock_ms`](ReadView::clock_ms) has *expired*: no read by key and no scan gives
/// it. Its removal follows, and until then it is *stored*: [`len`](ReadView::len), [`bytes`](ReadView::bytes),
/// [`nth`](ReadView::nth), [`rank`](ReadView::rank), [`stored`](ReadView::stored) and all digests are over what is
/// stored, expired or not. Only so are they O(log n), and the same at one index whatever is asked.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub(crate) tree: Tree,
    pub(crate) clock_ms: u64,
    pub(crate) memory_limit_bytes: Option<u64>,
}

impl ReadView {
    /// The pair of `key`, unless it has expired.
    pub fn get(&self, key: &[u8]) -> Option<PairRef<'_>> {
        self.tree.get(key).filter(|pair| !pair.is_expired(self.clock_ms))
    }

    /// How many pairs are stored, expired ones included.
    pub fn len(&self) -> u64 {
        self.tree.total().count
    }

    /// Whether no pairs are stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all stored keys and values together, expired ones included.
    pub fn bytes(&self) -> u64 {
        self.tree.total().bytes
    }

    /// The replicated clock: the greatest stamp of all entries applied, in milliseconds.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// What the stored pairs count against the memory limit: their bytes, and [`PAIR_OVERHEAD_BYTES`] for each. The same
    /// on every replica.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes() + self.len() * PAIR_OVERHEAD_BYTES
    }

    /// Above what [`memory_bytes`](ReadView::memory_bytes) no write may grow; `None` is no limit.
    pub fn memory_limit_bytes(&self) -> Option<u64> {
        self.memory_limit_bytes
    }

    /// All pairs that have not expired, in order of their keys.
    pub fn iter(&self) -> LiveRange<'_> {
        self.range(b"", None)
    }

    /// The pairs of a range that have not expired, in order of their keys; from both ends.
    ///
    /// ```
    /// use kv_store::{Index, Op, PutManyCondition, Store};
    ///
    /// let mut store = Store::new([7; 32]);
    /// let pairs = vec![(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"c", b"3")];
    /// let op = Op::PutMany { pairs, condition: PutManyCondition::Always };
    /// store.apply(Index::new(1), 0, &op.encode().unwrap());
    ///
    /// let keys: Vec<_> = store.range(b"aa", Some(b"c")).map(|(key, _)| key).collect();
    /// assert_eq!(keys, [b"b"]);
    /// assert_eq!(store.range(b"a", None).next_back().unwrap().0, b"c");
    /// ```
    pub fn range(&self, from: &[u8], to: Option<&[u8]>) -> LiveRange<'_> {
        LiveRange { stored: self.stored_range(from, to), clock_ms: self.clock_ms }
    }

    /// All pairs that are stored, expired ones included, in order of their keys: what the digests are over.
    pub fn stored(&self) -> Range<'_> {
        self.stored_range(b"", None)
    }

    /// The stored pairs of a range, expired ones included; from both ends, and knows how many are left.
    pub fn stored_range(&self, from: &[u8], to: Option<&[u8]>) -> Range<'_> {
        self.tree.range(from, to)
    }

    /// The stored pair with `rank` pairs before it, in O(log n).
    pub fn nth(&self, rank: u64) -> Option<(&[u8], PairRef<'_>)> {
        self.tree.nth(rank)
    }

    /// How many stored pairs have a key before `key`, in O(log n).
    pub fn rank(&self, key: &[u8]) -> u64 {
        self.tree.rank(key)
    }

    /// Count, bytes and sum of what is stored in a range, in O(log n). The sum depends on the secret of the store.
    pub fn range_digest(&self, from: &[u8], to: Option<&[u8]>) -> RangeDigest {
        self.tree.digest(from, to)
    }

    /// The state hash: equal in two stores with one secret if and only if their clocks, their memory limits and their
    /// stored pairs, with versions, creation indexes and deadlines, are equal. O(1).
    pub fn digest(&self) -> [u8; 32] {
        self.digest_with(&self.tree.total())
    }

    /// The state hash of a state with these pairs and with the clock and the limit of this one; with the result of
    /// [`audit`](ReadView::audit), the state hash computed again.
    pub fn digest_with(&self, pairs: &RangeDigest) -> [u8; 32] {
        state_hash(pairs, self.clock_ms, self.memory_limit_bytes)
    }

    /// Computes count, bytes and sum again from every stored byte, sharing nothing with the sums that the tree keeps:
    /// what it gives differs from `range_digest(b"", None)` if memory was damaged or the tree has a bug. O(bytes).
    pub fn audit(&self) -> RangeDigest {
        let of_one = |(key, pair): (&[u8], PairRef<'_>)| {
            RangeDigest::of_one(key.len(), pair.value.len(), self.secret().contribution(key, &pair))
        };
        self.stored().map(of_one).sum()
    }

    pub(crate) fn secret(&self) -> &Secret {
        self.tree.secret().expect("a store has a secret")
    }
}

/// The pairs of a range that have not expired, in order of their keys.
#[derive(Clone, Debug)]
pub struct LiveRange<'a> {
    stored: Range<'a>,
    clock_ms: u64,
}

impl<'a> Iterator for LiveRange<'a> {
    type Item = (&'a [u8], PairRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.stored.find(|(_, pair)| !pair.is_expired(self.clock_ms))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.stored.size_hint().1)
    }
}

impl DoubleEndedIterator for LiveRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.stored.rfind(|(_, pair)| !pair.is_expired(self.clock_ms))
    }
}

impl FusedIterator for LiveRange<'_> {}

impl<'a> IntoIterator for &'a ReadView {
    type Item = (&'a [u8], PairRef<'a>);
    type IntoIter = LiveRange<'a>;

    fn into_iter(self) -> LiveRange<'a> {
        self.iter()
    }
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<ReadView>();
};
