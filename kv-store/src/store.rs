//! The state machine: a state that only [`Store::apply`](crate::Store::apply) changes.

use std::ops::Deref;

use bytes::Bytes;

use crate::digest::Secret;
use crate::expiry::Expiry;
use crate::pair::{Pair, PairRef};
use crate::read_view::ReadView;
use crate::tree::Tree;

/// Most expired pairs that one entry removes, so that no entry takes long because many pairs expire at once.
pub const EXPIRED_REMOVED_MAX: usize = 64;

/// An ordered map from keys to pairs, changed by applying the entries of a log in order. Two stores with one secret
/// that applied the same entries are equal to the last byte; [`ReadView::digest`] tells.
///
/// A store reads as its current view: all methods of [`ReadView`] are methods of it.
///
/// ```
/// use kv_store::{Condition, Deadline, Index, Op, Outcome, Store};
///
/// let mut store = Store::new([7; 32]);
/// let put = Op::Put {
///     key: b"k",
///     value: b"v",
///     condition: Condition::Always,
///     deadline: Deadline::At(1_500),
///     want_previous: false,
/// };
/// assert_eq!(store.apply(Index::new(1), 1_000, &put.encode().unwrap()), Outcome::Done);
///
/// let view = store.view();
/// store.advance_clock(1_500);
/// assert!(store.get(b"k").is_none());
/// assert_eq!(view.get(b"k").unwrap().value, b"v");
/// ```
#[derive(Debug)]
pub struct Store {
    pub(crate) state: ReadView,
    expiry: Expiry,
}

/// A store at one moment, to go back to.
pub(crate) struct Savepoint {
    state: ReadView,
    expiry: Expiry,
}

impl Store {
    /// An empty store. `secret` keys the state hash (see [`ReadView::digest`]): all replicas have the same, and who may
    /// choose keys and values must not know it.
    pub fn new(secret: [u8; 32]) -> Self {
        let secret = Secret::new(secret);
        Store::of_state(ReadView { tree: Tree::new(Some(secret)), clock_ms: 0, memory_limit_bytes: None })
    }

    pub(crate) fn of_state(state: ReadView) -> Self {
        let expiry = Expiry::of(&state.tree);
        Store { state, expiry }
    }

    /// The state as it is now, in O(1).
    pub fn view(&self) -> ReadView {
        self.state.clone()
    }

    /// Takes the stamp of an entry: the clock becomes the greatest stamp seen, and the first [`EXPIRED_REMOVED_MAX`]
    /// pairs that have expired are removed, in order of deadline and key. [`Store::apply`] begins with it; an entry
    /// without a command needs no more. Gives how many were removed.
    ///
    /// The replicated clock alone decides what has expired: the machine's own clock is not asked.
    pub fn advance_clock(&mut self, stamp_ms: u64) -> usize {
        self.state.clock_ms = self.state.clock_ms.max(stamp_ms);
        (0..EXPIRED_REMOVED_MAX).take_while(|_| self.remove_first_expired()).count()
    }

    /// The earliest deadline of all pairs: an entry with a stamp from then on has something to remove. Also tells of
    /// pairs that have expired already and wait for their removal.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.expiry.first().map(|(deadline_ms, _)| deadline_ms)
    }

    fn remove_first_expired(&mut self) -> bool {
        let Some((deadline_ms, key)) = self.expiry.first() else { return false };
        if deadline_ms > self.state.clock_ms {
            return false;
        }
        let key = Bytes::copy_from_slice(key);
        let removed = self.remove(&key);
        assert!(removed.is_some(), "every deadline is that of a pair");
        true
    }

    /// Sets the pair of `key`, and keeps sum and deadlines current.
    pub(crate) fn insert(&mut self, key: &[u8], pair: PairRef<'_>) {
        let before = self.state.tree.insert(key, pair).and_then(|replaced| replaced.deadline_ms);
        self.expiry.change(key, before, pair.deadline_ms);
    }

    /// Removes the pair of `key`, whether it has expired or not, and gives it.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        let removed = self.state.tree.remove(key)?;
        self.expiry.change(key, removed.deadline_ms, None);
        Some(removed)
    }

    /// Removes all pairs; the clock and the limit stay.
    pub(crate) fn clear(&mut self) {
        self.state.tree = Tree::new(self.state.tree.secret().cloned());
        self.expiry = Expiry::new();
    }

    /// The store as it is now, in O(1). What changes while it is held is copied first.
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint { state: self.state.clone(), expiry: self.expiry.clone() }
    }

    /// Undoes all changes since the savepoint.
    pub(crate) fn go_back(&mut self, savepoint: Savepoint) {
        let Savepoint { state, expiry } = savepoint;
        *self = Store { state, expiry };
    }
}

impl Deref for Store {
    type Target = ReadView;

    fn deref(&self) -> &ReadView {
        &self.state
    }
}

#[cfg(test)]
impl Store {
    /// Panics if anything that must hold does not.
    pub(crate) fn invariants(&self) {
        self.state.tree.invariants();
        self.expiry.check(&self.state.tree);
        assert_eq!(self.state.audit(), self.state.tree.total());
    }
}
