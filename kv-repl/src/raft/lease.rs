//! Reads without a question, on the word of a clock (thesis, section 6.4.1). Off unless [`Options::lease`] is set.
//!
//! ```text
//!   leader   | round begins        | a majority has answered it        | lease ends
//!   time     t0 ------------------ t1 ------------------------------- t0 + lease
//!   voter          | hears it: votes for nobody else until election_timeout_min later
//! ```
//!
//! A voter that has heard a leader gives nobody its vote for `election_timeout_min`, unless the leader itself has told that
//! candidate to stand. So while a lease runs no other leader can be elected, provided that no clock runs so much faster than
//! another that the difference between `election_timeout_min` and `lease` is used up. A voter that has just started may
//! have heard a leader before, and waits as if it had.
//!
//! A leader that has told another node to stand for election has no lease any more, until the end of its reign: the order
//! may arrive at any time (openraft #1747).

use std::collections::VecDeque;
use std::time::Duration;

#[cfg(doc)]
use super::Options;
use super::{Raft, State};
use crate::types::Index;

#[derive(Default)]
pub(super) struct Lease {
    /// Rounds that no majority has answered yet, and when they began.
    rounds: VecDeque<(u64, Duration)>,
    /// The last round that a majority has answered began then.
    begun_at: Option<Duration>,
    is_void: bool,
}

impl Lease {
    pub(super) fn round_begins(&mut self, number: u64, now: Duration) {
        self.rounds.push_back((number, now));
    }

    /// Whether a round has not been answered by a majority yet.
    pub(super) fn is_asking(&self) -> bool {
        !self.rounds.is_empty()
    }

    pub(super) fn round_answered(&mut self, number: u64) {
        while let Some((_, begun_at)) = self.rounds.pop_front_if(|(round, _)| *round <= number) {
            self.begun_at = Some(begun_at);
        }
    }

    /// There is none any more.
    pub(super) fn void(&mut self) {
        self.is_void = true;
    }
}

impl Raft {
    /// Up to where a state must have been applied so that nothing newer was confirmed anywhere before `now`, if this node
    /// holds a lease. `now` is read from a clock that goes on while the machine is suspended.
    pub fn lease_read(&mut self, now: Duration) -> Option<Index> {
        self.see(now);
        let State::Leader(leader) = &self.state else { return None };
        let until = leader.lease.begun_at? + self.options.lease?;
        let is_held = self.now < until && !leader.lease.is_void && self.committed >= leader.first();
        is_held.then_some(self.committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lease_runs_from_the_beginning_of_the_last_round_that_was_answered() {
        let mut lease = Lease::default();
        lease.round_begins(1, MS);
        lease.round_begins(2, MS * 5);
        lease.round_begins(3, MS * 9);
        assert_eq!(lease.begun_at, None);
        lease.round_answered(2);
        assert_eq!(lease.begun_at, Some(MS * 5));
        lease.round_answered(1);
        assert_eq!(lease.begun_at, Some(MS * 5), "an older answer takes nothing away");
        lease.round_answered(3);
        assert_eq!(lease.begun_at, Some(MS * 9));
    }
}
