//! Building a tree from sorted pairs, bottom up, in O(n).

use bytes::Bytes;

use super::remove::refill;
use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, Item, LEAF_ITEMS_MAX, Node, Stored, Subtree, Tree};

/// Three quarters full: room for keys that come between.
const LEAF_ITEMS: usize = LEAF_ITEMS_MAX * 3 / 4;
const INNER_CHILDREN: usize = INNER_CHILDREN_MAX * 3 / 4;

/// Takes pairs in order and makes a tree of them.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    items: Vec<Item>,
    leaves: Vec<Subtree>,
}

impl Builder {
    /// Adds a pair after all others.
    ///
    /// # Panics
    ///
    /// If `key` is not after the last key: the caller checks what it has read.
    pub(crate) fn push(&mut self, key: Bytes, stored: Stored) {
        assert!(self.last_key().is_none_or(|last| *last < key), "keys rise");
        if self.items.len() == LEAF_ITEMS {
            self.close_leaf();
        }
        self.items.push(Item { key, stored });
    }

    /// The key added last.
    pub(crate) fn last_key(&self) -> Option<&Bytes> {
        self.items.last().map(|item| &item.key)
    }

    /// The tree of all pairs added.
    pub(crate) fn finish(mut self) -> Tree {
        if self.items.is_empty() {
            return Tree::default();
        }
        self.close_leaf();
        let mut level = self.leaves;
        refill_last(&mut level);
        while level.len() > 1 {
            level = level_above(level);
        }
        Tree { root: level.pop().expect("at least one leaf") }
    }

    fn close_leaf(&mut self) {
        let items = std::mem::replace(&mut self.items, Vec::with_capacity(LEAF_ITEMS));
        self.leaves.push(Subtree::new(Node::Leaf(Sorted::new(items))));
    }
}

fn level_above(level: Vec<Subtree>) -> Vec<Subtree> {
    let mut above = Vec::with_capacity(level.len().div_ceil(INNER_CHILDREN));
    let mut below = level.into_iter().peekable();
    while below.peek().is_some() {
        let children = below.by_ref().take(INNER_CHILDREN).collect();
        above.push(Subtree::new(Node::Inner(Sorted::new(children))));
    }
    refill_last(&mut above);
    above
}

/// Only the last node of a level can have too little.
fn refill_last(level: &mut Vec<Subtree>) {
    if let [.., left, last] = &mut level[..]
        && last.node.is_underfull()
    {
        match refill(left, last.clone()) {
            Some(right) => *last = right,
            None => drop(level.pop()),
        }
    }
}
