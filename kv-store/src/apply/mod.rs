//! What each op does. The outcome and the change are functions of the state, the index, the stamp and the op, and of
//! nothing else: no clock of the machine, no random source, no order of a hash map. Hence all replicas agree.
//!
//! Keys and values are copied out of the command, so that the store keeps no log segment and no network buffer alive.
//!
//! | file | ops |
//! |---|---|
//! | `put.rs` | put, put many |
//! | `remove.rs` | delete, take, delete range, clear |
//! | `numbers.rs` | increments |
//! | `parts.rs` | append, set range |
//! | `deadlines.rs` | set deadline |
//! | `copy.rs` | copy |
//! | `reads.rs` | get, scan |
//! | `memory.rs` | the memory limit |
//! | `transaction.rs` | transactions and their conditions |

mod copy;
mod deadlines;
mod memory;
mod numbers;
mod parts;
mod put;
mod reads;
mod remove;
mod transaction;

use std::borrow::Cow;

use kv_wal::Index;

use crate::op::Op;
use crate::outcome::Outcome;
use crate::pair::{Pair, PairRef, Version};
use crate::store::Store;

impl Store {
    /// Applies the op encoded in `command`, as the entry at `index` with this stamp. A command that is no op changes
    /// nothing but the clock and answers [`Outcome::Invalid`]: it is in the log, so all replicas must agree on what it
    /// does.
    ///
    /// First the clock takes the stamp, as [`Store::advance_clock`] says; then the op is done at that time.
    ///
    /// The caller gives each command of one history an index of its own, in rising order: versions come from it.
    pub fn apply(&mut self, index: Index, stamp_ms: u64, command: &[u8]) -> Outcome {
        self.advance_clock(stamp_ms);
        let Ok(op) = Op::decode(command) else { return Outcome::Invalid };
        let mut entry = Applying::new(self, index);
        match op {
            Op::SetMemoryLimit { bytes } => entry.set_memory_limit(bytes),
            Op::Transaction { conditions, then, otherwise, failure } => {
                let held = entry.hold(&conditions);
                entry.transaction(held, if held { &then } else { &otherwise }, failure)
            }
            op => entry.one(&op),
        }
    }
}

/// An entry that is being applied.
struct Applying<'a> {
    store: &'a mut Store,
    index: Index,
    /// How many changes it has made: each pair written, and each removed by an op that names it or its range.
    changes: u32,
    /// How many pairs its range deletes have removed.
    ranged_pairs: u64,
    /// How many stored pairs its scans have walked through.
    scanned_pairs: u64,
    /// How many bytes of values it has written.
    value_bytes: usize,
}

/// What is to be written under a key.
struct Draft<'a> {
    value: Cow<'a, [u8]>,
    deadline_ms: Option<u64>,
    /// The creation index of the pair that is there; `None` if the key is absent.
    created: Option<Index>,
}

impl<'a> Draft<'a> {
    /// A value for a key that has the pair `present`, whose deadline stays.
    fn over(present: Option<PairRef<'_>>, value: impl Into<Cow<'a, [u8]>>) -> Self {
        let deadline_ms = present.and_then(|pair| pair.deadline_ms);
        Draft { value: value.into(), deadline_ms, created: present.map(|pair| pair.created) }
    }

    fn with_deadline(self, deadline_ms: Option<u64>) -> Self {
        Draft { deadline_ms, ..self }
    }
}

impl<'a> Applying<'a> {
    fn new(store: &'a mut Store, index: Index) -> Self {
        Applying { store, index, changes: 0, ranged_pairs: 0, scanned_pairs: 0, value_bytes: 0 }
    }

    /// Does an op that may stand in a transaction.
    fn one(&mut self, op: &Op<'_>) -> Outcome {
        match op {
            Op::Put { key, value, condition, deadline, want_previous } => {
                self.put(key, value, *condition, *deadline, *want_previous)
            }
            Op::PutMany { pairs, condition } => self.put_many(pairs, *condition),
            Op::Delete { keys } => self.delete(keys),
            Op::Take { key } => self.take(key),
            Op::DeleteRange { from, to } => self.delete_range(from, *to),
            Op::Clear => self.clear(),
            Op::Increment { key, by } => self.increment(key, *by),
            Op::IncrementDecimal { key, by } => self.increment_decimal(key, *by),
            Op::Append { key, value } => self.append(key, value),
            Op::SetRange { key, offset, value } => self.set_range(key, *offset, value),
            Op::SetDeadline { key, deadline, condition, want_value } => {
                self.set_deadline(key, *deadline, *condition, *want_value)
            }
            Op::Copy { from, to, if_absent, remove_source } => self.copy(from, to, *if_absent, *remove_source),
            Op::Get { key } => self.get(key),
            Op::Scan { from, to, limit } => self.scan(from, *to, *limit),
            // Decoding refuses them in a transaction, and `apply` takes them elsewhere.
            Op::SetMemoryLimit { .. } | Op::Transaction { .. } => Outcome::Invalid,
        }
    }

    /// The pair of `key`, unless it has expired.
    fn live(&self, key: &[u8]) -> Option<PairRef<'_>> {
        self.store.state.get(key)
    }

    /// Writes `key` and answers `outcome`, unless memory is short.
    fn write_and(&mut self, key: &[u8], draft: Draft<'_>, outcome: Outcome) -> Outcome {
        if !self.has_passed(draft.deadline_ms) && !self.has_memory_for(key, draft.value.len(), 0) {
            return Outcome::OutOfMemory;
        }
        self.write(key, draft);
        outcome
    }

    /// Writes `key`, for which there is memory. If the deadline has passed, what is left is that the key is absent.
    fn write(&mut self, key: &[u8], draft: Draft<'_>) {
        let version = Version { index: self.index, op: self.changes };
        self.changes += 1;
        if self.has_passed(draft.deadline_ms) {
            self.store.remove(key);
            return;
        }
        let Draft { value, deadline_ms, created } = draft;
        self.value_bytes += value.len();
        self.store.insert(key, PairRef::new(&value, version, created.unwrap_or(self.index), deadline_ms));
    }

    fn has_passed(&self, deadline_ms: Option<u64>) -> bool {
        deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.store.state.clock_ms)
    }

    /// Removes `key`, and gives what it had unless that has expired.
    fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        let clock_ms = self.store.state.clock_ms;
        let removed = self.store.remove(key).filter(|pair| !pair.is_expired(clock_ms))?;
        self.changes += 1;
        Some(removed)
    }
}

#[cfg(test)]
mod tests;
