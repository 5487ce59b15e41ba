//! Runs committed entries through the state machine, in order, and answers who waits for them. Who calls it is decided in
//! `apply_queue`.
//!
//! The state is write-locked for a chunk of entries at a time, so that readers wait for moments only. Every node
//! applies every entry; the node whose process opened a command's session is the one whose client gets the outcome.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info};

use super::checkpoints::Checkpoints;
use super::identity::short;
use super::replicated::{Effect, Replicated};
use super::shared::{Answer, Shared, mark_of};
use super::task::Own;
use super::threads;
use super::traits::{CheckpointMeta, LogReader, StateMachine};
use crate::planted::{self, Mistake};
use crate::raft::Agreed;
use crate::types::{Entries, Index, NodeId};

/// Entries applied under one write lock.
const CHUNK_ENTRIES: usize = 256;
/// Bytes of stored entries read at once.
const READ_BYTES: usize = 4 << 20;
/// A checkpoint that could not be written is tried again after this.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Work for the applier, in the order of the log.
pub(crate) enum ApplyTask<S> {
    /// Committed entries from the core's memory, in pieces.
    Entries(Vec<Entries>),
    /// Committed entries that are in the log, both ends included.
    Stored { first: Index, last: Index },
    /// Take this state, which was received, in place of what is here.
    Restore(Box<Replicated<S>>),
    /// Write a checkpoint that reaches over this entry, whether one is due or not.
    Checkpoint { needed: Index },
}

/// What the applier works with, and what it knows between tasks.
pub(crate) struct Applier<S: StateMachine, R: LogReader> {
    shared: Arc<Shared<S>>,
    reader: R,
    checkpoints: Checkpoints,
    core: UnboundedSender<Own>,
    node: NodeId,
    session: Option<u64>,
    /// This process, as its session is asked for.
    nonce: u64,
    /// The log has been reset beyond what was to be applied next: nothing is applied before the state comes that this was
    /// done for.
    is_overtaken: bool,
    checkpoint_log_bytes: u64,
    log_bytes: u64,
    /// One that reaches over this entry is wanted before it is due.
    checkpoint_wanted: Index,
    checkpoint: Arc<LastCheckpoint>,
    checkpoint_thread: Option<JoinHandle<()>>,
    /// There are no threads.
    pub(crate) is_alone: bool,
}

/// The checkpoint that is being written, or was last.
#[derive(Default)]
struct LastCheckpoint {
    is_running: AtomicBool,
    /// The last entry that it covers; zero if it could not be written.
    last: AtomicU64,
    failed_at: Mutex<Option<Instant>>,
}

impl LastCheckpoint {
    fn has_begun(&self, last: Index) {
        self.is_running.store(true, Ordering::Release);
        self.last.store(last.get(), Ordering::Release);
        *self.failed_at.lock() = None;
    }

    fn has_ended(&self, is_written: bool) {
        if !is_written {
            self.last.store(0, Ordering::Release);
            *self.failed_at.lock() = Some(Instant::now());
        }
        self.is_running.store(false, Ordering::Release);
    }
}

