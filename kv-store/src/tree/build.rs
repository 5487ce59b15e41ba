//! Building a tree from sorted pairs, bottom up, in O(n).
//!
//! Hashing the pairs takes longest, so it is left to the end and done by all processors.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use super::leaf::Leaf;
use super::remove::refill;
use super::sorted::Sorted;
use super::{INNER_CHILDREN_MAX, LEAF_PAIRS_MAX, Node, Subtree, Tree};
use crate::digest::{RangeDigest, Secret};
use crate::pair::PairRef;

/// Three quarters full: room for keys that come between.
const LEAF_PAIRS: usize = LEAF_PAIRS_MAX * 3 / 4;
const INNER_CHILDREN: usize = INNER_CHILDREN_MAX * 3 / 4;

/// Fewer leaves than this are not worth another thread.
const LEAVES_OF_THREAD: usize = 1000;

/// Takes pairs in order and makes a tree of them.
#[derive(Debug)]
pub(crate) struct Builder {
    secret: Option<Secret>,
    open: Leaf,
    /// Their digests are zero still.
    leaves: Vec<Subtree>,
}

impl Builder {
    pub(crate) fn new(secret: Option<Secret>) -> Builder {
        Builder { secret, open: Leaf::new(), leaves: Vec::new() }
    }

    /// Adds a pair after all others.
    ///
    /// # Panics
    ///
    /// If `key` is not after the last key: the caller checks what it has read.
    pub(crate) fn push(&mut self, key: &[u8], pair: &PairRef<'_>) {
        assert!(self.last_key().is_none_or(|last| last < key), "keys rise");
        if self.open.count() == LEAF_PAIRS {
            self.close_leaf();
        }
        self.open.insert(self.open.count(), key, pair);
    }

    /// The key added last.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.open.count().checked_sub(1).map(|last| self.open.key(last))
    }

    /// The tree of all pairs added.
    pub(crate) fn finish(mut self) -> Tree {
        if self.open.count() == 0 {
            return Tree::new(self.secret);
        }
        self.close_leaf();
        let (secret, mut level) = (self.secret.as_ref(), self.leaves);
        hash_all(&mut level, secret);
        refill_last(&mut level, secret);
        while level.len() > 1 {
            level = level_above(level, secret);
        }
        Tree { root: level.pop().expect("at least one leaf"), secret: self.secret }
    }

    fn close_leaf(&mut self) {
        let mut leaf = std::mem::replace(&mut self.open, Leaf::new());
        leaf.shrink();
        let node = Node::Leaf(leaf);
        self.leaves.push(Subtree { from: node.from(), digest: RangeDigest::default(), node: Arc::new(node) });
    }
}

fn hash_all(leaves: &mut [Subtree], secret: Option<&Secret>) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut shares = leaves.chunks_mut(leaves.len().div_ceil(threads).max(LEAVES_OF_THREAD));
    let hash = |share: &mut [Subtree]| share.iter_mut().for_each(|leaf| leaf.digest = leaf.node.digest(secret));
    let first = shares.next();
    thread::scope(|scope| {
        shares.for_each(|share| drop(scope.spawn(|| hash(share))));
        first.into_iter().for_each(hash);
    });
}

fn level_above(level: Vec<Subtree>, secret: Option<&Secret>) -> Vec<Subtree> {
    let mut above = Vec::with_capacity(level.len().div_ceil(INNER_CHILDREN));
    let mut below = level.into_iter().peekable();
    while below.peek().is_some() {
        let children = below.by_ref().take(INNER_CHILDREN).collect();
        above.push(Subtree::new(Node::Inner(Sorted::new(children)), secret));
    }
    refill_last(&mut above, secret);
    above
}

/// Only the last node of a level can have too little.
fn refill_last(level: &mut Vec<Subtree>, secret: Option<&Secret>) {
    if let [.., left, last] = &mut level[..]
        && last.node.is_underfull()
    {
        match refill(left, last.clone(), secret) {
            Some(right) => *last = right,
            None => drop(level.pop()),
        }
    }
}
