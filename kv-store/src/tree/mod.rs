//! A copy-on-write B+tree in which every subtree knows its count, bytes and digest.
//!
//! ```text
//!                 Inner [ Subtree{from: "a", digest, node} , Subtree{from: "m", digest, node} , ... ]
//!                                              |                              |
//!                 Leaf  [ pair a, pair c, pair k ]            Leaf [ pair m, pair p ]
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
mod heads;
mod insert;
mod invariants;
mod leaf;
mod query;
mod range;
mod record;
mod remove;
mod separator;
mod sorted;

use std::sync::Arc;

use crate::digest::{RangeDigest, Secret, Sum};
use crate::pair::PairRef;

pub(crate) use build::Builder;
use leaf::Leaf;
pub use range::Range;
use separator::Separator;
use sorted::{Keyed, Sorted};

/// Most pairs of a leaf. Unit tests have small nodes, so that few keys make a deep tree.
const LEAF_PAIRS_MAX: usize = if cfg!(test) { 8 } else { 32 };

/// Most children of an inner node.
const INNER_CHILDREN_MAX: usize = if cfg!(test) { 8 } else { 48 };

/// An ordered map from keys to pairs. Cloning is O(1).
///
/// What a pair adds to the sum is not kept, since that would be as much memory as all the rest beside key and value: it is
/// hashed again when the pair goes.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Subtree,
    /// Keys the contributions of the pairs. Without one they are all zero.
    secret: Option<Secret>,
}

#[derive(Clone, Debug)]
struct Subtree {
    from: Separator,
    digest: RangeDigest,
    node: Arc<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Sorted<Subtree, INNER_CHILDREN_MAX>),
}

impl Tree {
    pub(crate) fn new(secret: Option<Secret>) -> Tree {
        let node = Node::Leaf(Leaf::new());
        Tree {
            root: Subtree { from: Separator::from(&b""[..]), digest: RangeDigest::default(), node: Arc::new(node) },
            secret,
        }
    }

    /// Count, bytes and sum of all pairs.
    pub(crate) fn total(&self) -> RangeDigest {
        self.root.digest
    }

    /// What keys the contributions.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }
}

/// What a pair adds to a digest.
fn digest_of(key: &[u8], pair: &PairRef<'_>, secret: Option<&Secret>) -> RangeDigest {
    let contribution = secret.map_or(Sum::ZERO, |secret| secret.contribution(key, pair));
    RangeDigest::of_one(key.len(), pair.value.len(), contribution)
}

impl Keyed for Subtree {
    fn key(&self) -> &[u8] {
        &self.from
    }
}

impl Subtree {
    /// The subtree of a node that is not empty.
    fn new(node: Node, secret: Option<&Secret>) -> Self {
        Subtree { from: node.from(), digest: node.digest(secret), node: Arc::new(node) }
    }
}

impl Node {
    /// Summed up from one level below.
    fn digest(&self, secret: Option<&Secret>) -> RangeDigest {
        match self {
            Node::Leaf(leaf) => leaf.digest(0..leaf.count(), secret),
            Node::Inner(children) => children.iter().map(|child| child.digest).sum(),
        }
    }

    /// What the `from` of a new subtree of this node is.
    fn from(&self) -> Separator {
        match self {
            Node::Leaf(leaf) => leaf.key(0).into(),
            Node::Inner(children) => children[0].from.clone(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.count() == 0,
            Node::Inner(children) => children.is_empty(),
        }
    }

    fn is_underfull(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.count() < LEAF_PAIRS_MAX / 4,
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
