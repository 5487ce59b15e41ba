//! The thread that moves checkpoints between nodes, piece by piece.
//!
//! One piece is on its way at a time to each follower: the follower answers with the offset it wants next, so a lost
//! piece or a broken connection costs that piece only. The sender keeps the file open until the last piece has left, so
//! that a checkpoint that is replaced meanwhile can still be finished, and no longer, nor when this node leads no more, so that
//! its disk space is freed.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::checkpoints::{Checkpoints, Incoming, Outgoing};
use super::replicated::Replicated;
use super::shared::Shared;
use super::task::Own;
use super::threads;
use super::traits::StateMachine;
use crate::message::{InstallSnapshot, Message};
use crate::raft::{SendSnapshot, SnapshotProgress};
use crate::types::{EntryId, Member};

/// Bytes of a checkpoint in one message.
const PIECE_BYTES: usize = 1 << 20;

/// Work for the thread.
pub(crate) enum SnapshotTask {
    /// Send a piece to a follower.
    Send(SendSnapshot),
    /// A follower could not use the checkpoint that ends here.
    Verify(EntryId),
    /// This node does not lead any more: nothing is asked for again.
    Stop,
    /// Store a piece from the leader.
    Piece { from: Member, piece: InstallSnapshot },
}

/// Does what is asked.
pub(crate) struct Mover<S: StateMachine> {
    checkpoints: Checkpoints,
    shared: Arc<Shared<S>>,
    received: Sender<Box<Replicated<S>>>,
    core: UnboundedSender<Own>,
    outgoing: BTreeMap<Member, Outgoing>,
    /// A checkpoint that was doubted and found whole.
    verified: Option<EntryId>,
    incoming: Option<Incoming>,
}

/// Starts the thread. It ends when the sender is dropped. With each [`SnapshotProgress::Received`] comes the state itself
/// through `received`.
pub(crate) fn spawn<S: StateMachine>(
    checkpoints: Checkpoints,
    shared: Arc<Shared<S>>,
    received: Sender<Box<Replicated<S>>>,
    core: UnboundedSender<Own>,
) -> std::io::Result<(Sender<SnapshotTask>, JoinHandle<()>)> {
    let (sender, receiver): (_, Receiver<SnapshotTask>) = channel();
    let mut mover = Mover::new(checkpoints, shared, received, core.clone());
    let thread = threads::spawn("snapshot", core, move || {
        while let Ok(task) = receiver.recv() {
            mover.work(task);
        }
        Ok(())
    })?;
    Ok((sender, thread))
}

impl<S: StateMachine> Mover<S> {
    pub(crate) fn new(
        checkpoints: Checkpoints,
        shared: Arc<Shared<S>>,
        received: Sender<Box<Replicated<S>>>,
        core: UnboundedSender<Own>,
    ) -> Self {
        let outgoing = BTreeMap::new();
        Mover { checkpoints, shared, received, core, outgoing, verified: None, incoming: None }
    }

    pub(crate) fn work(&mut self, task: SnapshotTask) {
        match task {
            SnapshotTask::Send(request) => self.send(&request),
            SnapshotTask::Verify(last) => self.verify(last),
            SnapshotTask::Stop => self.outgoing.clear(),
            SnapshotTask::Piece { from, piece } => self.take(from, piece),
        }
    }

    fn send(&mut self, request: &SendSnapshot) {
        let piece = self.piece_for(request);
        match piece {
            Ok(Some(piece)) => {
                // The core may have ended first.
                let _ = self.core.send(Own::Send { to: request.to, message: Message::InstallSnapshot(piece) });
            }
            Ok(None) => {
                warn!(to = %request.to, needed = %request.needed, "a follower needs a checkpoint, and a newer one than there is");
                // The core may have ended first.
                let _ = self.core.send(Own::CheckpointWanted { needed: request.needed });
            }
            Err(error) => {
                warn!(to = %request.to, %error, "a checkpoint could not be read for a follower; it is tried again");
                // If the disk cannot read it the one before is next.
                let newest = || self.checkpoints.list().ok()?.first().copied();
                let last = request.wanted.map(|(last, _)| last).or_else(newest);
                last.into_iter().for_each(|last| self.verify(last));
            }
        }
    }

    fn piece_for(&mut self, request: &SendSnapshot) -> std::io::Result<Option<InstallSnapshot>> {
        let (open, offset, bytes) = match self.wanted(request)? {
            Some((open, offset)) => (open, offset, PIECE_BYTES),
            None => {
                let newest = self.checkpoints.open_newest()?;
                let Some(open) = newest.filter(|open| open.last.index >= request.needed) else { return Ok(None) };
                info!(to = %request.to, last = %open.last, file_bytes = open.file_bytes, "sending a checkpoint");
                (open, 0, 0)
            }
        };
        let mut data = vec![0; bytes.min(open.file_bytes.saturating_sub(offset) as usize)];
        open.file.read_exact_at(&mut data, offset)?;
        let piece = InstallSnapshot {
            term: request.term,
            connection: request.connection,
            last: open.last,
            file_bytes: open.file_bytes,
            offset,
            data: Bytes::from(data),
        };
        if offset + (piece.data.len() as u64) < open.file_bytes {
            // What it was with another disk it does not ask for any more.
            self.outgoing.retain(|to, _| to.id != request.to.id);
            self.outgoing.insert(request.to, open);
        }
        Ok(Some(piece))
    }

