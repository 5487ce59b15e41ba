//! Questions answered on one way down: a key, a rank, and what is before a key.
//!
//! Everything about ranges follows from what lies to the left of the way down to a key: the digest of a range is a
//! difference of two sums of this kind, and the rank of a key is a count.

use super::leaf::Leaf;
use super::{Node, Subtree, Tree};
use crate::digest::RangeDigest;
use crate::pair::PairRef;

impl Tree {
    pub(crate) fn get(&self, key: &[u8]) -> Option<PairRef<'_>> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| leaf.pair(at).1),
                Node::Inner(children) => node = &children[children.child_of(key)].node,
            }
        }
    }

    /// The pair with `rank` pairs before it, and its key.
    pub(crate) fn nth(&self, mut rank: u64) -> Option<(&[u8], PairRef<'_>)> {
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let at = usize::try_from(rank).ok().filter(|at| *at < leaf.count())?;
                    return Some(leaf.pair(at));
                }
                Node::Inner(children) => {
                    let at = skip_while(children, &mut rank, |rank, count| rank >= count);
                    node = &children.get(at)?.node;
                }
            }
        }
    }

    /// How many keys are before `key`.
    pub(crate) fn rank(&self, key: &[u8]) -> u64 {
        let (left, leaf) = self.way_to(key, |child| child.digest.count);
        left + leaf.find(key).unwrap_or_else(|at| at) as u64
    }

    /// What has a key before `key`. The pairs of one leaf are hashed, or rather those on the side of the key where there are
    /// fewer.
    fn before(&self, key: &[u8]) -> RangeDigest {
        let mut before = RangeDigest::default();
        let mut subtree = &self.root;
        loop {
            match &*subtree.node {
                Node::Leaf(leaf) => {
                    let at = leaf.find(key).unwrap_or_else(|at| at);
                    if at <= leaf.count() / 2 {
                        before += leaf.digest(0..at, self.secret());
                    } else {
                        before += subtree.digest;
                        before -= leaf.digest(at..leaf.count(), self.secret());
                    }
                    return before;
                }
                Node::Inner(children) => {
                    let at = children.child_of(key);
                    before += children[..at].iter().map(|child| child.digest).sum();
                    subtree = &children[at];
                }
            }
        }
    }

    /// The leaf that `key` belongs to, and the sum of something over all subtrees to the left of the way there.
    fn way_to(&self, key: &[u8], of: impl Fn(&Subtree) -> u64) -> (u64, &Leaf) {
        let mut left = 0;
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => return (left, leaf),
                Node::Inner(children) => {
                    let at = children.child_of(key);
                    left += children[..at].iter().map(&of).sum::<u64>();
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
