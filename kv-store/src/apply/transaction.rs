//! Transactions: conditions on the state before them, and ops with nothing between them.
//!
//! A transaction keeps the roots of the state it began with, which costs O(1), and goes back to them if it is undone:
//! pairs, deadlines, limit and sums are then what they were, to the last node. It cannot undo the clock, nor the removal
//! of what has expired: both are of the entry, before the transaction.

use std::cmp::Ordering;

use super::Applying;
use crate::op::{Compare, Failure, OUTCOME_BYTES_MAX, Op, Relation, TRANSACTION_VALUE_BYTES_MAX, Target};
use crate::outcome::Outcome;
use crate::pair::PairRef;

/// Bytes of a transaction's outcome beside the outcomes in it.
const HEADER_BYTES_MAX: usize = 16;

impl Applying<'_> {
    /// Whether all conditions hold.
    pub(super) fn hold(&self, conditions: &[Compare<'_>]) -> bool {
        conditions.iter().all(|compare| holds(compare, self.live(compare.key)))
    }

    pub(super) fn transaction(&mut self, held: bool, ops: &[Op<'_>], failure: Failure) -> Outcome {
        let savepoint = self.store.savepoint();
        let mut outcomes = Vec::with_capacity(ops.len());
        let mut bytes = HEADER_BYTES_MAX;
        for (number, op) in (0..).zip(ops) {
            let outcome = self.one(op);
            bytes += outcome.encoded_bytes();
            if bytes > OUTCOME_BYTES_MAX || self.value_bytes > TRANSACTION_VALUE_BYTES_MAX {
                self.store.go_back(savepoint);
                return Outcome::TooLarge;
            }
            if failure == Failure::Undo && outcome.is_failure() {
                self.store.go_back(savepoint);
                return Outcome::Failed { op: number, outcome: Box::new(outcome) };
            }
            outcomes.push(outcome);
        }
        Outcome::Transaction { held, outcomes }
    }
}

/// Whether a pair, or that there is none, stands to the operand as it should. An absent key has version 0.0 and creation
/// index 0; with its value nothing compares.
fn holds(compare: &Compare<'_>, present: Option<PairRef<'_>>) -> bool {
    let order = match compare.target {
        Target::Value(value) => present.map(|pair| pair.value[..].cmp(value)),
        Target::Version(version) => Some(present.map_or_else(Default::default, |pair| pair.version).cmp(&version)),
        Target::Created(index) => Some(present.map_or_else(Default::default, |pair| pair.created).cmp(&index)),
        Target::Present => Some(present.is_some().cmp(&true)),
    };
    order.is_some_and(|order| match compare.relation {
        Relation::Equal => order == Ordering::Equal,
        Relation::NotEqual => order != Ordering::Equal,
        Relation::Less => order == Ordering::Less,
        Relation::Greater => order == Ordering::Greater,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Version;
    use kv_wal::Index;

    /// Every target against an operand that is less, the same and greater, and against an absent key, in every relation.
    #[test]
    fn every_comparison() {
        let version = |index, op| Version { index: Index::new(index), op };
        let pair = PairRef::new(b"mm", version(5, 5), Index::new(3), None);
        let (equal, less, greater) =
            ([true, false, false, false], [false, true, true, false], [false, true, false, true]);
        let never = [false; 4];
        // What a present key gives, and what an absent one does, for Equal, NotEqual, Less, Greater.
        let table = [
            (Target::Value(b"m"), greater, never),
            (Target::Value(b"mm"), equal, never),
            (Target::Value(b"n"), less, never),
            (Target::Value(b""), greater, never),
            (Target::Version(version(5, 4)), greater, less),
            (Target::Version(version(5, 5)), equal, less),
            (Target::Version(version(6, 0)), less, less),
            (Target::Version(version(0, 0)), greater, equal),
            (Target::Created(Index::new(2)), greater, less),
            (Target::Created(Index::new(3)), equal, less),
            (Target::Created(Index::new(4)), less, less),
            (Target::Created(Index::ZERO), greater, equal),
            (Target::Present, equal, less),
        ];
        for (target, present, absent) in table {
            let relations = [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater];
            let compare = |relation| Compare { key: b"k", target, relation };
            assert_eq!(relations.map(|relation| holds(&compare(relation), Some(pair))), present, "{target:?}");
            assert_eq!(relations.map(|relation| holds(&compare(relation), None)), absent, "{target:?}, absent");
        }
    }
}
