//! Iteration over a range, from both ends.
//!
//! Since ranks are cheap, a range is two ranks: the cursors start there, and the number of pairs between them tells
//! when they have met.

use std::iter::FusedIterator;
use std::slice;

use bytes::Bytes;

use super::query::skip_while;
use super::{Item, Node, Subtree, Tree};
use crate::pair::Pair;

/// The pairs of a range in order of their keys.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    front: Cursor<'a>,
    back: Cursor<'a>,
    remaining: u64,
}

/// A place between two items: what is left of its leaf, and of each node above.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    above: Vec<slice::Iter<'a, Subtree>>,
    items: slice::Iter<'a, Item>,
}

impl Tree {
    /// The pairs at or after `from` and before `to`.
    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>) -> Range<'_> {
        let first = self.before(from).count;
        let end = to.map_or(self.total().count, |to| self.before(to).count);
        Range { front: self.cursor_after(first), back: self.cursor_before(end), remaining: end.saturating_sub(first) }
    }

    /// The place before the item of this rank, with what is to the right of it.
    fn cursor_after(&self, mut rank: u64) -> Cursor<'_> {
        let mut above = Vec::new();
        let mut node = &*self.root.node;
        loop {
            match node {
                Node::Leaf(items) => return Cursor { above, items: items[rank as usize..].iter() },
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
                Node::Leaf(items) => return Cursor { above, items: items[..rank as usize].iter() },
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
    fn next(&mut self) -> Option<&'a Item> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            match self.above.last_mut()?.next() {
                None => drop(self.above.pop()),
                Some(child) => self.enter(child, |children| children.next()),
            }
        }
    }

    fn next_back(&mut self) -> Option<&'a Item> {
        loop {
            if let Some(item) = self.items.next_back() {
                return Some(item);
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
                Node::Leaf(items) => {
                    self.items = items.iter();
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

impl<'a> Range<'a> {
    fn give(&mut self, item: Option<&'a Item>) -> Option<(&'a Bytes, &'a Pair)> {
        let item = item.expect("the counts of the nodes are right");
        self.remaining -= 1;
        Some((&item.key, &item.stored.pair))
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a Bytes, &'a Pair);

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let item = self.front.next();
        self.give(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let item = self.back.next_back();
        self.give(item)
    }
}

impl ExactSizeIterator for Range<'_> {}

impl FusedIterator for Range<'_> {}
