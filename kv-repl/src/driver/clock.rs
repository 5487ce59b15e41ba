//! What expires does so by the replicated clock, which is that of the entries. Where no command comes, the leader appends an
//! entry that advances it, once a deadline has passed.

use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::task::Task;
use super::traits::{LogReader, StateMachine};
use crate::message::Proposal;
use crate::raft::Role;
use crate::types::kind;

/// An entry that cannot be made is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// When the leader has to see to the clock.
#[derive(Default)]
pub(crate) struct Clock {
    at: Option<Duration>,
    not_before: Duration,
}

impl Clock {
    /// When that is.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.at
    }
}

impl<S: StateMachine, R: LogReader> Task<S, R> {
    /// Appends an entry if something has expired and nothing else on the way will say so.
    pub(super) fn tick(&mut self, now: Duration) {
        self.clock.at = None;
        let is_idle = self.shared.applied() == self.raft.last().index;
        let Some(deadline_ms) = self.shared.next_deadline_ms() else { return };
        if self.raft.role() != Role::Leader || !is_idle {
            return;
        }
        let wall_clock_ms = self.host.wall_clock_ms();
        let left = Duration::from_millis(deadline_ms.saturating_sub(wall_clock_ms));
        let due_at = now.saturating_add(left).max(self.clock.not_before);
        if due_at > now {
            self.clock.at = Some(due_at);
            return;
        }
        let entry = Proposal { kind: kind::CLOCK, payload: Bytes::new() };
        if let Err(error) = self.raft.propose(now, wall_clock_ms, &[entry]) {
            debug!(?error, "the clock cannot be advanced now");
            self.clock.not_before = now + RETRY_PAUSE;
            self.clock.at = Some(self.clock.not_before);
        }
    }
}
