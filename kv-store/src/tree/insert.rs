//! Insertion: down to the leaf, then back up, splitting what has become too large.

use std::sync::Arc;

use bytes::Bytes;

use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, Item, LEAF_ITEMS_MAX, Node, Stored, Subtree, Tree};

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
        if *key < self.root.from {
            self.root.from = Bytes::copy_from_slice(key);
        }
        let Inserted { replaced, right } = self.root.insert(key, stored);
        if let Some(right) = right {
            let mut left = std::mem::take(self).root;
            // Not empty, as it was while the tree was: the heads of the root are to tell keys apart.
            left.from = left.node.from();
            self.root = Subtree::new(Node::Inner(Sorted::new(vec![left, right])));
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

fn insert_item(items: &mut Sorted<Item, LEAF_ITEMS_MAX>, key: &[u8], stored: Stored) -> Inserted {
    match items.find(key) {
        Ok(at) => Inserted { replaced: Some(std::mem::replace(&mut items.at_mut(at).stored, stored)), right: None },
        Err(at) => {
            let right = items.insert_or_split(at, Item { key: Bytes::copy_from_slice(key), stored });
            Inserted { replaced: None, right: right.map(|items| Subtree::new(Node::Leaf(items))) }
        }
    }
}

fn insert_below(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, key: &[u8], stored: Stored) -> Inserted {
    let at = children.child_of(key);
    if *key < children[at].from {
        // Only the leftmost subtree can begin after the key.
        lower_first(children, key);
    }
    let Inserted { replaced, right } = children.at_mut(at).insert(key, stored);
    let right = right.and_then(|right| children.insert_or_split(at + 1, right));
    Inserted { replaced, right: right.map(|children| Subtree::new(Node::Inner(children))) }
}

fn lower_first(children: &mut Sorted<Subtree, INNER_CHILDREN_MAX>, key: &[u8]) {
    let first = children.remove(0);
    children.insert(0, Subtree { from: Bytes::copy_from_slice(key), ..first });
}
