//! What a leader knows of one follower's log, and how it feeds it.
//!
//! ```text
//!            Durable                       a Mismatch, a new connection
//!   Probe -------------> Replicate ------------------------------------> Probe
//!     |                      |
//!     | next_index <= base   | next_index <= base, or the log says Gone
//!     v                      v
//!   Snapshot --------------> Replicate    when the follower holds enough for the log to go on from
//! ```
//!
//! *Probe* looks for the last common entry with one message at a time. *Replicate* sends ahead of the answers
//! (`next_index` is optimistic), a bounded number of messages. *Snapshot* moves a checkpoint piece by piece.
//!
//! `match_index` counts for commitment, so it rises only by what the follower says is durable, in this term and on this
//! connection. It falls if a follower refuses twice what it once acknowledged: then it has lost its log, which Raft does
//! not allow for, but it must neither bring the leader down nor go unhelped (etcd #10166). What has been committed stays
//! committed.

use std::collections::VecDeque;
use std::time::Duration;

use super::log::Log;
use super::options::Options;
use crate::types::{EntryId, Index};

/// One other member, as the leader sees it.
pub(super) struct Peer {
    /// The follower's log equals the leader's up to here, durably.
    pub(super) match_index: Index,
    /// The next entry to send.
    pub(super) next_index: Index,
    pub(super) progress: Progress,
    /// The connection to it, while there is one.
    pub(super) connection: Option<u64>,
    /// When it was last heard.
    pub(super) heard_at: Duration,
    /// The last round it answered.
    pub(super) answered_round: u64,
    /// Round and commit index of the last message sent.
    pub(super) told_round: u64,
    pub(super) told_committed: Index,
    catch_up: CatchUp,
}

/// Whether a follower keeps up with the log, in rounds: each ends when the follower has what the log held at its beginning
/// (thesis, section 4.2.1). When it has all, the next round begins with the next thing it is sent.
struct CatchUp {
    /// What the follower must have for the present round to end; what it has, between two rounds.
    goal: Index,
    since: Duration,
    /// The last round took no longer than an election may.
    is_done: bool,
}

impl CatchUp {
    /// Entries up to `last` have been sent to a follower that has all up to `matched`.
    fn sent(&mut self, matched: Index, last: Index, now: Duration) {
        if matched >= self.goal && last > matched {
            (self.goal, self.since) = (last, now);
        }
    }

    /// The follower has all up to `matched` now, of a log that ends at `last`. A round that began before `timely` took too
    /// long.
    fn acknowledged(&mut self, matched: Index, last: Index, now: Duration, timely: Duration) {
        if matched >= self.goal {
            let is_done = matched == last || self.since >= timely;
            *self = CatchUp { goal: last, since: now, is_done };
        }
    }
}

pub(super) enum Progress {
    Probe {
        /// Whether the question at `next_index` has been sent.
        is_sent: bool,
    },
    Replicate {
        /// Last index of each message with entries that has not been acknowledged.
        in_flight: VecDeque<Index>,
        /// Token of the outstanding read of old entries, and the first of them.
        reading: Option<(u64, Index)>,
    },
    Snapshot {
        /// The last entry that the log could not give when this began. The log may reach back further and have a hole
        /// there, so it is not enough to look at its base.
        needed: Index,
        /// Checkpoint and offset that the follower wants next.
        wanted: Option<(EntryId, u64)>,
        /// When a piece is sent, or sent again.
        send_at: Duration,
    },
}

impl Peer {
    /// A peer whose log is taken to be as long as the leader's, which ends at `last`.
    pub(super) fn new(last: Index, connection: Option<u64>, now: Duration) -> Peer {
        Peer {
            match_index: Index::ZERO,
            next_index: last.next(),
            progress: Progress::Probe { is_sent: false },
            connection,
            heard_at: now,
            answered_round: 0,
            told_round: 0,
            told_committed: Index::ZERO,
            catch_up: CatchUp { goal: last, since: now, is_done: false },
        }
    }

