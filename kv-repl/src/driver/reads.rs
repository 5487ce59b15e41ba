//! Linearizable reads on their way through the core: many callers share one question to the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::types::Index;

/// A caller that wants to know when it may read.
pub(crate) type ReadRequest = oneshot::Sender<Index>;

/// After a rejected read the leader is asked again after this, unless a new one shows up before.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Callers taken from the queue before there is a leader to ask; more wait in the queue, which is bounded.
const WAITING_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Reads {
    waiting: Vec<ReadRequest>,
    asked: BTreeMap<u64, Vec<ReadRequest>>,
    next_token: u64,
    retry_at: Option<Duration>,
}

impl Reads {
    /// Whether more callers may be added. Those that have given up make room.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|request| !request.is_closed());
        }
        self.waiting.len() < WAITING_MAX
    }

    /// More callers.
    pub(crate) fn add(&mut self, requests: impl Iterator<Item = ReadRequest>) {
        self.waiting.extend(requests);
    }

    /// A token to ask the core with on behalf of everybody who waits; `None` if nobody does, or it is too early.
    ///
    /// A caller is never added to a question that has been asked already: its read might have to see a write that was
    /// confirmed in between.
    pub(crate) fn ask(&mut self, now: Duration, leader_known: bool) -> Option<u64> {
        if self.waiting.is_empty() || !leader_known || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.waiting.retain(|request| !request.is_closed());
        if self.waiting.is_empty() {
            return None;
        }
        self.next_token += 1;
        self.asked.insert(self.next_token, std::mem::take(&mut self.waiting));
        Some(self.next_token)
    }

    /// Whether somebody has not been asked for.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those for whom nobody has been asked.
    pub(crate) fn take_waiting(&mut self) -> impl Iterator<Item = ReadRequest> {
        self.waiting.drain(..)
    }

    /// The core has answered: who asked.
    pub(crate) fn answered(&mut self, token: u64) -> Vec<ReadRequest> {
        self.asked.remove(&token).unwrap_or_default()
    }

    /// The core could not answer: the callers go on waiting. A read changes nothing, so asking again is safe.
    pub(crate) fn rejected(&mut self, now: Duration, token: u64) {
        let callers = self.answered(token);
        self.waiting.extend(callers);
        self.retry_at = Some(now + RETRY_PAUSE);
    }

    /// There is a new leader: no reason to pause.
    pub(crate) fn leader_changed(&mut self) {
        self.retry_at = None;
    }

    /// When to ask again.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.retry_at.filter(|_| !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_leader_callers_gather_up_to_a_limit_and_those_that_give_up_make_room() {
        let mut reads = Reads::default();
        let mut patient = Vec::new();
        while reads.has_room() {
            let (request, answer) = oneshot::channel();
            reads.add(std::iter::once(request));
            patient.push(answer);
            assert!(patient.len() <= WAITING_MAX);
            assert_eq!(reads.ask(Duration::ZERO, false), None);
        }
        patient.truncate(10);
        assert!(reads.has_room());
        assert!(reads.ask(Duration::ZERO, true).is_some());
        assert_eq!(reads.answered(1).len(), 10);
    }
}
