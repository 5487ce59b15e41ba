//! Which pairs expire when: a second ordered set, beside the tree of the pairs.
//!
//! Its keys are the deadline, big-endian, and the key of the pair, so that they order as (deadline, key), the order in
//! which expired pairs are removed. It is a tree like the other and as cheap to clone, which is what undoing a
//! transaction needs. It tells nothing that the pairs do not: it is in no hash and no checkpoint, and is built again
//! from the pairs when a checkpoint is read.

use kv_wal::Index;

use crate::pair::{PairRef, Version};
use crate::tree::{Builder, Tree};

const DEADLINE_BYTES: usize = size_of::<u64>();

/// The set needs no more than keys.
const NOTHING: PairRef<'_> = PairRef::new(b"", Version { index: Index::ZERO, op: 0 }, Index::ZERO, None);

/// The deadlines of all pairs that have one.
#[derive(Clone, Debug)]
pub(crate) struct Expiry {
    deadlines: Tree,
}

impl Expiry {
    /// Of no pairs.
    pub(crate) fn new() -> Self {
        Expiry { deadlines: Tree::new(None) }
    }

    /// The deadlines of the pairs in `tree`.
    pub(crate) fn of(tree: &Tree) -> Self {
        let with_deadline = |(key, pair): (&[u8], PairRef<'_>)| Some(entry(pair.deadline_ms?, key));
        let mut entries: Vec<_> = tree.range(b"", None).filter_map(with_deadline).collect();
        entries.sort_unstable();
        let mut builder = Builder::new(None);
        entries.iter().for_each(|entry| builder.push(entry, &NOTHING));
        Expiry { deadlines: builder.finish() }
    }

    /// The pair of `key` had the deadline `before` and has `after`.
    pub(crate) fn change(&mut self, key: &[u8], before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(deadline_ms) = before {
            let removed = self.deadlines.remove(&entry(deadline_ms, key));
            assert!(removed.is_some(), "every deadline of a pair is in the set");
        }
        if let Some(deadline_ms) = after {
            self.deadlines.insert(&entry(deadline_ms, key), NOTHING);
        }
    }

    /// The earliest deadline, and the first key that has it.
    pub(crate) fn first(&self) -> Option<(u64, &[u8])> {
        let (entry, _) = self.deadlines.nth(0)?;
        let (deadline, key) = entry.split_first_chunk::<DEADLINE_BYTES>().expect("every entry begins with a deadline");
        Some((u64::from_be_bytes(*deadline), key))
    }
}

fn entry(deadline_ms: u64, key: &[u8]) -> Vec<u8> {
    [&deadline_ms.to_be_bytes(), key].concat()
}

#[cfg(test)]
impl Expiry {
    /// Panics unless the set is that of the pairs in `tree`.
    pub(crate) fn check(&self, tree: &Tree) {
        self.deadlines.invariants();
        let keys = |expiry: &Expiry| expiry.deadlines.range(b"", None).map(|(key, _)| key.to_vec()).collect::<Vec<_>>();
        assert_eq!(keys(self), keys(&Expiry::of(tree)));
    }
}
