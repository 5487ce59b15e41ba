//! What the callers and the background thread share, and the steps of a checkpoint.
//!
//! Locks are taken in this order: `checkpoints`, `journal`, the queue; each of the others is taken alone or last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kv_wal::Index;

use super::background::Duty;
use super::checkpoints::Checkpoints;
use super::commit::{Commit, Standing};
use super::error::DurableError;
use super::identity::Identity;
use super::journal::{Change, Journal, Live};
use super::recovery::Opened;

/// Tells the time, in milliseconds since the Unix epoch.
pub(super) type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

pub(super) struct Shared {
    pub(super) commit: Commit,
    /// `None` when it is closed.
    pub(super) journal: Mutex<Option<Journal>>,
    pub(super) live: RwLock<Live>,
    checkpoints: Mutex<Checkpoints>,
    identity: Identity,
    pub(super) clock: Clock,
    checkpoint_log_bytes: u64,
    /// Whether a thread writes the checkpoints.
    in_background: bool,
    pub(super) duty: Duty,
    progress: Mutex<Progress>,
}

/// How the checkpoints are getting on.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) newest: Option<Index>,
    /// Why the last attempt has failed.
    pub(super) failure: Option<DurableError>,
    /// The log must have grown by so much, in all, before the next attempt.
    next_at_bytes: u64,
}

/// After a checkpoint that has failed, the next is due when the log has grown by this part of what is usual.
const RETRY_DIVISOR: u64 = 4;

/// What is under these locks is changed by steps that cannot panic half way, but for an op that panics while it is applied:
/// then the store is poisoned, and readers see as much of it as was done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(opened: Opened, checkpoint_log_bytes: u64, in_background: bool, clock: Clock) -> Arc<Shared> {
        let Opened { journal, live, checkpoints, identity, recovered } = opened;
        let progress = Progress { newest: recovered.checkpoint, ..Progress::default() };
        Arc::new(Shared {
            commit: Commit::default(),
            journal: Mutex::new(Some(journal)),
            live: RwLock::new(live),
            checkpoints: Mutex::new(checkpoints),
            identity,
            clock,
            checkpoint_log_bytes,
            in_background,
            duty: Duty::default(),
            progress: Mutex::new(progress),
        })
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    pub(super) fn is_checkpoint_due(&self, journal: &Journal) -> bool {
        let next_at_bytes = lock(&self.progress).next_at_bytes;
        journal.uncovered_bytes() >= self.checkpoint_log_bytes && journal.grown_bytes() >= next_at_bytes
    }

    /// Has a checkpoint written, here if there is no thread for it.
    pub(super) fn checkpoint_is_due(&self) {
        if self.in_background {
            self.duty.checkpoint_is_due();
        } else {
            // Its failure is for the status to tell: the write that led here has succeeded.
            let _ = self.checkpoint();
        }
    }

    /// Tells the thread if the next pair expires at another time than it was told last.
    pub(super) fn deadline_may_have_changed(&self) {
        if self.in_background {
            self.duty.set_deadline(read(&self.live).store.next_deadline_ms());
        }
    }

    /// Has pairs removed whose deadline has passed, by the clock of the log or by that of the machine.
    pub(super) fn remove_expired(&self) -> Result<(), DurableError> {
        while self.has_expired() {
            self.submit(Change::Clock)?;
        }
        Ok(())
    }

    fn has_expired(&self) -> bool {
        let live = read(&self.live);
        let now_ms = live.store.clock_ms().max((self.clock)());
        live.store.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms)
    }

    /// Writes a checkpoint of what is applied, and removes what is not needed any more.
    pub(super) fn checkpoint(&self) -> Result<Index, DurableError> {
        let mut checkpoints = lock(&self.checkpoints);
        self.commit.standing().check()?;
        let grown_bytes = self.grown_bytes()?;
        let result = self.checkpoint_steps(&mut checkpoints, grown_bytes);
        let mut progress = lock(&self.progress);
        progress.newest = checkpoints.newest();
        progress.failure = result.as_ref().err().cloned();
        if let Err(error) = &result {
            tracing::warn!(%error, "a checkpoint has failed: it is tried again later");
            progress.next_at_bytes = grown_bytes + self.checkpoint_log_bytes / RETRY_DIVISOR;
        }
        result
    }

    /// For the status to tell.
    pub(super) fn checkpoint_panicked(&self) -> DurableError {
        lock(&self.progress).failure = Some(DurableError::Panicked);
        DurableError::Panicked
    }

    /// The order is what makes it safe: nothing is removed from the log before the checkpoint that takes its place is
    /// durable, and then only what the one before it covers too.
    fn checkpoint_steps(&self, checkpoints: &mut Checkpoints, grown_bytes: u64) -> Result<Index, DurableError> {
        let (view, last) = {
            // An op that has panicked may be half applied, which must not become durable.
            let live = self.live.read().map_err(|_| DurableError::Poisoned)?;
            (live.store.view(), live.last)
        };
        if checkpoints.newest().unwrap_or(Index::ZERO) < last {
            checkpoints.write(&view, last, &self.identity)?;
        }
        // What the view holds is copied before it changes: no longer than needed.
        drop(view);
        self.forget(checkpoints.covered(), grown_bytes)?;
        checkpoints.remove_old()?;
        Ok(last)
    }

    /// What the log has grown by. Whatever is applied later is beyond it.
    fn grown_bytes(&self) -> Result<u64, DurableError> {
        lock(&self.journal).as_ref().map(Journal::grown_bytes).ok_or(DurableError::Closed)
    }

    fn forget(&self, covered: Option<Index>, grown_bytes: u64) -> Result<(), DurableError> {
        let mut journal = lock(&self.journal);
        let open = journal.as_mut().ok_or(DurableError::Closed)?;
        open.cover(grown_bytes);
        let Some(upto) = covered else { return Ok(()) };
        let result = open.forget(upto);
        if let Err(DurableError::Failed(_) | DurableError::Poisoned) = result {
            drop(journal);
            self.commit.poison();
        }
        result
    }

    /// Waits for whoever works here, and closes the log.
    pub(super) fn close(&self) -> Result<(), DurableError> {
        let standing = self.commit.close();
        // One that is being written is finished first: nobody works in the directory when its lock is free.
        let checkpoints = lock(&self.checkpoints);
        let journal = lock(&self.journal).take();
        drop(checkpoints);
        match (standing, journal) {
            (Standing::Poisoned, _) => Err(DurableError::Poisoned),
            (_, Some(journal)) => journal.close(),
            // Somebody else has closed it.
            (_, None) => Ok(()),
        }
    }
}
