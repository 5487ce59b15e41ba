//! Removal: down to the leaf, then back up, filling what has become too small from a neighbour.

use std::sync::Arc;

use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, Node, Stored, Subtree, Tree};

impl Tree {
    /// Removes `key` and gives what it had. An absent key copies no node.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Stored> {
        self.get(key)?;
        let removed = self.root.remove(key);
        if let Node::Inner(children) = &*self.root.node
            && let [only] = &**children
        {
            self.root = only.clone();
        }
        Some(removed)
    }
}

impl Subtree {
    /// Removes `key`, which must be there.
    fn remove(&mut self, key: &[u8]) -> Stored {
        let removed = match Arc::make_mut(&mut self.node) {
            Node::Leaf(items) => {
                let at = items.find(key).expect("looked up before");
                items.remove(at).stored
            }
            Node::Inner(children) => {
                let at = children.child_of(key);
                let removed = children.at_mut(at).remove(key);
                if children[at].node.is_underfull() {
                    refill_child(children, at);
                }
                removed
            }
        };
        self.digest -= removed.digest(key);
        removed
    }
}

/// Refills the child at `at` from a neighbour, or merges the two.
fn refill_child(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, at: usize) {
    assert!(children.len() >= 2, "every inner node has two children");
    let at = at.saturating_sub(1);
    let right = children.remove(at + 1);
    if let Some(right) = refill(children.at_mut(at), right) {
        children.insert(at + 1, right);
    }
}

/// Merges two neighbours if they fit into one node; otherwise both get half, and what is now the right one is given.
pub(super) fn refill(left: &mut Subtree, mut right: Subtree) -> Option<Subtree> {
    match (Arc::make_mut(&mut left.node), Arc::make_mut(&mut right.node)) {
        (Node::Leaf(left), Node::Leaf(right)) => left.share_with(right),
        (Node::Inner(left), Node::Inner(right)) => left.share_with(right),
        _ => unreachable!("neighbours have one depth"),
    }
    left.digest += right.digest;
    if right.node.is_empty() {
        return None;
    }
    let right = Subtree { from: right.node.from(), digest: right.node.digest(), node: right.node };
    left.digest -= right.digest;
    Some(right)
}