impl<S: StateMachine, R: LogReader> Applier<S, R> {
    /// Of the node `node`, whose process asks for its session with `nonce` first; a checkpoint is due after
    /// `checkpoint_log_bytes` of entries.
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        reader: R,
        checkpoints: Checkpoints,
        core: UnboundedSender<Own>,
        (node, nonce): (NodeId, u64),
        checkpoint_log_bytes: u64,
    ) -> Self {
        Applier {
            shared,
            reader,
            checkpoints,
            core,
            node,
            session: None,
            nonce,
            is_overtaken: false,
            checkpoint_log_bytes,
            log_bytes: 0,
            checkpoint_wanted: Index::ZERO,
            checkpoint: Arc::default(),
            checkpoint_thread: None,
            is_alone: false,
        }
    }

    /// Does what is asked.
    ///
    /// # Errors
    ///
    /// Committed entries can't be read, so this node can't go on.
    pub(crate) fn work(&mut self, task: ApplyTask<S>) -> Result<(), String> {
        match task {
            ApplyTask::Entries(entries) => self.apply(&entries),
            ApplyTask::Stored { first, last } => {
                let applied = self.apply_stored(first, last);
                // What follows on these entries must not be applied without them.
                self.is_overtaken |= applied.is_err();
                applied?;
            }
            ApplyTask::Restore(state) => self.restore(*state),
            ApplyTask::Checkpoint { needed } => self.checkpoint_wanted = needed,
        }
        self.checkpoint_if_due();
        Ok(())
    }

    /// Returns when no checkpoint is being written any more.
    pub(crate) fn finish(&mut self) {
        if let Some(running) = self.checkpoint_thread.take() {
            // Its own failure has been logged.
            let _ = running.join();
        }
    }

    fn apply_stored(&mut self, mut first: Index, last: Index) -> Result<(), String> {
        while first <= last && !self.is_overtaken {
            let entries = match self.reader.read(first..last.next(), READ_BYTES) {
                Ok(entries) => entries,
                Err(_) if self.reader.base().index >= first => {
                    self.is_overtaken = true;
                    return Ok(());
                }
                Err(error) => return Err(format!("log: {error}")),
            };
            let read = entries.last().ok_or("log: committed entries are missing")?.index();
            self.apply(&[entries.into()]);
            first = read.next();
        }
        Ok(())
    }

    fn apply(&mut self, pieces: &[Entries]) {
        if self.is_overtaken {
            return;
        }
        let count = pieces.iter().map(|piece| piece.len()).sum();
        let mut entries = pieces.iter().flatten().peekable();
        let mut effects = Vec::with_capacity(CHUNK_ENTRIES.min(count));
        while entries.peek().is_some() {
            let mut log_bytes = 0;
            let mut state = self.shared.state.write();
            for entry in entries.by_ref().take(CHUNK_ENTRIES) {
                let effect = state.apply(entry);
                match &effect {
                    Effect::Mark { waiting } => self.note_mark(&state, waiting.is_some()),
                    Effect::Agreed(agreed) => self.compare(*agreed),
                    _ => {}
                }
                effects.push((entry.index(), effect));
                log_bytes += entry.frame().len() as u64;
            }
            let applied = state.applied.index;
            let (deadline_ms, stamp_ms) = (state.machine.next_deadline_ms(), state.stamp_ms());
            drop(state);
            self.log_bytes += log_bytes;
            self.shared.advance_applied(applied);
            self.see_deadline(deadline_ms, stamp_ms);
            self.deliver(&mut effects);
        }
    }

    /// The core's task waits for the next deadline, if there is a new one, and goes on if one entry did not do away with all
    /// that has expired.
    fn see_deadline(&self, deadline_ms: Option<u64>, stamp_ms: u64) {
        let has_changed = self.shared.set_next_deadline_ms(deadline_ms);
        if has_changed || deadline_ms.is_some_and(|deadline_ms| deadline_ms <= stamp_ms) {
            self.tell_core(Own::Deadline);
        }
    }

    /// Notes the state hash, and tells the core. The state itself is kept only if somebody wants to look at it.
    fn note_mark(&self, state: &Replicated<S>, is_wanted: bool) {
        let hash = if is_wanted {
            let mark = mark_of(state);
            let hash = mark.hash;
            self.shared.note_mark(mark);
            hash
        } else {
            state.state_hash()
        };
        self.shared.note_hash(state.applied.index, hash);
        self.tell_core(Own::Marked(state.applied.index, hash));
    }

    /// A majority had this hash. If this replica had another one its state is wrong, and it must serve nobody until it has
    /// the same again, for which it needs another state.
    fn compare(&self, agreed: Agreed) {
        let Some(own) = self.shared.hash_at(agreed.index) else { return };
        let is_diverged = own != agreed.hash;
        if self.shared.is_diverged.swap(is_diverged, Ordering::AcqRel) == is_diverged {
            return;
        }
        self.tell_core(Own::Diverged(is_diverged));
        if is_diverged {
            error!(
                index = %agreed.index, own = %short(&own), majority = %short(&agreed.hash),
                "the state of this node is not that of the majority: it serves nobody any more, and does not lead. If the \
                 others are well, stop it, move its directory away, and start it with an empty one: they give it their state"
            );
        } else {
            info!(index = %agreed.index, "the state of this node is that of the majority again");
        }
    }

    /// Gives the effects to those of this process that wait for them.
    fn deliver(&mut self, effects: &mut Vec<(Index, Effect<S::Outcome>)>) {
        let shared = self.shared.clone();
        // What a wrong state says of a command is not what the others say.
        let is_wrong = shared.is_diverged.load(Ordering::Acquire);
        shared.answer(effects.drain(..).filter_map(|(index, effect)| match effect {
            Effect::Outcome { session, sequence, outcome } if Some(session) == self.session => {
                Some((sequence, if is_wrong { Answer::Lost } else { Answer::Outcome(outcome) }))
            }
            Effect::Mark { waiting: Some((session, sequence)) } if Some(session) == self.session => {
                Some((sequence, Answer::Marked(index)))
            }
            Effect::Skipped { session, sequence } if Some(session) == self.session => Some((sequence, Answer::Lost)),
            Effect::Session { session, node, nonce } if node == self.node => {
                self.see_session(session, nonce);
                None
            }
            Effect::Gap { session } if Some(session) == self.session => {
                self.tell_core(Own::Resend);
                None
            }
            _ => None,
        }));
        if self.shared.take_awaited() {
            self.tell_core(Own::Answered);
        }
    }

    /// The session of this node is that of the process `nonce`: this one, one before it, or one that began later. The last
    /// means that the disk was put back to an earlier state: this process begins again, as a still later one.
    fn see_session(&mut self, session: u64, nonce: u64) {
        match nonce.cmp(&self.nonce) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                self.session = Some(session);
                self.tell_core(Own::SessionOpen(session));
            }
            std::cmp::Ordering::Greater => {
                self.session = None;
                self.nonce = later_nonce(self.nonce, nonce);
                self.tell_core(Own::SessionReplaced { nonce: self.nonce });
            }
        }
    }

    fn restore(&mut self, new: Replicated<S>) {
        let last = new.applied;
        let mine = new.session(self.node);
        let mut state = self.shared.state.write();
        assert!(state.applied.index < last.index, "a state is taken only if it is ahead");
        // The old state is dropped only after the lock is free: that can take a while.
        let old = std::mem::replace(&mut *state, new);
        let (deadline_ms, stamp_ms) = (state.machine.next_deadline_ms(), state.stamp_ms());
        drop(state);
        drop(old);
        self.see_deadline(deadline_ms, stamp_ms);
        info!(%last, "restored the state from a received checkpoint");
        if let Some((session, nonce, last_sequence)) = mine {
            if nonce == self.nonce {
                self.shared.answers_lost_up_to(last_sequence);
            }
            self.see_session(session, nonce);
        }
        self.is_overtaken = false;
        self.log_bytes = 0;
        self.shared.advance_applied(last.index);
    }

    /// One is due after so many bytes of log, or when a follower needs it, or when the last one could not be written, some time
    /// ago.
    fn is_checkpoint_due(&self) -> bool {
        if self.checkpoint.is_running.load(Ordering::Acquire) {
            return false;
        }
        let failed_at = *self.checkpoint.failed_at.lock();
        if let Some(at) = failed_at {
            return at.elapsed() >= FAILED_PAUSE;
        }
        let (wanted, written) = (self.checkpoint_wanted, self.checkpoint.last.load(Ordering::Acquire));
        // One that does not reach so far would be of no help.
        let is_wanted = wanted.get() > written && wanted <= self.shared.applied();
        is_wanted || self.log_bytes >= self.checkpoint_log_bytes
    }

    /// Takes a read view, which costs nothing, and lets a thread write it out while applying goes on.
    fn checkpoint_if_due(&mut self) {
        if !self.is_checkpoint_due() {
            return;
        }
        self.log_bytes = 0;
        let state = self.shared.state.read();
        let (view, meta) = (state.machine.view(), state.checkpoint_meta());
        drop(state);
        self.checkpoint.has_begun(meta.last.index);
        let (checkpoints, core, shared) = (self.checkpoints.clone(), self.core.clone(), self.shared.clone());
        let checkpoint = self.checkpoint.clone();
        let write = move || {
            let written = write_checkpoint(&checkpoints, &view, &meta, &shared, &core);
            match &written {
                Ok(()) => info!(last = %meta.last, "checkpoint written"),
                Err(error) => error!(%error, last = %meta.last, "no checkpoint could be written; the log is kept"),
            }
            checkpoint.has_ended(written.is_ok());
        };
        if self.is_alone {
            return write();
        }
        let work = move || {
            write();
            Ok(())
        };
        match threads::spawn("checkpoint", self.core.clone(), work) {
            Ok(thread) => self.checkpoint_thread = Some(thread),
            Err(error) => {
                error!(%error, "no thread for a checkpoint; the log is kept");
                self.checkpoint.has_ended(false);
            }
        }
    }

    fn tell_core(&self, own: Own) {
        // The core may have ended first.
        let _ = self.core.send(own);
    }
}

