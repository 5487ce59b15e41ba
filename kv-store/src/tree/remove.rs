//! Removal: down to the leaf, then back up, filling what has become too small from a neighbour.

use std::sync::Arc;

use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, Node, Subtree, Tree};
use crate::digest::{RangeDigest, Secret};
use crate::pair::Pair;

impl Tree {
    /// Removes `key` and gives what it had. An absent key copies no node.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        let removed = self.get(key)?.to_pair();
        self.root.remove(key, self.secret.as_ref());
        if let Node::Inner(children) = &*self.root.node
            && let [only] = &**children
        {
            self.root = only.clone();
        }
        Some(removed)
    }
}

impl Subtree {
    /// Removes `key`, which must be there, and gives what it added.
    fn remove(&mut self, key: &[u8], secret: Option<&Secret>) -> RangeDigest {
        let removed = match Arc::make_mut(&mut self.node) {
            Node::Leaf(leaf) => {
                let at = leaf.find(key).expect("looked up before");
                let digest = leaf.digest_at(at, secret);
                leaf.remove(at);
                digest
            }
            Node::Inner(children) => {
                let at = children.child_of(key);
                let removed = children.at_mut(at).remove(key, secret);
                if children[at].node.is_underfull() {
                    refill_child(children, at, secret);
                }
                removed
            }
        };
        self.digest -= removed;
        removed
    }
}

/// Refills the child at `at` from a neighbour, or merges the two.
fn refill_child(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, at: usize, secret: Option<&Secret>) {
    assert!(children.len() >= 2, "every inner node has two children");
    let at = at.saturating_sub(1);
    let right = children.remove(at + 1);
    if let Some(right) = refill(children.at_mut(at), right, secret) {
        children.insert(at + 1, right);
    }
}

/// Merges two neighbours if they fit into one node; otherwise both get half, and what is now the right one is given.
pub(super) fn refill(left: &mut Subtree, mut right: Subtree, secret: Option<&Secret>) -> Option<Subtree> {
    match (Arc::make_mut(&mut left.node), Arc::make_mut(&mut right.node)) {
        (Node::Leaf(left), Node::Leaf(right)) => left.share_with(right),
        (Node::Inner(left), Node::Inner(right)) => left.share_with(right),
        _ => unreachable!("neighbours have one depth"),
    }
    left.digest += right.digest;
    if right.node.is_empty() {
        return None;
    }
    let right = Subtree { from: right.node.from(), digest: right.node.digest(secret), node: right.node };
    left.digest -= right.digest;
    Some(right)
}