    /// The file and offset that a follower wants next, if it wants one that is still there.
    fn wanted(&mut self, request: &SendSnapshot) -> std::io::Result<Option<(Outgoing, u64)>> {
        let open = self.outgoing.remove(&request.to);
        let Some((last, offset)) = request.wanted else { return Ok(None) };
        match open.filter(|open| open.last == last) {
            Some(open) => Ok(Some((open, offset))),
            // The last piece was lost on the way.
            None => Ok(self.checkpoints.open_if_there(last)?.map(|open| (open, offset))),
        }
    }

    /// Reads the whole file, so a follower that refuses it again and again, for a trouble of its own, is believed once.
    fn verify(&mut self, last: EntryId) {
        if self.verified == Some(last) {
            return;
        }
        match self.checkpoints.verify::<S>(last) {
            Ok(()) => self.verified = Some(last),
            Err(error) => {
                warn!(%last, %error, "a checkpoint that a follower refused is not sent any more");
                self.outgoing.retain(|_, open| open.last != last);
            }
        }
    }

    fn take(&mut self, from: Member, piece: InstallSnapshot) {
        let last = piece.last;
        let progress = self.store(piece).unwrap_or_else(|error| {
            warn!(%from, %last, %error, "a received checkpoint is refused; it is asked for again");
            self.incoming = None;
            SnapshotProgress::Failed { last }
        });
        // The core may have ended first.
        let _ = self.core.send(Own::Snapshot { from, progress });
    }

