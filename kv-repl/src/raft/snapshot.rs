//! A follower's side of InstallSnapshot (Raft paper, section 7 and figure 13).
//!
//! The driver stores the pieces; when the file is complete, verified and durable, the core decides what becomes of the
//! log:
//!
//! | the checkpoint's last entry | log | state machine |
//! |---|---|---|
//! | is committed here | stays | stays |
//! | is in the log | stays: what follows it is kept (rule 6 of figure 13) | takes the checkpoint, when an earlier reset is durable |
//! | is not in the log, or another one is in its place | starts again after it (rule 7) | takes the checkpoint, when the reset is durable |
//!
//! If entries of the log are lost, see `damage` for what else becomes of it.
//!
//! Keeping a suffix that contradicts the checkpoint would make the follower refuse the leader for ever (hashicorp #697).
//! `Installed` is an acknowledgement like any other: it counts for commitment, so it waits for the disk.

use super::io::{Output, SnapshotProgress};
use super::{Raft, State};
use crate::message::{InstallSnapshot, InstallSnapshotReply, Message, SnapshotResult};
use crate::planted::{self, Mistake};
use crate::types::{Configuration, EntryId, Member};

impl Raft {
    pub(super) fn handle_install_snapshot(&mut self, from: Member, piece: InstallSnapshot) {
        if piece.term < self.hard_state.term {
            return self.reply_to_snapshot(from, piece.connection, piece.last, SnapshotResult::StaleTerm);
        }
        if piece.last.term > piece.term || !self.accept_leader(from, piece.term) {
            return;
        }
        let State::Follower(follower) = &mut self.state else { return };
        if piece.last.index <= self.committed {
            follower.installed_due = Some((piece.last, piece.connection));
            self.release();
        } else {
            follower.snapshot_connection = piece.connection;
            self.outputs.push_back(Output::SnapshotPiece { from, piece });
        }
    }

    /// Takes the driver's answer to [`Output::SnapshotPiece`].
    pub fn handle_snapshot(&mut self, now: std::time::Duration, from: Member, progress: SnapshotProgress) {
        self.see(now);
        // A checkpoint that was complete only after this node has stopped following is not needed: the log goes on.
        let State::Follower(follower) = &self.state else { return };
        let connection = Some(follower.snapshot_connection).filter(|_| follower.leader == Some(from));
        match progress {
            SnapshotProgress::Received { last, stamp_ms, configuration } => {
                self.stamp_ms = self.stamp_ms.max(stamp_ms);
                self.install(last, configuration, connection);
            }
            SnapshotProgress::Continue { last, offset } => {
                self.reply_if(connection, from, last, SnapshotResult::Continue { offset });
            }
            SnapshotProgress::Failed { last } => self.reply_if(connection, from, last, SnapshotResult::Failed),
        }
    }

    /// A durable checkpoint of committed entries is here. See the table above.
    fn install(&mut self, last: EntryId, configuration: Configuration, connection: Option<u64>) {
        if last.index > self.committed {
            let is_kept = self.cover_damage(last, &configuration);
            let is_kept = is_kept || planted::is(Mistake::ConflictingSuffixKept) && last.index <= self.log.last().index;
            if !is_kept {
                self.log.reset(last);
                self.configurations.reset(configuration);
                self.writes.reset(last);
            }
            self.restore = Some(last);
            self.committed = last.index;
            self.handed_out = last.index;
        }
        if let State::Follower(follower) = &mut self.state {
            follower.installed_due = connection.map(|connection| (last, connection));
        }
        self.release();
    }

    /// Reports a checkpoint as installed when everything up to its end is durable.
    pub(super) fn release_installed(&mut self) {
        let is_durable = self.writes.is_reset_durable() && self.restore.is_none();
        let State::Follower(follower) = &mut self.state else { return };
        let (Some(leader), Some((last, connection))) = (follower.leader, follower.installed_due) else { return };
        if is_durable && self.writes.durable() >= last.index {
            follower.installed_due = None;
            self.reply_to_snapshot(leader, connection, last, SnapshotResult::Installed);
        }
    }

    fn reply_if(&mut self, connection: Option<u64>, to: Member, last: EntryId, result: SnapshotResult) {
        if let Some(connection) = connection {
            self.reply_to_snapshot(to, connection, last, result);
        }
    }

    fn reply_to_snapshot(&mut self, to: Member, connection: u64, last: EntryId, result: SnapshotResult) {
        let reply = InstallSnapshotReply { term: self.hard_state.term, connection, last, result };
        self.send(to, Message::InstallSnapshotReply(reply));
    }
}
