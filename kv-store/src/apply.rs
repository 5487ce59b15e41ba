//! What each op does. The outcome and the change are functions of the state, the index and the op, and of nothing else:
//! no clock, no random source, no order of a hash map. Hence all replicas agree.
//!
//! Keys and values are copied out of the command, so that the store keeps no log segment and no network buffer alive.

use bytes::Bytes;
use kv_wal::Index;

use crate::op::{Condition, Op, VALUE_BYTES_MAX};
use crate::outcome::Outcome;
use crate::pair::{Pair, Version};
use crate::store::Store;
use crate::tree::{Stored, Tree};

/// Longest decimal text of an `i64`.
const INTEGER_BYTES_MAX: usize = 20;

impl Store {
    /// Applies the op encoded in `command`, as the entry at `index`. A command that is no op changes nothing and
    /// answers [`Outcome::Invalid`]: it is in the log, so all replicas must agree on what it does.
    ///
    /// The caller gives each command of one history an index of its own, in rising order: versions come from it.
    pub fn apply(&mut self, index: Index, command: &[u8]) -> Outcome {
        let Ok(op) = Op::decode(command) else { return Outcome::Invalid };
        match op {
            Op::Put { key, value, condition, want_previous } => self.put(index, key, value, condition, want_previous),
            Op::Delete { keys } => self.delete(&keys),
            Op::Increment { key, by } => self.increment(index, key, by),
            Op::Append { key, value } => self.append(index, key, value),
            Op::PutMany { pairs } => self.put_many(index, &pairs),
            Op::Clear => self.clear(),
        }
    }

    fn put(&mut self, index: Index, key: &[u8], value: &[u8], condition: Condition, want_previous: bool) -> Outcome {
        let present = self.state.get(key);
        let done = match condition {
            Condition::Always => true,
            Condition::IfAbsent => present.is_none(),
            Condition::IfPresent => present.is_some(),
        };
        let created = present.map_or(index, |pair| pair.created);
        let previous = present.filter(|_| want_previous).map(|pair| pair.value.clone());
        if done {
            self.write(key, Pair { value: Bytes::copy_from_slice(value), version: Version { index, op: 0 }, created });
        }
        match (want_previous, done) {
            (true, done) => Outcome::Previous { value: previous, done },
            (false, true) => Outcome::Done,
            (false, false) => Outcome::NotDone,
        }
    }

    fn delete(&mut self, keys: &[&[u8]]) -> Outcome {
        let removed = keys.iter().filter(|key| self.state.tree.remove(key).is_some()).count();
        Outcome::Count(removed as u64)
    }

    fn increment(&mut self, index: Index, key: &[u8], by: i64) -> Outcome {
        let present = self.state.get(key);
        let Some(number) = present.map_or(Some(0), |pair| parse_integer(&pair.value)) else {
            return Outcome::NotAnInteger;
        };
        let Some(number) = number.checked_add(by) else { return Outcome::Overflow };
        let created = present.map_or(index, |pair| pair.created);
        self.write(key, Pair { value: Bytes::from(number.to_string()), version: Version { index, op: 0 }, created });
        Outcome::Integer(number)
    }

    fn append(&mut self, index: Index, key: &[u8], more: &[u8]) -> Outcome {
        let present = self.state.get(key);
        let before = present.map_or(&b""[..], |pair| &pair.value);
        let length = before.len() + more.len();
        if length > VALUE_BYTES_MAX {
            return Outcome::TooLarge;
        }
        let created = present.map_or(index, |pair| pair.created);
        let value = Bytes::from([before, more].concat());
        self.write(key, Pair { value, version: Version { index, op: 0 }, created });
        Outcome::Length(length as u64)
    }

    fn put_many(&mut self, index: Index, pairs: &[(&[u8], &[u8])]) -> Outcome {
        for (op, (key, value)) in (0..).zip(pairs) {
            let created = self.state.get(key).map_or(index, |pair| pair.created);
            self.write(key, Pair { value: Bytes::copy_from_slice(value), version: Version { index, op }, created });
        }
        Outcome::Done
    }

    fn clear(&mut self) -> Outcome {
        self.state.tree = Tree::default();
        Outcome::Done
    }

    fn write(&mut self, key: &[u8], pair: Pair) {
        let contribution = self.state.secret.contribution(key, &pair);
        self.state.tree.insert(key, Stored { pair, contribution });
    }
}

/// The number that `text` is the one decimal notation of: no sign but a minus, no leading zero, no space, as Redis.
fn parse_integer(text: &[u8]) -> Option<i64> {
    if text.len() > INTEGER_BYTES_MAX {
        return None;
    }
    let number: i64 = str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

#[cfg(test)]
mod tests;
