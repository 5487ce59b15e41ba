//! Who runs the applier: the core's task itself while there is little to apply, or a thread of its own.
//!
//! Waking a thread costs more than applying a few commands, and the client's answer would wait for it. But the core must not
//! be kept from its heartbeats, so the time that entries take is measured, and what would take longer than the waking goes to
//! the thread. The order is that of the log either way: the core applies nothing while the thread has anything left.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::applier::{Applier, ApplyTask};
use super::task::Own;
use super::threads;
use super::traits::{LogReader, StateMachine};
use crate::types::{Entries, Entry, Index};

/// What it costs to hand over to a thread and back, when it sleeps and somebody waits for the answer; measured.
const HANDING_OVER: Duration = Duration::from_micros(50);
/// Bytes of committed entries that may wait for the thread in memory; beyond it they are read from the log again.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// The core's end.
pub(crate) struct ApplyQueue<S: StateMachine, R: LogReader> {
    /// To the thread; without one everything is done here.
    tasks: Option<Sender<ApplyTask<S>>>,
    common: Arc<Common<S, R>>,
}

/// What the core's task and the thread share.
struct Common<S: StateMachine, R: LogReader> {
    applier: Mutex<Timed<S, R>>,
    /// Tasks given to the thread that it has not finished.
    unfinished: AtomicUsize,
    /// Bytes of entries in them.
    waiting_bytes: AtomicUsize,
}

/// The applier, and how long it takes.
struct Timed<S: StateMachine, R: LogReader> {
    applier: Applier<S, R>,
    /// For an entry, the last time. Unknown at first.
    each: Option<Duration>,
}

impl<S: StateMachine, R: LogReader> ApplyQueue<S, R> {
    /// Starts the thread. It ends when this is dropped.
    pub(crate) fn start(applier: Applier<S, R>, core: UnboundedSender<Own>) -> io::Result<(Self, JoinHandle<()>)> {
        let (tasks, receiver) = channel();
        let common = Arc::new(Common::new(applier));
        let thread = threads::spawn("apply", core, {
            let common = common.clone();
            move || common.run(&receiver)
        })?;
        Ok((ApplyQueue { tasks: Some(tasks), common }, thread))
    }

    /// Without a thread.
    #[cfg(feature = "testing")]
    pub(crate) fn without_thread(mut applier: Applier<S, R>) -> Self {
        applier.is_alone = true;
        ApplyQueue { tasks: None, common: Arc::new(Common::new(applier)) }
    }

    /// Committed entries. Those up to `durable` can be read from the log as well.
    pub(crate) fn apply(&self, pieces: Vec<Entries>, durable: Index) -> Result<(), String> {
        let first = pieces.first().and_then(|piece| piece.first()).map(Entry::index);
        let last = pieces.last().and_then(|piece| piece.last()).map(Entry::index);
        let Some((first, last)) = first.zip(last) else { return Ok(()) };
        if self.tasks.is_none() {
            return self.push(ApplyTask::Entries(pieces));
        }
        if self.common.unfinished.load(Ordering::Acquire) == 0 {
            let mut timed = self.common.applier.lock();
            if timed.is_brief(count(&pieces)) {
                return timed.work(ApplyTask::Entries(pieces));
            }
        }
        let is_much = self.common.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX;
        if is_much && last <= durable {
            self.push(ApplyTask::Stored { first, last })
        } else {
            self.common.waiting_bytes.fetch_add(bytes(&pieces), Ordering::Relaxed);
            self.push(ApplyTask::Entries(pieces))
        }
    }

    /// Leaves a task to the thread, if there is one.
    pub(crate) fn push(&self, task: ApplyTask<S>) -> Result<(), String> {
        let Some(tasks) = &self.tasks else { return self.common.applier.lock().work(task) };
        self.common.unfinished.fetch_add(1, Ordering::Relaxed);
        // A thread whose queue is closed has failed; its Own::Failed is on the way and ends the core's task.
        let _ = tasks.send(task);
        Ok(())
    }
}

impl<S: StateMachine, R: LogReader> Common<S, R> {
    fn new(applier: Applier<S, R>) -> Self {
        Common {
            applier: Mutex::new(Timed { applier, each: None }),
            unfinished: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
        }
    }

    fn run(&self, tasks: &Receiver<ApplyTask<S>>) -> Result<(), String> {
        // Whoever hears that the node has ended can use its files, whatever it has ended of.
        let _finishing = Finishing(self);
        while let Ok(task) = tasks.recv() {
            let bytes = if let ApplyTask::Entries(pieces) = &task { bytes(pieces) } else { 0 };
            self.applier.lock().work(task)?;
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.unfinished.fetch_sub(1, Ordering::Release);
        }
        Ok(())
    }
}

/// Waits for a checkpoint that is being written.
struct Finishing<'a, S: StateMachine, R: LogReader>(&'a Common<S, R>);

