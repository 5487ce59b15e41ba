//! Removal of keys, of ranges, and of everything.

use super::Applying;
use crate::op::DELETE_RANGE_MAX;
use crate::outcome::Outcome;

impl Applying<'_> {
    pub(super) fn delete(&mut self, keys: &[&[u8]]) -> Outcome {
        let removed = keys.iter().filter(|key| self.remove(key).is_some()).count();
        Outcome::Count(removed as u64)
    }

    pub(super) fn take(&mut self, key: &[u8]) -> Outcome {
        let value = self.remove(key).map(|pair| pair.value);
        Outcome::Previous { done: value.is_some(), value }
    }

    /// Expired pairs in the range go too, but do not count: they were absent.
    pub(super) fn delete_range(&mut self, from: &[u8], to: Option<&[u8]>) -> Outcome {
        let stored = self.store.range_digest(from, to).count;
        if self.ranged_pairs + stored > DELETE_RANGE_MAX {
            return Outcome::TooLarge;
        }
        self.ranged_pairs += stored;
        let keys: Vec<Vec<u8>> = self.store.stored_range(from, to).map(|(key, _)| key.to_vec()).collect();
        let removed = keys.iter().filter(|key| self.remove(key).is_some()).count();
        Outcome::Count(removed as u64)
    }

    pub(super) fn clear(&mut self) -> Outcome {
        self.store.clear();
        self.changes += 1;
        Outcome::Done
    }
}
