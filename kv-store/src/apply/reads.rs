//! Reads at a place in the log.

use super::Applying;
use crate::op::OUTCOME_BYTES_MAX;
use crate::outcome::{self, Outcome};

impl Applying<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Outcome {
        Outcome::Value(self.live(key).cloned())
    }

    pub(super) fn scan(&self, from: &[u8], to: Option<&[u8]>, limit: u32) -> Outcome {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        for (key, pair) in self.store.range(from, to).take(limit as usize) {
            bytes += outcome::item_bytes(key, pair);
            if bytes > OUTCOME_BYTES_MAX {
                return Outcome::TooLarge;
            }
            pairs.push((key.clone(), pair.clone()));
        }
        Outcome::Pairs(pairs)
    }
}
