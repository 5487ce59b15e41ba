//! Insertion: down to the leaf, then back up, splitting what has become too large.

use std::sync::Arc;

use super::leaf::Leaf;
use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, Node, Subtree, Tree, digest_of};
use crate::digest::{RangeDigest, Secret};
use crate::pair::PairRef;

/// A pair on its way to its place.
struct Insertion<'a> {
    key: &'a [u8],
    pair: PairRef<'a>,
    /// What it adds.
    digest: RangeDigest,
    secret: Option<&'a Secret>,
}

/// A pair that is gone.
pub(crate) struct Replaced {
    /// When it would have expired.
    pub(crate) deadline_ms: Option<u64>,
    /// What it added.
    digest: RangeDigest,
}

/// What an insertion below a node leaves to the caller.
struct Inserted {
    replaced: Option<Replaced>,
    /// The right half of the node, if it had to be split.
    right: Option<Subtree>,
}

impl Tree {
    /// Sets the pair of `key`, and tells of the one before.
    pub(crate) fn insert(&mut self, key: &[u8], pair: PairRef<'_>) -> Option<Replaced> {
        if key < &*self.root.from {
            self.root.from = key.into();
        }
        let secret = self.secret.as_ref();
        let insertion = Insertion { key, pair, digest: digest_of(key, &pair, secret), secret };
        let Inserted { replaced, right } = self.root.insert(&insertion);
        if let Some(right) = right {
            // Its beginning is not empty, as it was while the tree was: the heads of the root are to tell keys apart.
            let left = Subtree { from: self.root.node.from(), ..self.root.clone() };
            self.root = Subtree::new(Node::Inner(Sorted::new(vec![left, right])), secret);
        }
        replaced
    }
}

impl Subtree {
    fn insert(&mut self, insertion: &Insertion<'_>) -> Inserted {
        let inserted = match Arc::make_mut(&mut self.node) {
            Node::Leaf(leaf) => insert_pair(leaf, insertion),
            Node::Inner(children) => insert_below(children, insertion),
        };
        self.digest += insertion.digest;
        if let Some(replaced) = &inserted.replaced {
            self.digest -= replaced.digest;
        }
        if let Some(right) = &inserted.right {
            self.digest -= right.digest;
        }
        inserted
    }
}

fn insert_pair(leaf: &mut Leaf, insertion: &Insertion<'_>) -> Inserted {
    let Insertion { key, pair, secret, .. } = insertion;
    match leaf.find(key) {
        Ok(at) => {
            let deadline_ms = leaf.pair(at).1.deadline_ms;
            let replaced = Replaced { deadline_ms, digest: leaf.digest_at(at, *secret) };
            leaf.replace(at, key, pair);
            Inserted { replaced: Some(replaced), right: None }
        }
        Err(at) => {
            let right = leaf.insert_or_split(at, key, pair);
            Inserted { replaced: None, right: right.map(|leaf| Subtree::new(Node::Leaf(leaf), *secret)) }
        }
    }
}

fn insert_below(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, insertion: &Insertion<'_>) -> Inserted {
    let at = children.child_of(insertion.key);
    if insertion.key < &*children[at].from {
        // Only the leftmost subtree can begin after the key.
        lower_first(children, insertion.key);
    }
    let Inserted { replaced, right } = children.at_mut(at).insert(insertion);
    let right = right.and_then(|right| children.insert_or_split(at + 1, right));
    Inserted { replaced, right: right.map(|children| Subtree::new(Node::Inner(children), insertion.secret)) }
}

fn lower_first(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, key: &[u8]) {
    let first = children.remove(0);
    children.insert(0, Subtree { from: key.into(), ..first });
}
