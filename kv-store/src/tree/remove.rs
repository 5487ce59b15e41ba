//! Removal: down to the leaf, then back up, filling what has become too small from a neighbour.

use std::sync::Arc;

use super::{INNER_CHILDREN_MAX, LEAF_ITEMS_MAX, Node, Stored, Subtree, Tree, child_at, item_at};

impl Tree {
    /// Removes `key` and gives what it had. An absent key copies no node.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Stored> {
        self.get(key)?;
        let removed = self.root.remove(key);
        if let Node::Inner(children) = &*self.root.node
            && let [only] = &children[..]
        {
            self.root.node = only.node.clone();
        }
        Some(removed)
    }
}

impl Subtree {
    /// Removes `key`, which must be there.
    fn remove(&mut self, key: &[u8]) -> Stored {
        let removed = match Arc::make_mut(&mut self.node) {
            Node::Leaf(items) => {
                let at = item_at(items, key).expect("looked up before");
                items.remove(at).stored
            }
            Node::Inner(children) => {
                let at = child_at(children, key);
                let removed = children[at].remove(key);
                if children[at].node.is_underfull() {
                    refill(children, at);
                }
                removed
            }
        };
        self.digest -= removed.digest(key);
        removed
    }
}

/// Merges the node at `at` with a neighbour if they fit into one node, otherwise shares their content out evenly.
pub(super) fn refill(siblings: &mut Vec<Subtree>, at: usize) {
    assert!(siblings.len() >= 2, "every inner node has two children");
    let at = at.saturating_sub(1);
    let mut right = siblings.remove(at + 1);
    let left = &mut siblings[at];
    let right_is_left_over = match (Arc::make_mut(&mut left.node), Arc::make_mut(&mut right.node)) {
        (Node::Leaf(a), Node::Leaf(b)) => share(a, b, LEAF_ITEMS_MAX),
        (Node::Inner(a), Node::Inner(b)) => share(a, b, INNER_CHILDREN_MAX),
        _ => unreachable!("siblings have one depth"),
    };
    left.digest += right.digest;
    if right_is_left_over {
        right = Subtree { from: right.node.from(), digest: right.node.digest(), node: right.node };
        left.digest -= right.digest;
        siblings.insert(at + 1, right);
    }
}

/// Moves all into `left` if it fits, otherwise half; tells whether anything is left in `right`.
fn share<T>(left: &mut Vec<T>, right: &mut Vec<T>, max: usize) -> bool {
    let total = left.len() + right.len();
    let keep = if total <= max { total } else { total / 2 };
    if left.len() < keep {
        left.extend(right.drain(..keep - left.len()));
    } else {
        right.splice(..0, left.drain(keep..));
    }
    !right.is_empty()
}
