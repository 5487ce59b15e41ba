//! Iteration over a range, from both ends.
//!
//! Since ranks are cheap, a range is two ranks: the cursors start there, and the number of pairs between them tells
//! when they have met.

use std::iter::FusedIterator;
use std::ops::Range as Places;
use std::slice;

use super::leaf::Leaf;
use super::query::skip_while;
use super::{Node, Subtree, Tree};
use crate::pair::PairRef;

/// The pairs of a range in order of their keys.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    front: Cursor<'a>,
    back: Cursor<'a>,
    remaining: u64,
}

/// A place between two pairs: what is left of its leaf, and of each node above.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    above: Vec<slice::Iter<'a, Subtree>>,
    leaf: &'a Leaf,
    places: Places<usize>,
}

impl Tree {
    /// The pairs at or after `from` and before `to`.
    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>) -> Range<'_> {
        let first = self.rank(from);
        let end = to.map_or(self.total().count, |to| self.rank(to));
        Range { front: self.cursor_after(first), back: self.cursor_before(end), remaining: end.saturating_sub(first) }
    }

    /// The place before the item of this rank, with what is to the right of it.
    fn cursor_after(&self, mut rank: u64) -> Cursor<'_> {
        let mut above = Vec::new();
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => return Cursor { above, leaf, places: rank as usize..leaf.count() },
                Node::Inner(children) => {
                    // The place after the last item is at the end of the last child.
                    let all_but_last = &children[..children.len() - 1];
                    let at = skip_while(all_but_last, &mut rank, |rank, count| rank >= count);
                    above.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }

    /// The same place, with what is to the left of it.
    fn cursor_before(&self, mut rank: u64) -> Cursor<'_> {
        let mut above = Vec::new();
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(leaf) => return Cursor { above, leaf, places: 0..rank as usize },
                Node::Inner(children) => {
                    let at = skip_while(children, &mut rank, |rank, count| rank > count);
                    above.push(children[..at].iter());
                    node = &children[at].node;
                }
            }
        }
    }
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<(&'a [u8], PairRef<'a>)> {
        loop {
            if let Some(at) = self.places.next() {
                return Some(self.leaf.pair(at));
            }
            match self.above.last_mut()?.next() {
                None => drop(self.above.pop()),
                Some(child) => self.enter(child, |children| children.next()),
            }
        }
    }

    fn next_back(&mut self) -> Option<(&'a [u8], PairRef<'a>)> {
        loop {
            if let Some(at) = self.places.next_back() {
                return Some(self.leaf.pair(at));
            }
            match self.above.last_mut()?.next_back() {
                None => drop(self.above.pop()),
                Some(child) => self.enter(child, |children| children.next_back()),
            }
        }
    }

    /// Goes down to a leaf, choosing the outermost child of each node on the way.
    fn enter(&mut self, child: &'a Subtree, outermost: impl Fn(&mut slice::Iter<'a, Subtree>) -> Option<&'a Subtree>) {
        let mut node = &*child.node;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    (self.leaf, self.places) = (leaf, 0..leaf.count());
                    return;
                }
                Node::Inner(children) => {
                    let mut rest = children.iter();
                    node = &outermost(&mut rest).expect("an inner node has children").node;
                    self.above.push(rest);
                }
            }
        }
    }
}

impl Range<'_> {
    /// Whether there is another one, which is taken now.
    fn take(&mut self) -> Option<()> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(())
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], PairRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.take()?;
        Some(self.front.next().expect("the counts of the nodes are right"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take()?;
        Some(self.back.next_back().expect("the counts of the nodes are right"))
    }
}

impl ExactSizeIterator for Range<'_> {}

impl FusedIterator for Range<'_> {}
