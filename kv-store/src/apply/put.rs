//! Puts, of one key and of many.
//!
//! Whether a put happens:
//!
//! | condition | key absent | key present |
//! |---|---|---|
//! | `Always` | yes | yes |
//! | `IfAbsent` | yes | no |
//! | `IfPresent` | no | yes |
//! | `IfValue` | no | if the value is this one |
//! | `IfVersion` | if it is 0.0 | if the version is this one |

use super::{Applying, Draft, memory};
use crate::op::{Condition, Deadline, PutManyCondition};
use crate::outcome::Outcome;
use crate::pair::{PairRef, Version};

impl Applying<'_> {
    pub(super) fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        condition: Condition<'_>,
        deadline: Deadline,
        want_previous: bool,
    ) -> Outcome {
        let present = self.live(key);
        let done = holds(condition, present);
        let previous = present.filter(|_| want_previous).map(|pair| pair.value_bytes());
        let outcome = match (want_previous, done) {
            (true, done) => Outcome::Previous { value: previous, done },
            (false, true) => Outcome::Done,
            (false, false) => Outcome::NotDone,
        };
        if !done {
            return outcome;
        }
        let draft = Draft::over(present, value);
        let draft = match deadline {
            Deadline::None => draft.with_deadline(None),
            Deadline::Keep => draft,
            Deadline::At(deadline_ms) => draft.with_deadline(Some(deadline_ms)),
        };
        self.write_and(key, draft, outcome)
    }

    pub(super) fn put_many(&mut self, pairs: &[(&[u8], &[u8])], condition: PutManyCondition) -> Outcome {
        let is_free = |(key, _): &(&[u8], &[u8])| self.live(key).is_none();
        if condition == PutManyCondition::IfNonePresent && !pairs.iter().all(is_free) {
            return Outcome::NotDone;
        }
        // Without a limit, and where even new keys fit, nothing can be refused, and nothing need be kept to go back to.
        let new_bytes = pairs.iter().map(|(key, value)| memory::pair_bytes(key, value.len())).sum();
        if self.may_grow_by(new_bytes) {
            self.write_all(pairs);
            return Outcome::Done;
        }
        self.put_many_or_go_back(pairs)
    }

    /// Whether memory suffices shows at the end: later pairs may be smaller than what they replace.
    fn put_many_or_go_back(&mut self, pairs: &[(&[u8], &[u8])]) -> Outcome {
        let (savepoint, changes, value_bytes) = (self.store.savepoint(), self.changes, self.value_bytes);
        let before = self.store.memory_bytes();
        self.write_all(pairs);
        if self.store.memory_bytes() <= before || self.may_grow_by(0) {
            return Outcome::Done;
        }
        self.store.go_back(savepoint);
        (self.changes, self.value_bytes) = (changes, value_bytes);
        Outcome::OutOfMemory
    }

    fn write_all(&mut self, pairs: &[(&[u8], &[u8])]) {
        for (key, value) in pairs {
            let draft = Draft::over(self.live(key), *value);
            self.write(key, draft.with_deadline(None));
        }
    }
}

/// The table above.
fn holds(condition: Condition<'_>, present: Option<PairRef<'_>>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => present.is_none(),
        Condition::IfPresent => present.is_some(),
        Condition::IfValue(value) => present.is_some_and(|pair| pair.value == value),
        Condition::IfVersion(version) => present.map_or(Version::default(), |pair| pair.version) == version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_wal::Index;

    #[test]
    fn every_condition_on_every_pair() {
        let version = |index| Version { index: Index::new(index), op: 0 };
        let pair = |value: &'static [u8], index| PairRef::new(value, version(index), Index::new(1), None);
        let found = [None, Some(pair(b"v", 7)), Some(pair(b"v", 8)), Some(pair(b"w", 7)), Some(pair(b"w", 8))];
        // One column for each of `found`.
        let table = [
            (Condition::Always, [true, true, true, true, true]),
            (Condition::IfAbsent, [true, false, false, false, false]),
            (Condition::IfPresent, [false, true, true, true, true]),
            (Condition::IfValue(b"v"), [false, true, true, false, false]),
            (Condition::IfValue(b""), [false; 5]),
            (Condition::IfVersion(version(7)), [false, true, false, true, false]),
            (Condition::IfVersion(version(0)), [true, false, false, false, false]),
        ];
        for (condition, expected) in table {
            let held = found.map(|pair| holds(condition, pair));
            assert_eq!(held, expected, "{condition:?}");
        }
    }
}
