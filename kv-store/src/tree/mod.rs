//! A copy-on-write B+tree in which every subtree knows its count, bytes and digest.
//!
//! ```text
//!                 Inner [ Subtree{from: "a", digest, node} , Subtree{from: "m", digest, node} , ... ]
//!                                              |                              |
//!                 Leaf  [ Item a, Item c, Item k ]            Leaf [ Item m, Item p ]
//! ```
//!
//! A snapshot is a clone of the root. A change walks down with [`Arc::make_mut`]: nodes that nobody else holds change
//! in place, others are copied first, at most one a level. So a snapshot never sees a change, and a tree without
//! snapshots never copies.
//!
//! What must hold (`invariants` checks it in tests):
//!
//! - keys rise strictly from left to right, and all leaves have one depth;
//! - all keys below a subtree are at or after its `from`, and before the `from` of its right neighbour; the `from` of a
//!   subtree is that of its first child;
//! - the digest of a subtree is the sum over its items;
//! - a node has at most its maximum of items or children, and at least a quarter of it, except the root.
//!
//! A quarter, not a half: nodes split into halves and merge when two fit into one, so a half would let a key that comes
//! and goes split and merge the same nodes for ever. With a quarter, a node that has just been split or merged takes a
//! number of changes in proportion to its size before it is next.

mod build;
mod insert;
mod invariants;
mod query;
mod range;
mod remove;
mod sorted;

use std::sync::Arc;

use bytes::Bytes;

use crate::digest::{RangeDigest, Sum};
use crate::pair::Pair;

pub(crate) use build::Builder;
pub use range::Range;
use sorted::{Keyed, Sorted};

/// Most items of a leaf. Unit tests have small nodes, so that few keys make a deep tree.
const LEAF_ITEMS_MAX: usize = if cfg!(test) { 8 } else { 32 };

/// Most children of an inner node.
const INNER_CHILDREN_MAX: usize = if cfg!(test) { 8 } else { 48 };

/// An ordered map from keys to pairs. Cloning is O(1).
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Subtree,
}

/// A pair with what it adds to the sum. The contribution is kept, so that replacing a pair costs one hash, not two.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) pair: Pair,
    pub(crate) contribution: Sum,
}

#[derive(Clone, Debug)]
struct Item {
    key: Bytes,
    stored: Stored,
}

#[derive(Clone, Debug)]
struct Subtree {
    from: Bytes,
    digest: RangeDigest,
    node: Arc<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Sorted<Item, LEAF_ITEMS_MAX>),
    Inner(Sorted<Subtree, INNER_CHILDREN_MAX>),
}

impl Tree {
    /// Count, bytes and sum of all pairs.
    pub(crate) fn total(&self) -> RangeDigest {
        self.root.digest
    }
}

impl Default for Tree {
    fn default() -> Self {
        let node = Node::Leaf(Sorted::new(Vec::new()));
        Tree { root: Subtree { from: Bytes::new(), digest: node.digest(), node: Arc::new(node) } }
    }
}

impl Stored {
    fn digest(&self, key: &[u8]) -> RangeDigest {
        RangeDigest::of_one(key.len(), self.pair.value.len(), self.contribution)
    }
}

impl Item {
    fn digest(&self) -> RangeDigest {
        self.stored.digest(&self.key)
    }
}

impl Keyed for Item {
    fn key(&self) -> &Bytes {
        &self.key
    }
}

impl Keyed for Subtree {
    fn key(&self) -> &Bytes {
        &self.from
    }
}

impl Subtree {
    /// The subtree of a node that is not empty.
    fn new(node: Node) -> Self {
        Subtree { from: node.from(), digest: node.digest(), node: Arc::new(node) }
    }
}

impl Node {
    /// Summed up from one level below.
    fn digest(&self) -> RangeDigest {
        match self {
            Node::Leaf(items) => items.iter().map(Item::digest).sum(),
            Node::Inner(children) => children.iter().map(|child| child.digest).sum(),
        }
    }

    /// What the `from` of a new subtree of this node is.
    fn from(&self) -> Bytes {
        match self {
            Node::Leaf(items) => items[0].key.clone(),
            Node::Inner(children) => children[0].from.clone(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(items) => items.is_empty(),
            Node::Inner(children) => children.is_empty(),
        }
    }

    fn is_underfull(&self) -> bool {
        match self {
            Node::Leaf(items) => items.len() < LEAF_ITEMS_MAX / 4,
            Node::Inner(children) => children.len() < INNER_CHILDREN_MAX / 4,
        }
    }
}

impl Sorted<Subtree, INNER_CHILDREN_MAX> {
    /// The child below which `key` belongs.
    fn child_of(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|after| after.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
