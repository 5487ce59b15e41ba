//! The thread that runs committed entries through the state machine, in order, and answers who waits for them.
//!
//! The state is write-locked for a chunk of entries at a time, so that readers wait for moments only. Every node
//! applies every entry; the node whose process opened a command's session is the one whose client gets the outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info};

use super::checkpoints::Checkpoints;
use super::identity::short;
use super::replicated::{Effect, Replicated};
use super::shared::{Answer, Shared, mark_of};
use super::task::Own;
use super::threads;
use super::traits::{LogReader, StateMachine};
use crate::raft::Agreed;
use crate::types::{Entry, Index, NodeId};

/// Entries applied under one write lock.
const CHUNK_ENTRIES: usize = 256;
/// Bytes of stored entries read at once.
const READ_BYTES: usize = 4 << 20;

/// Work for the applier, in the order of the log.
pub(crate) enum ApplyTask<S> {
    /// Committed entries from the core's memory.
    Entries(Vec<Entry>),
    /// Committed entries that are in the log, both ends included.
    Stored { first: Index, last: Index },
    /// Take this state, which was received, in place of what is here.
    Restore(Box<Replicated<S>>),
}

/// What the applier works with.
pub(crate) struct Applier<S: StateMachine, R: LogReader> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) reader: R,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) core: UnboundedSender<Own>,
    /// This process, as its session is first asked for.
    pub(crate) node: NodeId,
    pub(crate) nonce: u64,
    pub(crate) checkpoint_log_bytes: u64,
    /// Bytes of [`ApplyTask::Entries`] that wait in the queue.
    pub(crate) backlog_bytes: Arc<AtomicUsize>,
}

/// What the thread knows between tasks.
struct Progress {
    session: Option<u64>,
    /// This process, as its session is asked for.
    nonce: u64,
    /// The log has been reset beyond what was to be applied next: nothing is applied before the state comes that this was
    /// done for.
    is_overtaken: bool,
    log_bytes: u64,
    checkpoint_running: Arc<AtomicBool>,
    checkpoint_thread: Option<JoinHandle<()>>,
}

impl<S: StateMachine, R: LogReader> Applier<S, R> {
    /// Starts the thread. It ends when the sender is dropped.
    pub(crate) fn spawn(self) -> std::io::Result<(Sender<ApplyTask<S>>, JoinHandle<()>)> {
        let (sender, receiver) = channel();
        let thread = threads::spawn("apply", self.core.clone(), move || self.run(&receiver))?;
        Ok((sender, thread))
    }

    fn run(&self, tasks: &Receiver<ApplyTask<S>>) -> Result<(), String> {
        let mut progress = Progress {
            session: None,
            nonce: self.nonce,
            is_overtaken: false,
            log_bytes: 0,
            checkpoint_running: Arc::new(AtomicBool::new(false)),
            checkpoint_thread: None,
        };
        while let Ok(task) = tasks.recv() {
            match task {
                ApplyTask::Entries(entries) => {
                    self.apply(&entries, &mut progress);
                    let bytes: usize = entries.iter().map(|entry| entry.frame().len()).sum();
                    self.backlog_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }
                ApplyTask::Stored { first, last } => self.apply_stored(first, last, &mut progress)?,
                ApplyTask::Restore(state) => self.restore(*state, &mut progress),
            }
            self.checkpoint_if_due(&mut progress);
        }
        if let Some(running) = progress.checkpoint_thread.take() {
            // Its own failure has been logged.
            let _ = running.join();
        }
        Ok(())
    }

    fn apply_stored(&self, mut first: Index, last: Index, progress: &mut Progress) -> Result<(), String> {
        while first <= last && !progress.is_overtaken {
            let entries = match self.reader.read(first..last.next(), READ_BYTES) {
                Ok(entries) => entries,
                Err(_) if self.reader.base().index >= first => {
                    progress.is_overtaken = true;
                    return Ok(());
                }
                Err(error) => return Err(format!("log: {error}")),
            };
            let read = entries.last().ok_or("log: committed entries are missing")?.index();
            self.apply(&entries, progress);
            first = read.next();
        }
        Ok(())
    }

    fn apply(&self, entries: &[Entry], progress: &mut Progress) {
        if progress.is_overtaken {
            return;
        }
        let mut effects = Vec::with_capacity(entries.len().min(CHUNK_ENTRIES));
        for chunk in entries.chunks(CHUNK_ENTRIES) {
            let mut state = self.shared.state.write();
            for entry in chunk {
                let effect = state.apply(entry);
                match &effect {
                    Effect::Mark { waiting } => self.note_mark(&state, waiting.is_some()),
                    Effect::Agreed(agreed) => self.compare(*agreed),
                    _ => {}
                }
                effects.push((entry.index(), effect));
                progress.log_bytes += entry.frame().len() as u64;
            }
            let applied = state.applied.index;
            drop(state);
            self.shared.advance_applied(applied);
            self.deliver(&mut effects, progress);
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

    /// A majority had this hash. If this replica had another one its state is wrong, and it must serve nobody.
    fn compare(&self, agreed: Agreed) {
        let Some(own) = self.shared.hash_at(agreed.index).filter(|own| *own != agreed.hash) else { return };
        error!(
            index = %agreed.index, own = %short(&own), majority = %short(&agreed.hash),
            "the state of this node is not that of the majority: it serves nobody any more. Move its directory away and \
             start it with an empty one: the others give it their state"
        );
        self.shared.is_diverged.store(true, Ordering::Release);
        self.tell_core(Own::Diverged);
    }

    /// Gives the effects to those of this process that wait for them.
    fn deliver(&self, effects: &mut Vec<(Index, Effect<S::Outcome>)>, progress: &mut Progress) {
        self.shared.answer(effects.drain(..).filter_map(|(index, effect)| match effect {
            Effect::Outcome { session, sequence, outcome } if Some(session) == progress.session => {
                Some((sequence, Answer::Outcome(outcome)))
            }
            Effect::Mark { waiting: Some((session, sequence)) } if Some(session) == progress.session => {
                Some((sequence, Answer::Marked(index)))
            }
            Effect::Skipped { session, sequence } if Some(session) == progress.session => {
                Some((sequence, Answer::Lost))
            }
            Effect::Session { session, node, nonce } if node == self.node => {
                self.see_session(session, nonce, progress);
                None
            }
            Effect::Gap { session } if Some(session) == progress.session => {
                self.tell_core(Own::Resend);
                None
            }
            _ => None,
        }));
    }

    /// The session of this node is that of the process `nonce`: this one, one before it, or one that began later. The last
    /// means that the disk was put back to an earlier state: this process begins again, as a still later one.
    fn see_session(&self, session: u64, nonce: u64, progress: &mut Progress) {
        match nonce.cmp(&progress.nonce) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                progress.session = Some(session);
                self.tell_core(Own::SessionOpen(session));
            }
            std::cmp::Ordering::Greater => {
                progress.session = None;
                progress.nonce = nonce.saturating_add(1);
                self.tell_core(Own::SessionReplaced { nonce: progress.nonce });
            }
        }
    }

