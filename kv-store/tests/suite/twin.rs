//! The dumbest store there is: an ordered map that is walked for every question and copied for every attempt. Written
//! from the documentation of the ops and of Redis.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_store::{
    Compare, Condition, Deadline, DeadlineCondition, Decimal, DecimalError, EXPIRED_REMOVED_MAX, Failure, Index, Op,
    Outcome, PAIR_OVERHEAD_BYTES, Pair, PairRef, PutManyCondition, ReadView, Relation, Store, Target, VALUE_BYTES_MAX,
    Version,
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Twin {
    pairs: BTreeMap<Vec<u8>, Pair>,
    clock_ms: u64,
    limit: Option<u64>,
    index: u64,
    changes: u32,
}

/// Panics unless the view holds exactly what the twin holds, and its sums are those of its bytes.
pub(crate) fn check(view: &ReadView, twin: &Twin) {
    let all = || twin.pairs.iter().map(|(key, pair)| (key.clone(), pair.clone()));
    let owned = |(key, pair): (&[u8], PairRef<'_>)| (key.to_vec(), pair.to_pair());
    assert!(view.stored().map(owned).eq(all()), "what is stored");
    assert!(view.iter().map(owned).eq(all().filter(|(_, pair)| !twin.is_expired(pair))), "what is there");
    assert_eq!(view.clock_ms(), twin.clock_ms);
    assert_eq!(view.memory_limit_bytes(), twin.limit);
    assert_eq!(view.memory_bytes(), twin.memory_bytes());
    assert_eq!(view.len(), twin.pairs.len() as u64);
    let audit = view.audit();
    assert_eq!(audit, view.range_digest(b"", None));
    assert_eq!(view.digest(), view.digest_with(&audit));
}

/// The same of a store, which also knows the next deadline.
pub(crate) fn check_store(store: &Store, twin: &Twin) {
    check(store, twin);
    assert_eq!(store.next_deadline_ms(), twin.pairs.values().filter_map(|pair| pair.deadline_ms).min());
}

impl Twin {
    pub(crate) fn apply(&mut self, index: u64, stamp_ms: u64, command: &[u8]) -> Outcome {
        self.advance_clock(stamp_ms);
        (self.index, self.changes) = (index, 0);
        match Op::decode(command) {
            Err(_) => Outcome::Invalid,
            Ok(Op::Transaction { conditions, then, otherwise, failure }) => {
                let held = conditions.iter().all(|compare| self.holds(compare));
                self.transaction(held, if held { then } else { otherwise }, failure)
            }
            Ok(op) => self.one(&op),
        }
    }

    pub(crate) fn advance_clock(&mut self, stamp_ms: u64) {
        self.clock_ms = self.clock_ms.max(stamp_ms);
        let due = self.pairs.iter().filter(|(_, pair)| self.is_expired(pair));
        let mut due: Vec<_> = due.map(|(key, pair)| (pair.deadline_ms, key.clone())).collect();
        due.sort();
        for (_, key) in due.into_iter().take(EXPIRED_REMOVED_MAX) {
            self.pairs.remove(&key);
        }
    }

    fn transaction(&mut self, held: bool, ops: Vec<Op<'_>>, failure: Failure) -> Outcome {
        let before = self.clone();
        let mut outcomes = Vec::new();
        for (number, op) in (0..).zip(ops) {
            let outcome = self.one(&op);
            if failure == Failure::Undo && outcome.is_failure() {
                *self = before;
                return Outcome::Failed { op: number, outcome: Box::new(outcome) };
            }
            outcomes.push(outcome);
        }
        Outcome::Transaction { held, outcomes }
    }

    fn is_expired(&self, pair: &Pair) -> bool {
        pair.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.clock_ms)
    }

    fn memory_bytes(&self) -> u64 {
        self.pairs.iter().map(|(key, pair)| (key.len() + pair.value.len()) as u64 + PAIR_OVERHEAD_BYTES).sum()
    }

    fn get(&self, key: &[u8]) -> Option<Pair> {
        self.pairs.get(key).filter(|pair| !self.is_expired(pair)).cloned()
    }

    fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.get(key).map(|pair| pair.value)
    }

    fn deadline(&self, key: &[u8]) -> Option<u64> {
        self.get(key)?.deadline_ms
    }

    /// Tries a change; if it grows the memory above the limit, it has not been.
    fn within_memory(&mut self, outcome: Outcome, change: impl FnOnce(&mut Twin)) -> Outcome {
        let before = self.clone();
        change(self);
        let grown = self.memory_bytes();
        if grown > before.memory_bytes() && self.limit.is_some_and(|limit| grown > limit) {
            *self = before;
            return Outcome::OutOfMemory;
        }
        outcome
    }

    fn write(&mut self, key: &[u8], value: &[u8], deadline_ms: Option<u64>) {
        let created = self.get(key).map_or(Index::new(self.index), |pair| pair.created);
        let version = Version { index: Index::new(self.index), op: self.changes };
        self.changes += 1;
        let pair = Pair { value: Bytes::copy_from_slice(value), version, created, deadline_ms };
        if self.is_expired(&pair) {
            self.pairs.remove(key);
        } else {
            self.pairs.insert(key.to_vec(), pair);
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        let present = self.get(key);
        self.pairs.remove(key);
        self.changes += u32::from(present.is_some());
        present
    }

    fn one(&mut self, op: &Op<'_>) -> Outcome {
        match *op {
            Op::Put { key, value, condition, deadline, want_previous } => {
                let previous = self.value(key);
                let done = self.allows(key, condition);
                let deadline_ms = match deadline {
                    Deadline::None => None,
                    Deadline::Keep => self.deadline(key),
                    Deadline::At(deadline_ms) => Some(deadline_ms),
                };
                let outcome = answer(want_previous, previous, done);
                if done { self.within_memory(outcome, |twin| twin.write(key, value, deadline_ms)) } else { outcome }
            }
            Op::Delete { ref keys } => {
                Outcome::Count(keys.iter().filter(|key| self.remove(key).is_some()).count() as u64)
            }
            Op::Take { key } => {
                let value = self.remove(key).map(|pair| pair.value);
                Outcome::Previous { done: value.is_some(), value }
            }
            Op::DeleteRange { from, to } => {
                let keys: Vec<_> = self.pairs.keys().filter(|key| is_inside(key, from, to)).cloned().collect();
                Outcome::Count(keys.iter().filter(|key| self.remove(key).is_some()).count() as u64)
            }
            Op::Increment { key, by } => {
                let text = self.value(key).map_or("0".into(), |value| String::from_utf8_lossy(&value).into_owned());
                let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
                let Some(number) = number else { return Outcome::NotAnInteger };
                let Some(number) = number.checked_add(by) else { return Outcome::Overflow };
                self.rewrite(key, number.to_string().as_bytes(), Outcome::Integer(number))
            }
            Op::IncrementDecimal { key, by } => {
                let number = match Decimal::parse(&self.value(key).unwrap_or(Bytes::from_static(b"0"))) {
                    Ok(number) => number,
                    Err(DecimalError::NotANumber) => return Outcome::NotANumber,
                    Err(DecimalError::OutOfRange) => return Outcome::Overflow,
                };
                let Some(number) = number.checked_add(by) else { return Outcome::Overflow };
                self.rewrite(key, number.to_string().as_bytes(), Outcome::Decimal(number))
            }
            Op::Append { key, value } => {
                let whole = [&self.value(key).unwrap_or_default(), value].concat();
                self.rewrite(key, &whole, Outcome::Length(whole.len() as u64))
            }
            Op::SetRange { key, offset, value } => {
                let mut whole = self.value(key).unwrap_or_default().to_vec();
                if value.is_empty() {
                    return Outcome::Length(whole.len() as u64);
                }
                if offset > VALUE_BYTES_MAX as u64 {
                    return Outcome::TooLarge;
                }
                for (at, byte) in (offset as usize..).zip(value) {
                    whole.resize(whole.len().max(at + 1), 0);
                    whole[at] = *byte;
                }
                self.rewrite(key, &whole, Outcome::Length(whole.len() as u64))
            }
            Op::PutMany { ref pairs, condition } => {
                if condition == PutManyCondition::IfNonePresent && pairs.iter().any(|(key, _)| self.get(key).is_some())
                {
                    return Outcome::NotDone;
                }
                self.within_memory(Outcome::Done, |twin| {
                    pairs.iter().for_each(|(key, value)| twin.write(key, value, None));
                })
            }
            Op::SetDeadline { key, deadline, condition, want_value } => {
                let previous = self.value(key);
                let done = previous.is_some() && allows_deadline(condition, self.deadline(key), deadline);
                let outcome = answer(want_value, previous.clone(), done);
                if let Some(value) = previous.filter(|_| done) {
                    self.write(key, &value, deadline);
                }
                outcome
            }
            Op::Copy { from, to, if_absent, remove_source } => {
                let Some(source) = self.get(from) else { return Outcome::NoSource };
                if if_absent && self.get(to).is_some() {
                    return Outcome::NotDone;
                }
                if from == to {
                    return Outcome::Done;
                }
                self.within_memory(Outcome::Done, |twin| {
                    if remove_source {
                        twin.remove(from);
                    }
                    twin.write(to, &source.value, source.deadline_ms);
                })
            }
            Op::Get { key } => Outcome::Value(self.get(key)),
            Op::Scan { from, to, limit } => {
                let inside = self.pairs.iter().filter(|(key, pair)| is_inside(key, from, to) && !self.is_expired(pair));
                let owned = inside.map(|(key, pair)| (Bytes::copy_from_slice(key), pair.clone()));
                Outcome::Pairs(owned.take(limit as usize).collect())
            }
            Op::Clear => {
                self.pairs.clear();
                self.changes += 1;
                Outcome::Done
            }
            Op::SetMemoryLimit { bytes } => {
                self.limit = bytes;
                Outcome::Done
            }
            Op::Transaction { .. } => unreachable!("not in a transaction"),
        }
    }

    /// Writes a new value and keeps the deadline.
    fn rewrite(&mut self, key: &[u8], value: &[u8], outcome: Outcome) -> Outcome {
        let deadline_ms = self.deadline(key);
        self.within_memory(outcome, |twin| twin.write(key, value, deadline_ms))
    }

    fn allows(&self, key: &[u8], condition: Condition<'_>) -> bool {
        let present = self.get(key);
        match condition {
            Condition::Always => true,
            Condition::IfAbsent => present.is_none(),
            Condition::IfPresent => present.is_some(),
            Condition::IfValue(value) => present.is_some_and(|pair| pair.value == value),
            Condition::IfVersion(version) => present.map(|pair| pair.version).unwrap_or_default() == version,
        }
    }

    fn holds(&self, compare: &Compare<'_>) -> bool {
        let present = self.get(compare.key);
        let (is, operand) = match compare.target {
            // Both sides as numbers, or as bytes that order like them.
            Target::Value(value) => match present {
                Some(pair) => (pair.value.to_vec(), value.to_vec()),
                None => return false,
            },
            Target::Version(version) => {
                let bytes =
                    |version: Version| [&version.index.get().to_be_bytes()[..], &version.op.to_be_bytes()].concat();
                (bytes(present.map(|pair| pair.version).unwrap_or_default()), bytes(version))
            }
            Target::Created(index) => {
                let bytes = |index: Index| index.get().to_be_bytes().to_vec();
                (bytes(present.map(|pair| pair.created).unwrap_or_default()), bytes(index))
            }
            Target::Present => (vec![u8::from(present.is_some())], vec![1]),
        };
        match compare.relation {
            Relation::Equal => is == operand,
            Relation::NotEqual => is != operand,
            Relation::Less => is < operand,
            Relation::Greater => is > operand,
        }
    }
}

fn answer(wanted: bool, value: Option<Bytes>, done: bool) -> Outcome {
    match (wanted, done) {
        (true, done) => Outcome::Previous { value, done },
        (false, true) => Outcome::Done,
        (false, false) => Outcome::NotDone,
    }
}

fn allows_deadline(condition: DeadlineCondition, before: Option<u64>, new: Option<u64>) -> bool {
    let never = u128::from(u64::MAX) + 1;
    let [before_ms, new_ms] = [before, new].map(|deadline| deadline.map_or(never, u128::from));
    match condition {
        DeadlineCondition::Always => true,
        DeadlineCondition::IfNone => before.is_none(),
        DeadlineCondition::IfAny => before.is_some(),
        DeadlineCondition::IfLater => new_ms > before_ms,
        DeadlineCondition::IfEarlier => new_ms < before_ms,
    }
}

fn is_inside(key: &[u8], from: &[u8], to: Option<&[u8]>) -> bool {
    key >= from && to.is_none_or(|to| key < to)
}
