//! The thread that writes the log: takes everything that is there, writes it, syncs once, reports.
//!
//! This is the group commit: while a sync runs, new writes gather in the queue, and the next sync covers them all. No
//! timer is involved. The queue has no bound of its own; the core bounds what is in it (uncommitted bytes at the leader,
//! messages in flight at a follower).
//!
//! A full disk is no failure: what it does not take stays at the head of the queue and is tried again, and truncations
//! go before it.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::boot::term_at;
use super::identity::NodeState;
use super::task::Own;
use super::threads;
use super::traits::{Log, LogError};
use crate::raft::Write;
use crate::types::{Entries, EntryId, HardState, Index};

/// A full disk is tried again after this.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Work for the log.
pub(crate) enum LogTask {
    /// Make this durable and report it.
    Write(Write),
    /// Entries up to here are covered by checkpoints.
    Truncate(EntryId),
    /// Put these in the place of lost ones, and report it.
    Repair(Entries),
    /// Entries from here on are lost for good: remember that this disk counts for nothing any more, and end.
    GiveUp { first: Index, hard_state: HardState },
    /// The state is not that of the majority, or is again: remember it.
    Diverged { is_diverged: bool, hard_state: HardState },
}

/// Takes work for the log. Gives what has come of it, if that is known at once.
pub(crate) type LogQueue = Box<dyn FnMut(LogTask) -> Option<Own> + Send>;

/// Makes the queue to the log, and starts the thread that serves it. The thread ends when the queue is dropped, or when the
/// log has failed. A log that never waits has none: who puts something into its queue has it done.
pub(crate) fn start<L: Log>(
    log: L,
    node: NodeState,
    core: UnboundedSender<Own>,
) -> io::Result<(LogQueue, Option<JoinHandle<()>>)> {
    let waits = log.waits();
    if !waits {
        let (mut log, mut node) = (log, node);
        return Ok((Box::new(move |task| work_here(&mut log, &mut node, task)), None));
    }
    let mut writer = Writer::new(log, node, core.clone());
    let (sender, receiver) = channel();
    let thread = threads::spawn("log", core, move || writer.run(&receiver).map_err(|failure| failure.to_string()))?;
    // If the thread has failed, its Own::Failed is on the way and ends the core's task.
    let queue = move |task| {
        let _ = sender.send(task);
        None
    };
    Ok((Box::new(queue), Some(thread)))
}

fn work_here<L: Log>(log: &mut L, node: &mut NodeState, task: LogTask) -> Option<Own> {
    match work(log, node, &task).and_then(|()| log.sync()) {
        Ok(()) => done(task),
        Err(failure) => Some(Own::Failed(format!("log: {failure}"))),
    }
}

fn work<L: Log>(log: &mut L, node: &mut NodeState, task: &LogTask) -> Result<(), LogError> {
    match task {
        LogTask::Write(write) => append(log, *node, write),
        LogTask::Truncate(upto) => log.truncate_prefix(*upto),
        LogTask::Repair(entries) => log.repair(entries),
        LogTask::GiveUp { first, hard_state } => give_up(log, *node, *hard_state, *first),
        LogTask::Diverged { is_diverged, hard_state } => {
            // Every later write says so too.
            node.is_diverged = *is_diverged;
            log.append(&[], Some(&NodeState { hard_state: *hard_state, ..*node }.encode()))
        }
    }
}

/// What the core is told of a task that was done and synced.
fn done(task: LogTask) -> Option<Own> {
    match task {
        LogTask::Write(write) => Some(Own::Durable(write.into_durable())),
        LogTask::Repair(entries) => Some(Own::Repaired(entries)),
        LogTask::Truncate(_) | LogTask::GiveUp { .. } | LogTask::Diverged { .. } => None,
    }
}

/// Does what is asked of the log.
pub(crate) struct Writer<L> {
    log: L,
    node: NodeState,
    core: UnboundedSender<Own>,
    queue: VecDeque<LogTask>,
    /// What is at the head of the queue found the disk full.
    is_full: bool,
}

impl<L: Log> Writer<L> {
    pub(crate) fn new(log: L, node: NodeState, core: UnboundedSender<Own>) -> Self {
        Writer { log, node, core, queue: VecDeque::new(), is_full: false }
    }

    /// One more thing to do.
    #[cfg(feature = "testing")]
    pub(crate) fn push(&mut self, task: LogTask) {
        self.queue.push_back(task);
    }

    /// Whether there is nothing to do.
    #[cfg(feature = "testing")]
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn run(&mut self, tasks: &Receiver<LogTask>) -> Result<(), LogError> {
        while gather(tasks, &mut self.queue, self.is_full) {
            self.work()?;
        }
        Ok(())
    }