    fn store(&mut self, piece: InstallSnapshot) -> std::io::Result<SnapshotProgress> {
        let same = |incoming: &Incoming| incoming.is_for(piece.last, piece.file_bytes);
        if !self.incoming.as_ref().is_some_and(same) {
            self.incoming = Some(self.checkpoints.receive(piece.last, piece.file_bytes)?);
        }
        let incoming = self.incoming.as_mut().expect("just made sure");
        incoming.take(piece.offset, &piece.data)?;
        if !incoming.is_complete() {
            return Ok(SnapshotProgress::Continue { last: piece.last, offset: incoming.held_bytes() });
        }
        let complete = self.incoming.take().expect("just looked at");
        let state = self.checkpoints.accept(complete)?;
        self.checkpoints.prune(self.shared.applied())?;
        let (stamp_ms, configuration) = (state.stamp_ms(), state.configuration().clone());
        // The core may have ended first.
        let _ = self.received.send(Box::new(state));
        Ok(SnapshotProgress::Received { last: piece.last, stamp_ms, configuration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::host::RealHost;
    use crate::driver::testing::{Counter, state_at};
    use crate::types::{Incarnation, Index, NodeId, Term};

    const LEADER: Member = Member::new(NodeId::new(2), Incarnation::new(1));
    const FOLLOWER: Member = Member::new(NodeId::new(3), Incarnation::new(1));

    const REQUEST: SendSnapshot =
        SendSnapshot { to: FOLLOWER, term: Term::new(1), connection: 1, wanted: None, needed: Index::ZERO };

    fn write(checkpoints: &Checkpoints, applied: u64) {
        let state = state_at(applied);
        checkpoints.write::<Counter>(&state.machine.view(), &state.checkpoint_meta()).expect("written");
    }

    /// The file of a checkpoint of `applied` entries, as a leader sends it.
    fn whole(applied: u64) -> InstallSnapshot {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        write(&checkpoints, applied);
        let Outgoing { last, file_bytes, file } = checkpoints.open_newest().expect("readable").expect("just written");
        let mut data = vec![0; file_bytes as usize];
        file.read_exact_at(&mut data, 0).expect("readable");
        InstallSnapshot { term: Term::new(1), connection: 1, last, file_bytes, offset: 0, data: Bytes::from(data) }
    }

    #[test]
    fn each_received_state_comes_with_its_event() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (core, mut events) = tokio::sync::mpsc::unbounded_channel();
        let (received, states) = channel();
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let (tasks, thread) =
            spawn::<Counter>(checkpoints, Arc::new(Shared::new(state_at(0))), received, core).expect("starts");
        for applied in [5, 9] {
            tasks.send(SnapshotTask::Piece { from: LEADER, piece: whole(applied) }).expect("it runs");
        }
        drop(tasks);
        thread.join().expect("no panic");
        for applied in [5, 9].map(Index::new) {
            let Some(Own::Snapshot { progress: SnapshotProgress::Received { last, .. }, .. }) = events.blocking_recv()
            else {
                panic!("both are complete");
            };
            assert_eq!(last.index, applied);
            assert_eq!(states.try_recv().expect("the state is there before its event").applied, last);
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_found_when_a_follower_refuses_it_and_the_one_before_is_sent() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        [5, 9].into_iter().for_each(|applied| write(&checkpoints, applied));
        let Outgoing { last: newest, file_bytes, .. } =
            checkpoints.open_newest().expect("readable").expect("there are two");
        std::fs::write(checkpoints.path(newest), vec![0xff; file_bytes as usize]).expect("writable");

        let (core, mut events) = tokio::sync::mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(state_at(9)));
        let (tasks, thread) = spawn::<Counter>(checkpoints, shared, channel().0, core).expect("starts");
        for task in [SnapshotTask::Send(REQUEST), SnapshotTask::Verify(newest), SnapshotTask::Send(REQUEST)] {
            tasks.send(task).expect("it runs");
        }
        drop(tasks);
        thread.join().expect("no panic");
        let sent = std::iter::from_fn(|| events.blocking_recv()).filter_map(|event| match event {
            Own::Send { message: Message::InstallSnapshot(piece), .. } => Some(piece.last.index.get()),
            _ => None,
        });
        assert_eq!(sent.collect::<Vec<_>>(), [9, 5]);
    }

    #[test]
    fn a_checkpoint_that_ends_too_early_is_not_sent_and_a_newer_one_wanted() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        write(&checkpoints, 5);
        let (core, mut events) = tokio::sync::mpsc::unbounded_channel();
        let mut mover = Mover::<Counter>::new(checkpoints, Arc::new(Shared::new(state_at(5))), channel().0, core);
        for (needed, is_sent) in [(5, true), (6, false)] {
            let needed = Index::new(needed);
            mover.send(&SendSnapshot { needed, ..REQUEST });
            let event = events.try_recv().expect("one of the two");
            assert_eq!(matches!(event, Own::Send { .. }), is_sent);
            assert_eq!(matches!(event, Own::CheckpointWanted { needed: at } if at == needed), !is_sent);
        }
    }

    #[test]
    fn a_file_is_held_until_its_last_piece_has_left_and_opened_again_if_that_was_lost() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        write(&checkpoints, 5);
        let mut mover = Mover::<Counter> {
            checkpoints,
            shared: Arc::new(Shared::new(state_at(5))),
            received: channel().0,
            core: tokio::sync::mpsc::unbounded_channel().0,
            outgoing: BTreeMap::new(),
            verified: None,
            incoming: None,
        };
        let mut request = REQUEST;
        let asked = mover.piece_for(&request).expect("readable").expect("there is one");
        assert_eq!((asked.data.len(), mover.outgoing.len()), (0, 1));
        request.wanted = Some((asked.last, 0));
        for _ in 0..2 {
            let piece = mover.piece_for(&request).expect("readable").expect("there is one");
            assert_eq!((piece.data.len() as u64, piece.last), (asked.file_bytes, asked.last));
            assert!(mover.outgoing.is_empty());
        }
        request.wanted = None;
        mover.piece_for(&request).expect("readable").expect("there is one");
        let wiped = SendSnapshot { to: Member::new(FOLLOWER.id, Incarnation::new(9)), ..request };
        mover.piece_for(&wiped).expect("readable").expect("there is one");
        assert_eq!(mover.outgoing.len(), 1, "the follower is another one now");
        mover.work(SnapshotTask::Stop);
        assert!(mover.outgoing.is_empty(), "nobody will ask for it again");
    }

    /// A directory can be opened like a file, and not be read.
    #[test]
    fn what_the_disk_cannot_read_is_set_aside_and_the_one_before_is_sent() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        [5, 9].into_iter().for_each(|applied| write(&checkpoints, applied));
        let newest = checkpoints.list().expect("listed")[0];
        let path = checkpoints.path(newest);
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");

        let (core, mut events) = tokio::sync::mpsc::unbounded_channel();
        let mut mover = Mover::<Counter>::new(checkpoints, Arc::new(Shared::new(state_at(9))), channel().0, core);
        let mut request = REQUEST;
        let mut sent = |wanted| {
            request.wanted = wanted;
            mover.send(&request);
            match events.try_recv() {
                Ok(Own::Send { message: Message::InstallSnapshot(piece), .. }) => Some(piece.last.index.get()),
                _ => None,
            }
        };
        assert_eq!(sent(None), Some(9));
        assert_eq!(sent(Some((newest, 0))), None);
        assert_eq!(sent(Some((newest, 0))), Some(5));
    }
}