    /// There is a new connection, or none: what was in flight may be lost, so ask where the follower stands.
    pub(super) fn reconnect(&mut self, connection: Option<u64>, last: Index) {
        self.connection = connection;
        self.told_round = 0;
        self.catch_up.is_done = false;
        self.probe(last.next());
    }

    /// Whether there is a connection to it, and it has answered lately.
    pub(super) fn is_heard(&self, now: Duration, options: &Options) -> bool {
        self.connection.is_some() && now < self.heard_at + options.election_timeout_max
    }

    /// Whether it keeps up with the log, so that it can be counted on. A round that began before `timely` takes too long:
    /// one whose disk hangs answers, and acknowledges nothing.
    pub(super) fn has_caught_up(&self, timely: Duration) -> bool {
        let CatchUp { goal, since, is_done } = self.catch_up;
        is_done && (self.match_index >= goal || since >= timely)
    }

    /// It has acknowledged something, and the leader's log ends at `last`.
    pub(super) fn advance_catch_up(&mut self, last: Index, now: Duration, timely: Duration) {
        self.catch_up.acknowledged(self.match_index, last, now, timely);
    }

    fn probe(&mut self, next: Index) {
        self.next_index = next;
        self.progress = Progress::Probe { is_sent: false };
    }

    fn replicate(&mut self, next: Index) {
        self.next_index = next;
        self.progress = Progress::Replicate { in_flight: VecDeque::new(), reading: None };
    }

    /// The log cannot give the entries up to `index`, which the follower lacks. The first piece leaves `at`: a moment later,
    /// so that a follower that a checkpoint does not help is not sent one after the other without a pause.
    pub(super) fn need_snapshot(&mut self, index: Index, at: Duration) {
        if let Progress::Snapshot { needed, .. } = &mut self.progress {
            *needed = index.max(*needed);
        } else {
            self.progress = Progress::Snapshot { needed: index, wanted: None, send_at: at };
            self.catch_up.sent(self.match_index, index, at);
        }
    }

    /// What the follower was sent did not help it, or not far enough: begins again with the newest checkpoint.
    pub(super) fn restart_snapshot(&mut self, at: Duration) {
        if let Progress::Snapshot { wanted, send_at, .. } = &mut self.progress {
            (*wanted, *send_at) = (None, at);
        }
    }

    /// The follower says that its log is durable, and the leader's, up to `index`. Ignored if the leader's does not go
    /// that far: then it is not true.
    pub(super) fn acknowledged(&mut self, index: Index, log: &Log) {
        if index > log.last().index {
            return;
        }
        self.match_index = self.match_index.max(index);
        let given_from = match &self.progress {
            Progress::Snapshot { needed, .. } => log.base().index.max(*needed),
            Progress::Probe { .. } | Progress::Replicate { .. } => log.base().index,
        };
        match &mut self.progress {
            Progress::Replicate { in_flight, .. } => {
                while in_flight.front().is_some_and(|last| *last <= index) {
                    in_flight.pop_front();
                }
                self.next_index = self.next_index.max(index.next());
            }
            Progress::Probe { .. } | Progress::Snapshot { .. } => {
                self.next_index = self.next_index.max(self.match_index.next());
                if self.match_index >= given_from {
                    self.replicate(self.match_index.next());
                }
            }
        }
    }

    /// The follower refused entries after `refused`; its log can agree with the leader's up to `hint` at most.
    pub(super) fn refused(&mut self, refused: Index, hint: EntryId, log: &Log) {
        if refused == Index::ZERO {
            return;
        }
        let bound = EntryId::new(hint.term, hint.index.min(refused.prev()));
        // `None`: the common entry is before the base, which needs a snapshot.
        let next = log.last_within(bound).map_or(log.base().index, |common| common.index.next());
        match self.progress {
            Progress::Probe { .. } if refused == self.next_index.prev() => {
                self.match_index = self.match_index.min(next.prev());
                self.probe(next);
            }
            Progress::Replicate { .. } => self.probe(next.max(self.match_index.next())),
            // An answer to an older question.
            Progress::Probe { .. } | Progress::Snapshot { .. } => {}
        }
    }