    /// Does what is in the queue, and syncs once.
    pub(crate) fn work(&mut self) -> Result<(), LogError> {
        let (written, stuck) = self.write()?;
        self.log.sync()?;
        if let Some(durable) = written.map(Write::into_durable) {
            self.tell_core(Own::Durable(durable));
        }
        if self.is_full != stuck.is_some() {
            self.is_full = stuck.is_some();
            match stuck {
                Some(error) => warn!(%error, "the disk is full; this node tries again until there is room"),
                None => info!("the disk has room again"),
            }
            self.tell_core(Own::DiskFull(self.is_full));
        }
        Ok(())
    }

    /// Hands the queue to the log. Gives the last write that was taken, whose token covers all earlier ones, and the error
    /// if the disk was full before the queue was empty.
    fn write(&mut self) -> Result<(Option<Write>, Option<LogError>), LogError> {
        let mut written = None;
        while let Some(task) = self.queue.front() {
            match work(&mut self.log, &mut self.node, task) {
                Ok(()) => match self.queue.pop_front() {
                    Some(LogTask::Write(write)) => written = Some(write),
                    Some(LogTask::Repair(entries)) => self.tell_core(Own::Repaired(entries)),
                    _ => {}
                },
                Err(error) if error.is_disk_full() => {
                    self.make_room()?;
                    return Ok((written, Some(error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((written, None))
    }

    /// Truncates the log ahead of what it has no room for, as far as it holds what is to be truncated already.
    fn make_room(&mut self) -> Result<(), LogError> {
        let reader = self.log.reader();
        // Not beyond what the tasks before it change: a reset, lost entries that are to be put there, entries that are replaced.
        let is_there = |upto: &EntryId| term_at(&reader, *upto) == Some(upto.term);
        let (mut unchanged_below, mut due) = (Index::new(u64::MAX), None);
        for task in &self.queue {
            match task {
                LogTask::Truncate(upto) if upto.index < unchanged_below && is_there(upto) => due = Some(*upto),
                LogTask::Write(write) if write.reset.is_some() => break,
                LogTask::Write(Write { entries, .. }) | LogTask::Repair(entries) => {
                    unchanged_below =
                        entries.first().map_or(unchanged_below, |first| unchanged_below.min(first.index()));
                }
                _ => {}
            }
        }
        let Some(upto) = due else { return Ok(()) };
        self.log.truncate_prefix(upto).or_else(|error| if error.is_disk_full() { Ok(()) } else { Err(error) })
    }

    fn tell_core(&self, own: Own) {
        // The core may have ended first.
        let _ = self.core.send(own);
    }
}

/// Takes everything that is there, and waits for something if there is nothing; on a full disk only for a while. False
/// if nothing will come any more.
fn gather(tasks: &Receiver<LogTask>, queue: &mut VecDeque<LogTask>, is_full: bool) -> bool {
    if is_full {
        thread::sleep(FULL_PAUSE);
    } else {
        match tasks.recv() {
            Ok(task) => queue.push_back(task),
            Err(_) => return false,
        }
    }
    loop {
        match tasks.try_recv() {
            Ok(task) => queue.push_back(task),
            Err(TryRecvError::Empty) => return true,
            // What the full disk did not take was acknowledged to nobody.
            Err(TryRecvError::Disconnected) => return !is_full,
        }
    }
}

fn give_up<L: Log>(log: &mut L, node: NodeState, hard_state: HardState, first: Index) -> Result<(), LogError> {
    log.append(&[], Some(&NodeState { hard_state, is_given_up: true, ..node }.encode()))?;
    log.sync()?;
    Err(LogError::new(format!(
        "entries from {first} on are lost, and no other node has them any more; started again, this node joins the cluster \
         with an empty log"
    )))
}

fn append<L: Log>(log: &mut L, node: NodeState, write: &Write) -> Result<(), LogError> {
    if let Some(base) = write.reset {
        log.reset(base)?;
    }
    let state = write.hard_state.map(|hard_state| NodeState { hard_state, ..node }.encode());
    if write.entries.is_empty() && state.is_none() {
        return Ok(());
    }
    log.append(&write.entries, state.as_deref())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::driver::testing::{Reset, entry};
    use crate::raft::{Boot, Options, Output, Raft};
    use crate::types::{Configuration, Entry, Incarnation, Member, NodeId, Term, kind};

    /// A log that has entry 20 as its last, and has room only when it has been truncated.
    #[derive(Default)]
    struct Full {
        truncated: Option<EntryId>,
        writes: usize,
        state: Option<Bytes>,
    }

    impl Log for Full {
        type Reader = Reset;

        fn append(&mut self, _entries: &[Entry], state: Option<&[u8]>) -> Result<(), LogError> {
            if self.truncated.is_none() {
                return Err(LogError::disk_full("no room"));
            }
            self.writes += 1;
            self.state = state.map(Bytes::copy_from_slice).or(self.state.take());
            Ok(())
        }

        fn reset(&mut self, _base: EntryId) -> Result<(), LogError> {
            Ok(())
        }

        fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), LogError> {
            self.truncated = Some(upto);
            Ok(())
        }

        fn sync(&mut self) -> Result<(), LogError> {
            Ok(())
        }

        fn state(&self) -> Option<Bytes> {
            self.state.clone()
        }

        fn reader(&self) -> Reset {
            Reset
        }
    }

    fn write() -> Write {
        let me = Member::new(NodeId::new(1), Incarnation::new(7));
        let mut raft = Raft::new(me, Options::default(), Boot::first(Configuration::new(vec![me])), Duration::ZERO);
        raft.handle_timeout(Duration::from_secs(60));
        let write = std::iter::from_fn(|| raft.poll_output()).find_map(|output| match output {
            Output::Write(write) => Some(write),
            _ => None,
        });
        write.expect("its vote")
    }

    fn writer() -> Writer<Full> {
        let me = Member::new(NodeId::new(1), Incarnation::new(7));
        let node =
            NodeState { me, hard_state: HardState::default(), starts: 1, is_given_up: false, is_diverged: false };
        let (core, _) = unbounded_channel();
        Writer { log: Full::default(), node, core, queue: VecDeque::new(), is_full: false }
    }

    fn id(term: u64, index: u64) -> EntryId {
        EntryId::new(Term::new(term), Index::new(index))
    }

    /// What there is no room for must not keep the log from being truncated, which makes room.
    #[test]
    fn a_truncation_goes_before_what_a_full_disk_did_not_take() {
        let mut writer = writer();
        writer.queue.extend([LogTask::Write(write()), LogTask::Truncate(id(1, 20)), LogTask::Write(write())]);
        writer.work().expect("a full disk is no failure");
        assert!(writer.is_full);
        assert_eq!(writer.log.truncated, Some(id(1, 20)));
        writer.work().expect("now there is room");
        assert!(!writer.is_full && writer.queue.is_empty());
        assert_eq!(writer.log.writes, 2);
    }

    #[test]
    fn what_waits_before_a_truncation_is_not_cut_off_by_it() {
        let entries = |first: u64| Entries::from(vec![entry(first, kind::NOOP, b"")]);
        for (first, truncated) in [(20, None), (7, None), (21, Some(id(1, 20)))] {
            let mut replacing = write();
            replacing.entries = entries(first);
            for task in [LogTask::Repair(entries(first)), LogTask::Write(replacing)] {
                let mut writer = writer();
                writer.queue.extend([LogTask::Write(write()), task, LogTask::Truncate(id(1, 20))]);
                writer.work().expect("a full disk is no failure");
                assert_eq!((writer.is_full, writer.log.truncated), (true, truncated), "{first}");
            }
        }
    }

    #[test]
    fn that_the_state_is_wrong_is_remembered_with_whatever_is_written_later() {
        let (mut writer, hard_state) = (writer(), HardState { term: Term::new(3), voted_for: None });
        writer.log.truncated = Some(id(1, 20));
        let stored = |writer: &Writer<Full>| NodeState::decode(&writer.log.state().expect("some")).expect("readable");
        writer.queue.extend([LogTask::Diverged { is_diverged: true, hard_state }]);
        writer.work().expect("written");
        assert_eq!(stored(&writer), NodeState { hard_state, is_diverged: true, ..writer.node });
        let vote = write();
        let hard_state = vote.hard_state.expect("its vote");
        writer.queue.extend([LogTask::Write(vote)]);
        writer.work().expect("written");
        assert_eq!(stored(&writer), NodeState { hard_state, is_diverged: true, ..writer.node });
    }

    #[test]
    fn what_is_not_in_the_log_yet_is_not_truncated_ahead() {
        let mut reset = write();
        reset.reset = Some(id(1, 20));
        for (task, upto) in [(write(), id(2, 20)), (write(), id(1, 21)), (reset, id(1, 20))] {
            let mut writer = writer();
            writer.queue.extend([LogTask::Write(task), LogTask::Truncate(upto)]);
            // A reset is taken, what goes with it is not.
            writer.work().expect("a full disk is no failure");
            assert_eq!((writer.is_full, writer.log.truncated), (true, None), "{upto}");
        }
    }
}
