//! The thread that writes the log: takes everything that is there, writes it, syncs once, reports.
//!
//! This is the group commit: while a sync runs, new writes gather in the queue, and the next sync covers them all. No
//! timer is involved. The queue has no bound of its own; the core bounds what is in it (uncommitted bytes at the leader,
//! messages in flight at a follower).
//!
//! A full disk is no failure: what it does not take stays at the head of the queue and is tried again.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::identity::NodeState;
use super::task::Own;
use super::threads;
use super::traits::{Log, LogError};
use crate::raft::Write;
use crate::types::{Entry, EntryId, HardState, Index};

/// A full disk is tried again after this.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Work for the log.
pub(crate) enum LogTask {
    /// Make this durable and report it.
    Write(Write),
    /// Entries up to here are covered by checkpoints.
    Truncate(EntryId),
    /// Put these in the place of lost ones, and report it.
    Repair(Vec<Entry>),
    /// Entries from here on are lost for good: remember that this disk counts for nothing any more, and end.
    GiveUp { first: Index, hard_state: HardState },
}

/// Takes work for the log.
pub(crate) type LogQueue = Box<dyn FnMut(LogTask) + Send>;

/// Makes the queue to the log, and starts the thread that serves it. The thread ends when the queue is dropped, or when the
/// log has failed. A log that never waits has none: who puts something into its queue has it done.
pub(crate) fn start<L: Log>(
    log: L,
    node: NodeState,
    core: UnboundedSender<Own>,
) -> io::Result<(LogQueue, Option<JoinHandle<()>>)> {
    let waits = log.waits();
    let mut writer = Writer { log, node, core: core.clone(), queue: VecDeque::new(), is_full: false };
    if !waits {
        return Ok((Box::new(move |task| writer.work_here(task)), None));
    }
    let (sender, receiver) = channel();
    let thread = threads::spawn("log", core, move || writer.run(&receiver).map_err(|failure| failure.to_string()))?;
    // If the thread has failed, its Own::Failed is on the way and ends the core's task.
    Ok((Box::new(move |task| drop(sender.send(task))), Some(thread)))
}

struct Writer<L> {
    log: L,
    node: NodeState,
    core: UnboundedSender<Own>,
    queue: VecDeque<LogTask>,
    /// What is at the head of the queue found the disk full.
    is_full: bool,
}

impl<L: Log> Writer<L> {
    fn run(&mut self, tasks: &Receiver<LogTask>) -> Result<(), LogError> {
        while gather(tasks, &mut self.queue, self.is_full) {
            self.work()?;
        }
        Ok(())
    }

    fn work_here(&mut self, task: LogTask) {
        self.queue.push_back(task);
        let done = self.work().and_then(|()| match self.is_full {
            true => Err(LogError::new("it has no room, and only a log that waits is asked again")),
            false => Ok(()),
        });
        if let Err(failure) = done {
            self.tell_core(Own::Failed(format!("log: {failure}")));
        }
    }

    /// Does what is in the queue, and syncs once.
    fn work(&mut self) -> Result<(), LogError> {
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
            let (log, node) = (&mut self.log, self.node);
            let done = match task {
                LogTask::Write(write) => append(log, node, write),
                LogTask::Truncate(upto) => log.truncate_prefix(*upto),
                LogTask::Repair(entries) => log.repair(entries),
                LogTask::GiveUp { first, hard_state } => give_up(log, node, *hard_state, *first),
            };
            match done {
                Ok(()) => match self.queue.pop_front() {
                    Some(LogTask::Write(write)) => written = Some(write),
                    Some(LogTask::Repair(entries)) => self.tell_core(Own::Repaired(entries)),
                    _ => {}
                },
                Err(error) if error.is_disk_full() => return Ok((written, Some(error))),
                Err(error) => return Err(error),
            }
        }
        Ok((written, None))
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