    /// The follower has stored a checkpoint that ends with `last` up to `offset`.
    pub(super) fn snapshot_wanted(&mut self, last: EntryId, offset: u64, now: Duration) {
        if let Progress::Snapshot { wanted, send_at, .. } = &mut self.progress {
            // The same answer again comes from a repeated piece; to send the next one for each would never end.
            if *wanted != Some((last, offset)) {
                *wanted = Some((last, offset));
                *send_at = now;
            }
        }
    }

    /// What the follower holds, or will when the checkpoint that it is being sent has arrived. It needs all after that.
    pub(super) fn holds(&self) -> Index {
        match self.progress {
            Progress::Snapshot { wanted: Some((last, _)), .. } => last.index,
            // It will be sent the newest checkpoint, beyond which the log is never truncated.
            Progress::Snapshot { wanted: None, .. } => Index::new(u64::MAX),
            Progress::Probe { .. } | Progress::Replicate { .. } => self.match_index,
        }
    }

    /// Whether an entry of the leader's can be sent now, and from where it would come.
    pub(super) fn has_window(&self, messages_max: usize) -> bool {
        match &self.progress {
            Progress::Probe { is_sent } => !is_sent,
            Progress::Replicate { in_flight, reading } => reading.is_none() && in_flight.len() < messages_max,
            Progress::Snapshot { .. } => false,
        }
    }

