//! Linearizable reads on their way through the core: many callers share one question to the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::types::Index;

/// A caller that wants to know when it may read.
pub(crate) type ReadRequest = oneshot::Sender<Index>;

/// After a rejected read the leader is asked again after this, unless a new one shows up before.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Reads {
    waiting: Vec<ReadRequest>,
    asked: BTreeMap<u64, Vec<ReadRequest>>,
    next_token: u64,
    retry_at: Option<Duration>,
}

impl Reads {
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