impl<S: StateMachine, R: LogReader> Drop for Finishing<'_, S, R> {
    fn drop(&mut self) {
        self.0.applier.lock().applier.finish();
    }
}

impl<S: StateMachine, R: LogReader> Timed<S, R> {
    /// Whether so many entries are likely to take less time than waking a thread.
    fn is_brief(&self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.each.is_some_and(|each| each.saturating_mul(count) <= HANDING_OVER)
    }

    fn work(&mut self, task: ApplyTask<S>) -> Result<(), String> {
        let count = if let ApplyTask::Entries(pieces) = &task { count(pieces) } else { 0 };
        let started = Instant::now();
        self.applier.work(task)?;
        if let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) {
            self.each = Some(started.elapsed() / count);
        }
        Ok(())
    }
}

fn count(pieces: &[Entries]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

fn bytes(pieces: &[Entries]) -> usize {
    pieces.iter().map(Entries::bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use tempfile::TempDir;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::driver::checkpoints::Checkpoints;
    use crate::driver::host::RealHost;
    use crate::driver::shared::Shared;
    use crate::driver::testing::{Counter, Reset, entry, state_at};
    use crate::types::{NodeId, kind};

    type Queue = ApplyQueue<Counter, Reset>;

    struct Running {
        queue: Queue,
        thread: JoinHandle<()>,
        shared: Arc<Shared<Counter>>,
        core: UnboundedReceiver<Own>,
        _dir: TempDir,
    }

    fn start() -> Running {
        let dir = tempfile::tempdir().expect("temporary directory");
        let shared = Arc::new(Shared::new(state_at(0)));
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let (own, core) = unbounded_channel();
        let me = (NodeId::new(1), 1);
        let applier = Applier::new(shared.clone(), Reset, checkpoints, own.clone(), me, u64::MAX);
        let (queue, thread) = ApplyQueue::start(applier, own).expect("a thread");
        Running { queue, thread, shared, core, _dir: dir }
    }

    fn entries(range: RangeInclusive<u64>) -> Vec<Entries> {
        let at_most = |first: u64| first..=(first + 2).min(*range.end());
        let pieces = range.clone().step_by(3).map(at_most);
        pieces.map(|piece| piece.map(|at| entry(at, kind::NOOP, b"")).collect()).collect()
    }

    fn set_each(queue: &Queue, each: Duration) {
        queue.common.applier.lock().each = Some(each);
    }

    #[test]
    fn what_is_brief_is_applied_before_the_call_returns() {
        let running = start();
        set_each(&running.queue, Duration::from_nanos(1));
        running.queue.apply(entries(1..=8), Index::ZERO).expect("applied");
        assert_eq!(running.shared.applied(), Index::new(8));
    }

    #[test]
    fn what_takes_long_or_is_not_known_goes_to_the_thread() {
        let running = start();
        // The thread can do nothing while this is held.
        let mut held = running.queue.common.applier.lock();
        assert!(!held.is_brief(1));
        held.each = Some(HANDING_OVER / 4);
        assert!(held.is_brief(4));
        assert!(!held.is_brief(5));
        drop(held);
        running.queue.apply(entries(1..=5), Index::ZERO).expect("queued");
        drop(running.queue);
        running.thread.join().expect("the thread ends");
        assert_eq!(running.shared.applied(), Index::new(5));
    }

    #[test]
    fn the_order_is_that_of_the_log_whoever_applies() {
        let mut running = start();
        let (mut next, mut by_thread) = (1, 0);
        while next < 20_000 {
            let last = next + next % 7;
            // As if the last entry had been of that kind.
            let brief = next % 3 != 0;
            if let Some(mut timed) = running.queue.common.applier.try_lock() {
                timed.each = Some(if brief { Duration::ZERO } else { HANDING_OVER });
            }
            running.queue.apply(entries(next..=last), Index::ZERO).expect("applied or queued");
            by_thread += u64::from(running.shared.applied() < Index::new(last));
            next = last + 1;
        }
        drop(running.queue);
        running.thread.join().expect("the thread ends");
        // An entry out of order fails an assertion of the state, hence the thread or this test.
        assert_eq!(running.shared.applied(), Index::new(next - 1));
        assert!(by_thread > 0, "both have applied some");
        assert!(running.core.try_recv().is_err(), "nothing has failed");
    }

    #[test]
    fn many_bytes_that_wait_are_read_from_the_log_again() {
        let running = start();
        running.queue.common.waiting_bytes.store(WAITING_BYTES_MAX + 1, Ordering::Relaxed);
        running.queue.apply(entries(1..=3), Index::new(3)).expect("queued");
        drop(running.queue);
        running.thread.join().expect("the thread ends");
        assert_eq!(running.shared.applied(), Index::ZERO, "this log does not have them any more");
    }
}
