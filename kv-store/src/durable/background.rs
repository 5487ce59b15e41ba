//! The thread that does what nobody waits for: it writes checkpoints while writes go on, and has pairs removed that expire
//! while nobody writes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::DurableError;
use super::shared::{Shared, lock};

/// What has failed is tried again after so long: what filled the disk may be gone, though no write has been taken that
/// could tell.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the thread has to do.
#[derive(Debug, Default)]
pub(super) struct Duty {
    tasks: Mutex<Tasks>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Tasks {
    checkpoint: bool,
    /// When the next pair expires.
    deadline_ms: Option<u64>,
    end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Checkpoint,
    RemoveExpired,
    End,
}

impl Duty {
    pub(super) fn checkpoint_is_due(&self) {
        self.change(|tasks| !std::mem::replace(&mut tasks.checkpoint, true));
    }

    pub(super) fn set_deadline(&self, deadline_ms: Option<u64>) {
        self.change(|tasks| std::mem::replace(&mut tasks.deadline_ms, deadline_ms) != deadline_ms);
    }

    pub(super) fn end(&self) {
        self.change(|tasks| !std::mem::replace(&mut tasks.end, true));
    }

    /// Wakes the thread if that is news to it.
    fn change(&self, change: impl FnOnce(&mut Tasks) -> bool) {
        if change(&mut lock(&self.tasks)) {
            self.changed.notify_all();
        }
    }

    /// The next thing to do, and not before `not_before` unless it is to end.
    fn wait(&self, not_before: Option<Instant>, now_ms: impl Fn() -> u64) -> Task {
        let mut tasks = lock(&self.tasks);
        loop {
            if tasks.end {
                return Task::End;
            }
            let rest = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            let until_deadline = tasks.deadline_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
            let timeout = match (rest, until_deadline) {
                (Duration::ZERO, _) if tasks.checkpoint => {
                    tasks.checkpoint = false;
                    return Task::Checkpoint;
                }
                (Duration::ZERO, Some(Duration::ZERO)) => return Task::RemoveExpired,
                (Duration::ZERO, timeout) => timeout,
                (rest, _) => Some(rest),
            };
            tasks = match timeout {
                None => self.changed.wait(tasks).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => self.changed.wait_timeout(tasks, timeout).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

pub(super) fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>, DurableError> {
    let shared = shared.clone();
    shared.deadline_may_have_changed();
    let thread = thread::Builder::new().name("kv-store-background".to_owned()).spawn(move || work(&shared));
    thread.map_err(|error| DurableError::Thread(Arc::new(error)))
}

fn work(shared: &Shared) {
    let mut not_before = None;
    loop {
        let result = match shared.duty.wait(not_before, &shared.clock) {
            Task::End => return,
            Task::RemoveExpired => shared.remove_expired(),
            Task::Checkpoint => {
                let result = catch_unwind(AssertUnwindSafe(|| shared.checkpoint()));
                let result = result.unwrap_or_else(|_| Err(shared.checkpoint_panicked()));
                if result.is_err() {
                    shared.duty.checkpoint_is_due();
                }
                result.map(drop)
            }
        };
        // What the store has failed at does not get better, but it may wait to be closed for long.
        not_before = result.err().map(|_| Instant::now() + RETRY_AFTER);
    }
}
