//! Questions answered on one way down: a key, a rank, and what is before a key.
//!
//! Everything about ranges follows from one function: `before(key)` adds up what lies to the left of the way down to
//! `key`. The digest of a range is a difference of two of these, and the rank of a key is a count.

use bytes::Bytes;

use super::{Item, Node, Subtree, Tree};
use crate::digest::RangeDigest;
use crate::pair::Pair;

impl Tree {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Pair> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(items) => return items.find(key).ok().map(|at| &items[at].stored.pair),
                Node::Inner(children) => node = &children[children.child_of(key)].node,
            }
        }
    }

    /// The pair with `rank` pairs before it.
    pub(crate) fn nth(&self, mut rank: u64) -> Option<(&Bytes, &Pair)> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(items) => {
                    let item = items.get(usize::try_from(rank).ok()?)?;
                    return Some((&item.key, &item.stored.pair));
                }
                Node::Inner(children) => {
                    let at = skip_while(children, &mut rank, |rank, count| rank >= count);
                    node = &children.get(at)?.node;
                }
            }
        }
    }

    /// What has a key before `key`.
    pub(crate) fn before(&self, key: &[u8]) -> RangeDigest {
        let mut before = RangeDigest::default();
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(items) => {
                    let at = items.find(key).unwrap_or_else(|at| at);
                    before += items[..at].iter().map(Item::digest).sum();
                    return before;
                }
                Node::Inner(children) => {
                    let at = children.child_of(key);
                    before += children[..at].iter().map(|child| child.digest).sum();
                    node = &children[at].node;
                }
            }
        }
    }

    /// What has a key at or after `from` and before `to`.
    pub(crate) fn digest(&self, from: &[u8], to: Option<&[u8]>) -> RangeDigest {
        if to.is_some_and(|to| to <= from) {
            return RangeDigest::default();
        }
        let mut digest = to.map_or(self.total(), |to| self.before(to));
        digest -= self.before(from);
        digest
    }
}

/// Skips children, and takes their counts off `rank`, as long as `skip(rank, count)`.
pub(super) fn skip_while(children: &[Subtree], rank: &mut u64, skip: impl Fn(u64, u64) -> bool) -> usize {
    let mut at = 0;
    while at < children.len() && skip(*rank, children[at].digest.count) {
        *rank -= children[at].digest.count;
        at += 1;
    }
    at
}
