//! Insertion: down to the leaf, then back up, splitting what has become too large.

use std::sync::Arc;

use bytes::Bytes;

use super::{INNER_CHILDREN_MAX, Item, LEAF_ITEMS_MAX, Node, Stored, Subtree, Tree, child_at, item_at};

/// What an insertion below a node leaves to the caller.
struct Inserted {
    /// What the key had before.
    replaced: Option<Stored>,
    /// The right half of the node, if it had to be split.
    right: Option<Subtree>,
}

impl Tree {
    /// Sets the pair of `key` and gives the one before. Copies the key if it is new.
    pub(crate) fn insert(&mut self, key: &[u8], stored: Stored) -> Option<Stored> {
        let Inserted { replaced, right } = self.root.insert(key, stored);
        if let Some(right) = right {
            let left = std::mem::take(self).root;
            self.root = Subtree::new(Bytes::new(), Node::Inner(vec![left, right]));
        }
        replaced
    }
}

impl Subtree {
    fn insert(&mut self, key: &[u8], stored: Stored) -> Inserted {
        let added = stored.digest(key);
        let inserted = match Arc::make_mut(&mut self.node) {
            Node::Leaf(items) => insert_item(items, key, stored),
            Node::Inner(children) => insert_below(children, key, stored),
        };
        self.digest += added;
        if let Some(replaced) = &inserted.replaced {
            self.digest -= replaced.digest(key);
        }
        if let Some(right) = &inserted.right {
            self.digest -= right.digest;
        }
        inserted
    }
}

fn insert_item(items: &mut Vec<Item>, key: &[u8], stored: Stored) -> Inserted {
    match item_at(items, key) {
        Ok(at) => Inserted { replaced: Some(std::mem::replace(&mut items[at].stored, stored)), right: None },
        Err(at) => {
            items.insert(at, Item { key: Bytes::copy_from_slice(key), stored });
            Inserted { replaced: None, right: split(items, LEAF_ITEMS_MAX).map(right_of_leaf) }
        }
    }
}

fn insert_below(children: &mut Vec<Subtree>, key: &[u8], stored: Stored) -> Inserted {
    let at = child_at(children, key);
    let Inserted { replaced, right } = children[at].insert(key, stored);
    let right = right.and_then(|right| {
        children.insert(at + 1, right);
        split(children, INNER_CHILDREN_MAX).map(right_of_inner)
    });
    Inserted { replaced, right }
}

/// Takes the right half if there are more than `max`.
fn split<T>(all: &mut Vec<T>, max: usize) -> Option<Vec<T>> {
    (all.len() > max).then(|| all.split_off(all.len() / 2))
}

fn right_of_leaf(items: Vec<Item>) -> Subtree {
    let node = Node::Leaf(items);
    Subtree::new(node.from(), node)
}

fn right_of_inner(children: Vec<Subtree>) -> Subtree {
    let node = Node::Inner(children);
    Subtree::new(node.from(), node)
}
