//! What must hold of a tree, checked from the leaves up. For tests.

#![cfg(test)]

use bytes::Bytes;

use super::{Node, Subtree, Tree};

impl Tree {
    /// Panics if anything that must hold does not.
    pub(crate) fn invariants(&self) {
        if let Node::Inner(children) = &*self.root.node {
            assert!(children.len() >= 2, "a root with one child is replaced by it");
        }
        let mut keys = Vec::new();
        depth(&self.root, None, &mut keys);
        assert!(keys.is_sorted_by(|a, b| a < b), "keys rise");
        assert_eq!(keys.len() as u64, self.total().count);
    }
}

/// Checks `subtree`, whose keys are all before `to`, and gives its depth.
fn depth(subtree: &Subtree, to: Option<&Bytes>, keys: &mut Vec<Bytes>) -> usize {
    assert_eq!(subtree.digest, subtree.node.digest(), "the digest is the sum over what is below");
    match &*subtree.node {
        Node::Leaf(items) => {
            for (at, item) in items.iter().enumerate() {
                assert!(subtree.from <= item.key && to.is_none_or(|to| item.key < *to), "keys keep to their subtree");
                assert_eq!(items.find(&item.key), Ok(at));
                keys.push(item.key.clone());
            }
            0
        }
        Node::Inner(children) => {
            assert_eq!(children[0].from, subtree.from, "a subtree begins where its first child does");
            let ends = children.iter().skip(1).map(|child| Some(&child.from)).chain([to]);
            let depths: Vec<usize> = children.iter().zip(ends).map(|(child, to)| depth(child, to, keys)).collect();
            assert!(children.iter().all(|child| !child.node.is_underfull()));
            assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves have one depth");
            depths[0] + 1
        }
    }
}
