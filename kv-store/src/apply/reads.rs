//! Reads at a place in the log.

use bytes::Bytes;

use super::Applying;
use crate::op::{OUTCOME_BYTES_MAX, SCAN_PAIRS_MAX};
use crate::outcome::{self, Outcome};

impl Applying<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Outcome {
        Outcome::Value(self.live(key).map(|pair| pair.to_pair()))
    }

    pub(super) fn scan(&mut self, from: &[u8], to: Option<&[u8]>, limit: u32) -> Outcome {
        let mut stored = self.store.stored_range(from, to);
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while pairs.len() < limit as usize
            && let Some((key, pair)) = stored.next()
        {
            self.scanned_pairs += 1;
            if self.scanned_pairs > SCAN_PAIRS_MAX {
                return Outcome::TooLarge;
            }
            if pair.is_expired(self.store.clock_ms()) {
                continue;
            }
            bytes += outcome::item_bytes(key, &pair);
            if bytes > OUTCOME_BYTES_MAX {
                return Outcome::TooLarge;
            }
            pairs.push((Bytes::copy_from_slice(key), pair.to_pair()));
        }
        Outcome::Pairs(pairs)
    }
}
