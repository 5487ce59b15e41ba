//! The state machine: a state that only [`Store::apply`](crate::Store::apply) changes.

use std::ops::Deref;

use crate::digest::Secret;
use crate::read_view::ReadView;
use crate::tree::Tree;

/// An ordered map from keys to pairs, changed by applying the entries of a log in order. Two stores with one secret
/// that applied the same entries are equal to the last byte; [`ReadView::digest`] tells.
///
/// A store reads as its current view: all methods of [`ReadView`] are methods of it.
///
/// ```
/// use kv_store::{Condition, Index, Op, Outcome, Store};
///
/// let mut store = Store::new([7; 32]);
/// let put = Op::Put { key: b"k", value: b"v", condition: Condition::Always, want_previous: false };
/// assert_eq!(store.apply(Index::new(1), &put.encode().unwrap()), Outcome::Done);
///
/// let view = store.view();
/// store.apply(Index::new(2), &Op::Clear.encode().unwrap());
/// assert!(store.get(b"k").is_none());
/// assert_eq!(view.get(b"k").unwrap().value, "v");
/// ```
#[derive(Debug)]
pub struct Store {
    pub(crate) state: ReadView,
}

impl Store {
    /// An empty store. `secret` keys the state hash (see [`ReadView::digest`]): all replicas have the same, and who may
    /// choose keys and values must not know it.
    pub fn new(secret: [u8; 32]) -> Self {
        Store::with_tree(Secret::new(secret), Tree::default())
    }

    pub(crate) fn with_tree(secret: Secret, tree: Tree) -> Self {
        Store { state: ReadView { tree, secret } }
    }

    /// The state as it is now, in O(1).
    pub fn view(&self) -> ReadView {
        self.state.clone()
    }
}

impl Deref for Store {
    type Target = ReadView;

    fn deref(&self) -> &ReadView {
        &self.state
    }
}
