//! What can be set, and which settings make sense together.

use std::time::Duration;

use thiserror::Error;

use crate::message::PROPOSAL_BYTES_MAX;

/// Settings of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A follower that hears nothing from a leader for a time drawn anew between this and `election_timeout_max`
    /// campaigns. One that heard from a leader within this time refuses pre-votes.
    pub election_timeout_min: Duration,
    /// See `election_timeout_min`. A leader that hears nothing from a majority for this long steps down.
    pub election_timeout_max: Duration,
    /// How often a leader says that it is alive.
    pub heartbeat_interval: Duration,
    /// AppendEntries with entries on their way to one follower, at most.
    pub inflight_messages_max: usize,
    /// Bytes of entries in one AppendEntries, at most [`PROPOSAL_BYTES_MAX`]. One entry is sent however large it is.
    pub message_bytes_max: usize,
    /// Bytes of recent entries kept in memory to feed followers from. Entries that are not durable or not committed are
    /// kept beyond that.
    pub tail_bytes_max: usize,
    /// Bytes of entries that a leader takes before they are committed and durable in its own log; beyond it proposals are
    /// refused, unless nothing waits.
    pub uncommitted_bytes_max: usize,
    /// A node whose disk has had a write for this long does not campaign, and does not lead if others commit without it.
    pub write_stall_max: Duration,
    /// For how long a leader that a majority has answered may answer reads without asking it again; see
    /// [`Raft::lease_read`](super::Raft::lease_read). Below `election_timeout_min`, by more than the clocks of two nodes can
    /// drift apart in that time, or reads may be stale. To be set
    /// on all nodes before any is asked for such a read. `None`, the default: no lease, and no trust in clocks.
    pub lease: Option<Duration>,
    /// Seed of the election timeouts and of the numbers that questions to a leader carry. Another one at each start of a
    /// node, so that a late answer to the process before is recognised. The node's identity is mixed in.
    pub seed: u64,
}

/// Settings that contradict each other. For whoever wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionsError {
    /// The times must grow from the first to the last, and none be zero.
    #[error(
        "0 < heartbeat_interval ({heartbeat_interval:?}) < election_timeout_min ({election_timeout_min:?}) < \
         election_timeout_max ({election_timeout_max:?}) does not hold"
    )]
    Times {
        /// As given.
        heartbeat_interval: Duration,
        /// As given.
        election_timeout_min: Duration,
        /// As given.
        election_timeout_max: Duration,
    },
    /// A lease must have ended before another leader can be elected.
    #[error("lease ({lease:?}) is not below election_timeout_min ({election_timeout_min:?})")]
    Lease {
        /// As given.
        lease: Duration,
        /// As given.
        election_timeout_min: Duration,
    },
    /// Messages would not fit in a frame.
    #[error("message_bytes_max ({bytes}) is above the limit of {PROPOSAL_BYTES_MAX}")]
    MessageBytes {
        /// As given.
        bytes: usize,
    },
    /// With this at zero nothing could ever be sent or proposed.
    #[error("{name} must not be zero")]
    Zero {
        /// Name of the setting.
        name: &'static str,
    },
}

impl Default for Options {
    fn default() -> Options {
        Options {
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_secs(1),
            heartbeat_interval: Duration::from_millis(100),
            inflight_messages_max: 32,
            message_bytes_max: 1 << 20,
            tail_bytes_max: 16 << 20,
            uncommitted_bytes_max: 64 << 20,
            write_stall_max: Duration::from_secs(5),
            lease: None,
            seed: 0,
        }
    }
}

impl Options {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    ///
    /// Which ones don't.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let times = [Duration::ZERO, self.heartbeat_interval, self.election_timeout_min, self.election_timeout_max];
        if !times.is_sorted_by(|earlier, later| earlier < later) {
            return Err(OptionsError::Times {
                heartbeat_interval: self.heartbeat_interval,
                election_timeout_min: self.election_timeout_min,
                election_timeout_max: self.election_timeout_max,
            });
        }
        if let Some(lease) = self.lease.filter(|lease| *lease >= self.election_timeout_min) {
            return Err(OptionsError::Lease { lease, election_timeout_min: self.election_timeout_min });
        }
        if self.message_bytes_max > PROPOSAL_BYTES_MAX {
            return Err(OptionsError::MessageBytes { bytes: self.message_bytes_max });
        }
        let limits = [
            ("inflight_messages_max", self.inflight_messages_max),
            ("message_bytes_max", self.message_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("write_stall_max", self.write_stall_max.as_nanos() as usize),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((name, _)) => Err(OptionsError::Zero { name }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Options::default().validate(), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        let equal = Options { election_timeout_max: Duration::from_millis(500), ..Options::default() };
        assert!(matches!(equal.validate(), Err(OptionsError::Times { .. })), "elections would be split for ever");
        let slow = Options { heartbeat_interval: Duration::from_millis(600), ..Options::default() };
        assert!(matches!(slow.validate(), Err(OptionsError::Times { .. })));
        let lease = Some(Duration::from_millis(500));
        assert!(matches!(Options { lease, ..Options::default() }.validate(), Err(OptionsError::Lease { .. })));
        let long = Options { message_bytes_max: 40 << 20, ..Options::default() };
        assert_eq!(long.validate(), Err(OptionsError::MessageBytes { bytes: 40 << 20 }));
        let mute = Options { inflight_messages_max: 0, ..Options::default() };
        assert_eq!(mute.validate(), Err(OptionsError::Zero { name: "inflight_messages_max" }));
    }
}
