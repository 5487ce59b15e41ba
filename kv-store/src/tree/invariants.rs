//! What must hold of a tree, checked from the leaves up. For tests.

#![cfg(test)]

use super::{Node, Subtree, Tree};
use crate::digest::Secret;

impl Tree {
    /// Panics if anything that must hold does not.
    pub(crate) fn invariants(&self) {
        if let Node::Inner(children) = &*self.root.node {
            assert!(children.len() >= 2, "a root with one child is replaced by it");
        }
        let mut keys = Vec::new();
        depth(&self.root, None, &mut keys, self.secret());
        assert!(keys.is_sorted_by(|a, b| a < b), "keys rise");
        assert_eq!(keys.len() as u64, self.total().count);
    }
}

/// Checks `subtree`, whose keys are all before `to`, and gives its depth.
fn depth(subtree: &Subtree, to: Option<&[u8]>, keys: &mut Vec<Vec<u8>>, secret: Option<&Secret>) -> usize {
    assert_eq!(subtree.digest, subtree.node.digest(secret), "the digest is the sum over what is below");
    match &*subtree.node {
        Node::Leaf(leaf) => {
            for at in 0..leaf.count() {
                let key = leaf.key(at);
                assert!(*subtree.from <= *key && to.is_none_or(|to| key < to), "keys keep to their subtree");
                assert_eq!(leaf.find(key), Ok(at));
                keys.push(key.to_vec());
            }
            0
        }
        Node::Inner(children) => {
            assert_eq!(*children[0].from, *subtree.from, "a subtree begins where its first child does");
            let ends = children.iter().skip(1).map(|child| Some(&*child.from)).chain([to]);
            let depths: Vec<usize> =
                children.iter().zip(ends).map(|(child, to)| depth(child, to, keys, secret)).collect();
            assert!(children.iter().all(|child| !child.node.is_underfull()));
            assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves have one depth");
            depths[0] + 1
        }
    }
}
