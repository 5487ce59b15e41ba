//! The thread that writes the log: takes everything that is there, writes it, syncs once, reports.
//!
//! This is the group commit: while a sync runs, new writes gather in the queue, and the next sync covers them all. No
//! timer is involved. The queue has no bound of its own; the core bounds what is in it (uncommitted bytes at the leader,
//! messages in flight at a follower).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::identity::NodeState;
use super::task::Own;
use super::threads;
use super::traits::{Log, LogError};
use crate::raft::{Durable, Write};
use crate::types::{EntryId, Member};

/// Work for the log.
pub(crate) enum LogTask {
    /// Make this durable and report it.
    Write(Write),
    /// Entries up to here are covered by checkpoints.
    Truncate(EntryId),
}

/// Starts the thread. It ends when the sender is dropped, or when the log has failed.
pub(crate) fn spawn<L: Log>(
    log: L,
    me: Member,
    core: UnboundedSender<Own>,
) -> std::io::Result<(Sender<LogTask>, JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let thread = threads::spawn("log", core.clone(), move || {
        run(log, me, &receiver, &core).map_err(|failure| failure.to_string())
    })?;
    Ok((sender, thread))
}

fn run<L: Log>(mut log: L, me: Member, tasks: &Receiver<LogTask>, core: &UnboundedSender<Own>) -> Result<(), LogError> {
    while let Ok(first) = tasks.recv() {
        let mut written: Option<Write> = None;
        for task in std::iter::once(first).chain(tasks.try_iter()) {
            match task {
                LogTask::Write(write) => {
                    append(&mut log, me, &write)?;
                    written = Some(write);
                }
                LogTask::Truncate(upto) => log.truncate_prefix(upto)?,
            }
        }
        log.sync()?;
        // The last write's token covers all earlier ones.
        let durable: Option<Durable> = written.map(Write::into_durable);
        if durable.is_some_and(|durable| core.send(Own::Durable(durable)).is_err()) {
            return Ok(());
        }
    }
    Ok(())
}

fn append<L: Log>(log: &mut L, me: Member, write: &Write) -> Result<(), LogError> {
    if let Some(base) = write.reset {
        log.reset(base)?;
    }
    let state = write.hard_state.map(|hard_state| NodeState { me, hard_state }.encode());
    if write.entries.is_empty() && state.is_none() {
        return Ok(());
    }
    log.append(&write.entries, state.as_deref())
}