    /// Entries up to `last` have been sent after `next_index`.
    pub(super) fn sent(&mut self, last: Index, now: Duration) {
        self.catch_up.sent(self.match_index, last, now);
        match &mut self.progress {
            Progress::Probe { is_sent } => *is_sent = true,
            Progress::Replicate { in_flight, .. } => {
                in_flight.push_back(last);
                self.next_index = last.next();
            }
            Progress::Snapshot { .. } => unreachable!("no entries are sent while a snapshot is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::tests::{entries, id, index};

    const NOW: Duration = Duration::ZERO;

    /// Terms 1 1 1 2 2 2 3 3 3, a leader's log.
    fn log() -> Log {
        let mut log = Log::new(EntryId::ZERO, Vec::new(), Index::ZERO);
        log.append([entries(1, 1..=3), entries(2, 4..=6), entries(3, 7..=9)].concat().into());
        log.take_unwritten();
        log
    }

    fn replicating(match_index: u64) -> Peer {
        let mut peer = Peer::new(index(9), Some(1), NOW);
        peer.acknowledged(index(match_index), &log());
        peer
    }

    #[test]
    fn the_search_skips_whole_terms() {
        let mut peer = Peer::new(index(9), Some(1), NOW);
        assert_eq!(peer.next_index, index(10));
        peer.refused(index(9), id(1, 9), &log());
        assert_eq!(peer.next_index, index(4), "nothing of terms 2 and 3 can be in that log");
        peer.refused(index(3), id(0, 0), &log());
        assert_eq!(peer.next_index, index(1));
    }

    #[test]
    fn an_old_refusal_does_not_move_a_probe() {
        let mut peer = Peer::new(index(9), Some(1), NOW);
        peer.refused(index(5), id(1, 2), &log());
        assert_eq!(peer.next_index, index(10));
    }

    #[test]
    fn a_refusal_always_moves_the_probe_down() {
        let mut peer = Peer::new(index(9), Some(1), NOW);
        for refused in (1..=9).rev() {
            assert_eq!(peer.next_index.prev(), index(refused));
            peer.refused(index(refused), id(3, refused), &log());
        }
        assert_eq!(peer.next_index, index(1), "even if what the peer says makes no sense");
        peer.refused(index(0), id(3, 9), &log());
        assert_eq!(peer.next_index, index(1));
    }

    #[test]
    fn an_acknowledgement_beyond_the_log_is_ignored() {
        let mut peer = replicating(4);
        peer.acknowledged(index(10), &log());
        assert_eq!((peer.match_index, peer.next_index), (index(4), index(5)));
    }

    #[test]
    fn an_old_acknowledgement_changes_nothing() {
        let mut peer = replicating(6);
        peer.sent(index(9), NOW);
        peer.acknowledged(index(5), &log());
        assert_eq!((peer.match_index, peer.next_index), (index(6), index(10)));
    }

    #[test]
    fn one_acknowledgement_frees_all_messages_before_it() {
        let mut peer = replicating(2);
        for last in [4, 6, 9] {
            assert!(peer.has_window(3));
            peer.sent(index(last), NOW);
        }
        assert!(!peer.has_window(3));
        peer.acknowledged(index(6), &log());
        assert!(peer.has_window(2));
    }

    /// Its disk hangs after entry 6, and then works again.
    #[test]
    fn whoever_acknowledges_nothing_has_not_caught_up_for_long() {
        let (mut peer, at) = (Peer::new(index(6), Some(1), NOW), Duration::from_secs);
        peer.acknowledged(index(6), &log());
        peer.advance_catch_up(index(6), at(0), at(0));
        assert!(peer.has_caught_up(at(99)), "it has all there is, for however long");
        peer.sent(index(7), at(100));
        peer.sent(index(9), at(101));
        assert!(peer.has_caught_up(at(100)), "it is given time");
        assert!(!peer.has_caught_up(at(101)));
        peer.acknowledged(index(7), &log());
        peer.advance_catch_up(index(9), at(110), at(109));
        assert!(!peer.has_caught_up(at(109)), "that took long, and more waits");
        peer.acknowledged(index(9), &log());
        peer.advance_catch_up(index(9), at(111), at(110));
        assert!(peer.has_caught_up(at(999)));
    }

    #[test]
    fn what_was_acknowledged_is_given_up_only_when_refused_twice() {
        let mut peer = replicating(9);
        peer.refused(index(9), id(1, 2), &log());
        assert_eq!((peer.match_index, peer.next_index), (index(9), index(10)), "it may be an old message: ask again");
        peer.refused(index(9), id(1, 2), &log());
        assert_eq!((peer.match_index, peer.next_index), (index(2), index(3)), "the log is lost: begin again");
    }

    #[test]
    fn what_is_given_up_ends_before_the_next_entry() {
        let mut peer = replicating(9);
        peer.refused(index(9), id(1, 5), &log());
        peer.refused(index(9), id(1, 5), &log());
        assert_eq!((peer.match_index, peer.next_index), (index(3), index(4)), "entry 4 of that log is of another term");
    }

    #[test]
    fn a_peer_behind_the_base_gets_to_the_base() {
        let mut log = log();
        log.truncate_prefix(id(2, 5));
        let mut peer = Peer::new(index(9), Some(1), NOW);
        peer.refused(index(9), id(1, 3), &log);
        assert!(peer.next_index <= log.base().index, "which calls for a snapshot");
    }

    #[test]
    fn a_snapshot_ends_when_the_log_can_go_on() {
        let mut log = log();
        log.truncate_prefix(id(2, 5));
        let mut peer = Peer::new(index(9), Some(1), NOW);
        peer.need_snapshot(index(5), NOW);
        peer.acknowledged(index(4), &log);
        assert!(matches!(peer.progress, Progress::Snapshot { .. }), "entry 5 is not in the log any more");
        peer.acknowledged(index(5), &log);
        assert!(matches!(peer.progress, Progress::Replicate { .. }));
        assert_eq!(peer.next_index, index(6));
    }

    #[test]
    fn a_repeated_answer_does_not_send_a_piece_again() {
        let mut peer = Peer::new(index(9), Some(1), NOW);
        peer.need_snapshot(index(5), NOW);
        peer.snapshot_wanted(id(2, 5), 100, NOW);
        let later = Duration::from_secs(5);
        if let Progress::Snapshot { send_at, .. } = &mut peer.progress {
            *send_at = later;
        }
        peer.snapshot_wanted(id(2, 5), 100, NOW);
        assert!(matches!(peer.progress, Progress::Snapshot { send_at, .. } if send_at == later));
    }
}
