//! Deadlines of pairs that are there.
//!
//! Whether a deadline is set, if the pair is present; none at all counts as later than every deadline:
//!
//! | condition | has none | has an earlier one | has the same | has a later one |
//! |---|---|---|---|---|
//! | `Always` | yes | yes | yes | yes |
//! | `IfNone` | yes | no | no | no |
//! | `IfAny` | no | yes | yes | yes |
//! | `IfLater` | no | yes | no | no |
//! | `IfEarlier` | if the new one is one | no | no | yes |

use std::cmp::Ordering;

use super::{Applying, Draft};
use crate::op::DeadlineCondition;
use crate::outcome::Outcome;

impl Applying<'_> {
    pub(super) fn set_deadline(
        &mut self,
        key: &[u8],
        deadline: Option<u64>,
        condition: DeadlineCondition,
        want_value: bool,
    ) -> Outcome {
        let present = self.live(key);
        let done = present.is_some_and(|pair| holds(condition, pair.deadline_ms, deadline));
        let outcome = match (want_value, done) {
            (true, done) => Outcome::Previous { value: present.map(|pair| pair.value_bytes()), done },
            (false, true) => Outcome::Done,
            (false, false) => Outcome::NotDone,
        };
        match present.filter(|_| done) {
            Some(pair) => {
                let draft = Draft::over(present, pair.value.to_vec()).with_deadline(deadline);
                self.write_and(key, draft, outcome)
            }
            None => outcome,
        }
    }
}

/// The table above.
fn holds(condition: DeadlineCondition, before: Option<u64>, new: Option<u64>) -> bool {
    match condition {
        DeadlineCondition::Always => true,
        DeadlineCondition::IfNone => before.is_none(),
        DeadlineCondition::IfAny => before.is_some(),
        DeadlineCondition::IfLater => order(new, before).is_gt(),
        DeadlineCondition::IfEarlier => order(new, before).is_lt(),
    }
}

/// Of two deadlines, with none as the last.
fn order(a: Option<u64>, b: Option<u64>) -> Ordering {
    (a.is_none(), a).cmp(&(b.is_none(), b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_on_every_pair_of_deadlines() {
        use DeadlineCondition::{Always, IfAny, IfEarlier, IfLater, IfNone};
        // The columns: before and new.
        let deadlines = [
            (None, None),
            (None, Some(5)),
            (Some(5), None),
            (Some(4), Some(5)),
            (Some(5), Some(5)),
            (Some(6), Some(5)),
        ];
        let table = [
            (Always, [true, true, true, true, true, true]),
            (IfNone, [true, true, false, false, false, false]),
            (IfAny, [false, false, true, true, true, true]),
            (IfLater, [false, false, true, true, false, false]),
            (IfEarlier, [false, true, false, false, false, true]),
        ];
        for (condition, expected) in table {
            assert_eq!(deadlines.map(|(before, new)| holds(condition, before, new)), expected, "{condition:?}");
        }
        assert!(holds(IfEarlier, None, Some(u64::MAX)), "the last deadline is before none");
    }
}
