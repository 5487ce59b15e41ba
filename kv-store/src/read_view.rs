//! The state at one moment. A view is a root of the copy-on-write tree and never changes.

use bytes::Bytes;

use crate::digest::{RangeDigest, Secret};
use crate::pair::Pair;
use crate::tree::{Range, Tree};

/// The state of a [`Store`](crate::Store) at one moment. Taking and cloning one is O(1), it never blocks the store, and
/// any thread may read it for as long as it likes; the store copies what the view still holds before it changes it.
///
/// Ranges are half-open and in byte order: `from` is in, `to` is not, and `None` has no end. The key after `key` is
/// `key` with a zero byte at its end.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub(crate) tree: Tree,
    pub(crate) secret: Secret,
}

impl ReadView {
    /// The pair of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Pair> {
        self.tree.get(key)
    }

    /// How many pairs there are.
    pub fn len(&self) -> u64 {
        self.tree.total().count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all keys and values together.
    pub fn bytes(&self) -> u64 {
        self.tree.total().bytes
    }

    /// All pairs, in order of their keys.
    pub fn iter(&self) -> Range<'_> {
        self.range(b"", None)
    }

    /// The pairs of a range, in order of their keys; from both ends, and knows how many are left.
    ///
    /// ```
    /// use kv_store::{Index, Op, Store};
    ///
    /// let mut store = Store::new([7; 32]);
    /// let pairs = vec![(&b"a"[..], &b"1"[..]), (b"b", b"2"), (b"c", b"3")];
    /// store.apply(Index::new(1), &Op::PutMany { pairs }.encode().unwrap());
    ///
    /// let keys: Vec<_> = store.range(b"aa", Some(b"c")).map(|(key, _)| key.clone()).collect();
    /// assert_eq!(keys, ["b"]);
    /// assert_eq!(store.range(b"a", None).next_back().unwrap().0, "c");
    /// ```
    pub fn range(&self, from: &[u8], to: Option<&[u8]>) -> Range<'_> {
        self.tree.range(from, to)
    }

    /// The pair with `rank` pairs before it, in O(log n).
    pub fn nth(&self, rank: u64) -> Option<(&Bytes, &Pair)> {
        self.tree.nth(rank)
    }

    /// How many pairs have a key before `key`, in O(log n).
    pub fn rank(&self, key: &[u8]) -> u64 {
        self.tree.before(key).count
    }

    /// Count, bytes and sum of a range, in O(log n). The sum depends on the secret of the store.
    pub fn range_digest(&self, from: &[u8], to: Option<&[u8]>) -> RangeDigest {
        self.tree.digest(from, to)
    }

    /// The state hash: equal in two stores with one secret if and only if their pairs, with versions and creation
    /// indexes, are equal. O(1).
    pub fn digest(&self) -> [u8; 32] {
        self.tree.total().hash()
    }

    /// Computes count, bytes and sum again from every stored byte, sharing nothing with the sums that the tree keeps:
    /// what it gives differs from `range_digest(b"", None)` if memory was damaged or the tree has a bug. O(bytes).
    pub fn audit(&self) -> RangeDigest {
        self.iter()
            .map(|(key, pair)| RangeDigest::of_one(key.len(), pair.value.len(), self.secret.contribution(key, pair)))
            .sum()
    }
}

impl<'a> IntoIterator for &'a ReadView {
    type Item = (&'a Bytes, &'a Pair);
    type IntoIter = Range<'a>;

    fn into_iter(self) -> Range<'a> {
        self.iter()
    }
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<ReadView>();
};
