//! The memory limit. What counts is bytes and pairs as stored, not what an allocator takes, so all replicas agree on
//! which write is refused.

use super::Applying;
use crate::outcome::Outcome;
use crate::read_view::PAIR_OVERHEAD_BYTES;

impl Applying<'_> {
    pub(super) fn set_memory_limit(&mut self, bytes: Option<u64>) -> Outcome {
        self.store.state.memory_limit_bytes = bytes;
        Outcome::Done
    }

    /// Whether the state, grown by so much, is within the limit.
    pub(super) fn may_grow_by(&self, more_bytes: u64) -> bool {
        let grown = self.store.memory_bytes().saturating_add(more_bytes);
        self.store.memory_limit_bytes().is_none_or(|limit| grown <= limit)
    }

    /// Whether `key` may get a value of this length, if `freed_bytes` are given back at the same time. A write that does
    /// not grow the state always may.
    pub(super) fn has_memory_for(&self, key: &[u8], value_bytes: usize, freed_bytes: u64) -> bool {
        if self.store.memory_limit_bytes().is_none() {
            return true;
        }
        let new = pair_bytes(key, value_bytes);
        // What is stored counts and is replaced, whether it has expired or not.
        let old = freed_bytes + self.stored_bytes(key);
        new <= old || self.may_grow_by(new - old)
    }

    /// What the stored pair of `key` counts.
    pub(super) fn stored_bytes(&self, key: &[u8]) -> u64 {
        self.store.state.tree.get(key).map_or(0, |pair| pair_bytes(key, pair.value.len()))
    }
}

/// What a pair counts.
pub(super) fn pair_bytes(key: &[u8], value_bytes: usize) -> u64 {
    (key.len() + value_bytes) as u64 + PAIR_OVERHEAD_BYTES
}