/// Writes a checkpoint, removes those that it makes needless, and tells the core what is covered now.
pub(crate) fn write_checkpoint<S: StateMachine>(
    checkpoints: &Checkpoints,
    view: &S::View,
    meta: &CheckpointMeta,
    shared: &Shared<S>,
    core: &UnboundedSender<Own>,
) -> io::Result<()> {
    checkpoints.write::<S>(view, meta)?;
    if let Some(upto) = checkpoints.prune(shared.applied())? {
        // The core may have ended first.
        let _ = core.send(Own::Checkpointed(upto));
    }
    Ok(())
}

/// A nonce after `seen`, of the process that has drawn `own`. What was drawn stays in it: another process that has seen the
/// same, before this one on this disk, had another nonce and perhaps a session of it, which must not be taken for this
/// one's.
fn later_nonce(own: u64, seen: u64) -> u64 {
    if planted::is(Mistake::SessionOfAnotherProcess) {
        return seen + 1;
    }
    ((seen >> 32) + 1) << 32 | own & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::host::RealHost;
    use crate::driver::replicated::session_payload;
    use crate::driver::testing::{Counter, Reset, entry, state_at};
    use crate::types::{Entry, kind};

    /// A disk that took the place of one on which the node had been started more often, and is started twice: the second
    /// process finds the session of the first in the log, and must not go on with it.
    #[test]
    fn a_process_never_takes_the_session_of_one_before_it() {
        let (node, seen) = (NodeId::new(1), 9 << 32 | 7);
        let asked_with = |nonce: u64, entries: Vec<Entry>| {
            let dir = tempfile::tempdir().expect("temporary directory");
            let shared = Arc::new(Shared::new(state_at(3)));
            let (core, mut events) = tokio::sync::mpsc::unbounded_channel();
            let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
            let mut applier = Applier::<Counter, _>::new(shared, Reset, checkpoints, core, (node, nonce), u64::MAX);
            assert_eq!(applier.work(ApplyTask::Entries(vec![entries.into()])), Ok(()));
            let events: Vec<Own> = std::iter::from_fn(|| events.try_recv().ok()).collect();
            assert!(!events.iter().any(|event| matches!(event, Own::SessionOpen(_))), "none of these is its own");
            match events[..] {
                [Own::SessionReplaced { nonce }] => nonce,
                _ => panic!("it begins again, once"),
            }
        };
        let session = |at, nonce| entry(at, kind::SESSION, &session_payload(node, nonce));
        let first = asked_with(1 << 32 | 5, vec![session(4, seen)]);
        assert!(first > seen);
        let second = asked_with(2 << 32 | 6, vec![session(4, seen), session(5, first)]);
        assert!(second > seen && second != first);
    }

    #[test]
    fn what_a_received_checkpoint_overtakes_is_not_applied() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let shared = Arc::new(Shared::new(state_at(3)));
        let (core, _events) = tokio::sync::mpsc::unbounded_channel();
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let mut applier =
            Applier::<Counter, _>::new(shared.clone(), Reset, checkpoints, core, (NodeId::new(1), 1), u64::MAX);
        let entries = |range: std::ops::RangeInclusive<u64>| {
            ApplyTask::Entries(vec![range.map(|at| entry(at, kind::NOOP, b"")).collect()])
        };
        for task in [
            ApplyTask::Stored { first: Index::new(4), last: Index::new(9) },
            entries(10..=12),
            ApplyTask::Restore(Box::new(state_at(20))),
            entries(21..=22),
        ] {
            assert_eq!(applier.work(task), Ok(()));
        }
        assert_eq!(shared.applied(), Index::new(22));
    }
}