    fn restore(&self, new: Replicated<S>, progress: &mut Progress) {
        let last = new.applied;
        let mine = new.session(self.node);
        let mut state = self.shared.state.write();
        assert!(state.applied.index < last.index, "a state is taken only if it is ahead");
        // The old state is dropped only after the lock is free: that can take a while.
        let old = std::mem::replace(&mut *state, new);
        drop(state);
        drop(old);
        info!(%last, "restored the state from a received checkpoint");
        if let Some((session, nonce, last_sequence)) = mine {
            if nonce == progress.nonce {
                self.shared.answers_lost_up_to(last_sequence);
            }
            self.see_session(session, nonce, progress);
        }
        progress.is_overtaken = false;
        progress.log_bytes = 0;
        self.shared.advance_applied(last.index);
    }

    /// Takes a read view, which costs nothing, and lets a thread write it out while applying goes on.
    fn checkpoint_if_due(&self, progress: &mut Progress) {
        if progress.log_bytes < self.checkpoint_log_bytes || progress.checkpoint_running.load(Ordering::Acquire) {
            return;
        }
        progress.log_bytes = 0;
        let state = self.shared.state.read();
        let (view, meta) = (state.machine.view(), state.checkpoint_meta());
        drop(state);
        let (checkpoints, core, shared) = (self.checkpoints.clone(), self.core.clone(), self.shared.clone());
        progress.checkpoint_running.store(true, Ordering::Release);
        let running = progress.checkpoint_running.clone();
        let write = move || {
            match checkpoints.write::<S>(&view, &meta).and_then(|()| checkpoints.prune(shared.applied())) {
                Ok(upto) => {
                    info!(last = %meta.last, "checkpoint written");
                    // The core may have ended first.
                    let _ = upto.map(|upto| core.send(Own::Checkpointed(upto)));
                }
                Err(error) => error!(%error, last = %meta.last, "no checkpoint could be written; the log is kept"),
            }
            running.store(false, Ordering::Release);
            Ok(())
        };
        match threads::spawn("checkpoint", self.core.clone(), write) {
            Ok(thread) => progress.checkpoint_thread = Some(thread),
            Err(error) => {
                error!(%error, "no thread for a checkpoint; the log is kept");
                progress.checkpoint_running.store(false, Ordering::Release);
            }
        }
    }

    fn tell_core(&self, own: Own) {
        // The core may have ended first.
        let _ = self.core.send(own);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::driver::testing::{Counter, entry, state_at};
    use crate::driver::traits::LogError;
    use crate::types::{EntryId, Term, kind};

    /// A log that has been reset to begin after entry 20.
    #[derive(Clone)]
    struct Reset;

    impl LogReader for Reset {
        fn read(&self, _range: Range<Index>, _bytes_max: usize) -> Result<Vec<Entry>, LogError> {
            Err(LogError::new("gone"))
        }

        fn base(&self) -> EntryId {
            EntryId::new(Term::new(1), Index::new(20))
        }

        fn last(&self) -> EntryId {
            self.base()
        }

        fn term_runs(&self) -> Vec<EntryId> {
            Vec::new()
        }
    }

    #[test]
    fn what_a_received_checkpoint_overtakes_is_not_applied() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let shared = Arc::new(Shared::new(state_at(3)));
        let (core, _events) = tokio::sync::mpsc::unbounded_channel();
        let applier = Applier::<Counter, _> {
            shared: shared.clone(),
            reader: Reset,
            checkpoints: Checkpoints::open(dir.path()).expect("opens"),
            core,
            node: NodeId::new(1),
            nonce: 1,
            checkpoint_log_bytes: u64::MAX,
            backlog_bytes: Arc::new(AtomicUsize::new(1 << 20)),
        };
        let (tasks, queue) = channel();
        let entries = |range: std::ops::RangeInclusive<u64>| {
            ApplyTask::Entries(range.map(|at| entry(at, kind::NOOP, b"")).collect())
        };
        for task in [
            ApplyTask::Stored { first: Index::new(4), last: Index::new(9) },
            entries(10..=12),
            ApplyTask::Restore(Box::new(state_at(20))),
            entries(21..=22),
        ] {
            tasks.send(task).expect("the queue is open");
        }
        drop(tasks);
        assert_eq!(applier.run(&queue), Ok(()));
        assert_eq!(shared.applied(), Index::new(22));
    }
}
