//! The handle to a running node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::origin::{Submission, Ticket};
use super::reads::ReadRequest;
use super::replicated::COMMAND_HEADER_BYTES;
use super::shared::{Answer, Mark, Shared};
use super::task::Own;
use super::traits::StateMachine;
use crate::message::PROPOSAL_BYTES_MAX;
use crate::raft::{self, Role};
use crate::types::{Configuration, Index, Kind, Member, NodeId, Term, kind};

/// Longest command accepted, in bytes.
pub const COMMAND_BYTES_MAX: usize = 17 << 20;

const _: () = assert!(COMMAND_BYTES_MAX + COMMAND_HEADER_BYTES <= PROPOSAL_BYTES_MAX, "every command can be proposed");

/// A node of the cluster, running in this process. Cloning it costs a reference count. The node runs until
/// [`Replica::shutdown`], until the last clone is dropped, or until it fails (see [`Replica::stopped`]).
pub struct Replica<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S: StateMachine> {
    pub(crate) me: Member,
    pub(crate) cluster: watch::Receiver<Option<[u8; 32]>>,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) submissions: mpsc::Sender<Submission<S::Outcome>>,
    /// See [`room`].
    pub(crate) room: Arc<Semaphore>,
    pub(crate) reads: mpsc::Sender<ReadRequest>,
    pub(crate) own: mpsc::UnboundedSender<Own>,
    pub(crate) write_timeout: Duration,
    pub(crate) read_timeout: Duration,
}

/// Bytes of commands that wait to be taken, in KiB; more wait outside.
const ROOM_KIB: usize = 64 << 10;

/// The room for writes that have not been taken yet. All of it is enough for any one of them.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM_KIB))
}

fn room_for(bytes: usize) -> u32 {
    bytes.div_ceil(1024).clamp(1, ROOM_KIB) as u32
}

struct AbandonOnDrop(Ticket);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl<S: StateMachine> Drop for Inner<S> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.own.send(Own::Stop);
    }
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Replica { inner: self.inner.clone() }
    }
}

/// Why a write has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// There was no leader, or no room for more writes, for as long as the write may wait. It has entered no log and will
    /// not happen.
    #[error("no leader could be reached in time; the write was not made")]
    NoLeader,
    /// The log of this node, which leads, has had no room for as long as the write may wait. It has entered no log and
    /// will not happen.
    #[error("the disk is full; the write was not made")]
    DiskFull,
    /// The write was handed on and may or may not happen, now or later. Nobody can know.
    #[error("no confirmation arrived in time; the write may or may not have been made")]
    Unknown,
    /// The command is longer than [`COMMAND_BYTES_MAX`].
    #[error("the command is longer than {COMMAND_BYTES_MAX} bytes")]
    TooLarge,
    /// The state of this node is not that of the majority: it serves nobody until it has been replaced. The write was not
    /// made.
    #[error("the state of this node is not that of the majority; the write was not made")]
    Diverged,
    /// This node has stopped. Writes that it had handed on may or may not happen.
    #[error("this node has stopped; the write may or may not have been made")]
    Stopped,
}

/// Why a read cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader confirmed in time that nothing newer exists.
    #[error("no leader could be reached in time")]
    NoLeader,
    /// The state of this node is not that of the majority: it serves nobody until it has been replaced.
    #[error("the state of this node is not that of the majority")]
    Diverged,
    /// This node has stopped.
    #[error("this node has stopped")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// It cannot be, as things are.
    #[error(transparent)]
    Refused(#[from] raft::TransferError),
    /// Another node did not take it in time: it did not catch up, did not answer, or was not elected.
    #[error("node {to} did not take leadership")]
    Failed {
        /// That node.
        to: NodeId,
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
    /// This node has stopped.
    #[error("this node has stopped")]
    Stopped,
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub me: Member,
    /// Whether it leads.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Last entry of its log.
    pub last: Index,
    /// Last entry it knows to be committed.
    pub committed: Index,
    /// Last entry it has applied.
    pub applied: Index,
    /// The entry up to which `state_hash` covers the state.
    pub hash_index: Index,
    /// Hash of the replicated state.
    pub state_hash: [u8; 32],
    /// The cluster it belongs to; `None` before the founding.
    pub cluster: Option<[u8; 32]>,
    /// Who belongs to the cluster: the configuration in force on this node.
    pub configuration: Arc<Configuration>,
    /// Whether entries of its log are lost and have not been repaired from other nodes yet.
    pub is_damaged: bool,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
}

/// What a node knows of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The other node.
    pub id: NodeId,
    /// Where it is dialed.
    pub peer_address: String,
    /// Where its clients connect, as it said when it last greeted.
    pub client_address: Option<String>,
    /// Whether the connection to it is open.
    pub connected: bool,
}

impl<S: StateMachine> Replica<S> {
    pub(crate) fn new(inner: Inner<S>) -> Replica<S> {
        Replica { inner: Arc::new(inner) }
    }

    /// Replicates commands and gives their outcomes, in order, when they have been applied on this node: from then on a
    /// [`Replica::read`] here sees them. Works on every node; a follower forwards to the leader. Each command is executed
    /// at most once, and exactly once unless there is an error. If the future is dropped, the commands are executed only if
    /// they had been sent already.
    pub async fn submit(&self, commands: Vec<Bytes>) -> Vec<Result<S::Outcome, WriteError>> {
        let fits: Vec<bool> = commands.iter().map(|command| command.len() <= COMMAND_BYTES_MAX).collect();
        let taken = commands.into_iter().filter(|command| command.len() <= COMMAND_BYTES_MAX);
        let result = if self.is_diverged() {
            Err(WriteError::Diverged)
        } else {
            self.replicate(taken.map(|command| (kind::COMMAND, command)).collect()).await
        };
        let mut answers = result.map(Vec::into_iter);
        let mut next = || match &mut answers {
            Err(error) => Err(*error),
            Ok(answers) => match answers.next() {
                Some(Answer::Outcome(outcome)) => Ok(outcome),
                _ => Err(WriteError::Unknown),
            },
        };
        fits.into_iter().map(|fits| if fits { next() } else { Err(WriteError::TooLarge) }).collect()
    }

    /// Passes a mark through the log: every replica notes its state hash, and the state it was computed from, at the
    /// mark's position, which is returned. See [`Replica::marked`].
    ///
    /// # Errors
    ///
    /// As for any write.
    pub async fn mark(&self) -> Result<Index, WriteError> {
        match self.replicate(vec![(kind::MARK, Bytes::new())]).await?.pop() {
            Some(Answer::Marked(index)) => Ok(index),
            _ => Err(WriteError::Unknown),
        }
    }

    async fn replicate(&self, commands: Vec<(Kind, Bytes)>) -> Result<Vec<Answer<S::Outcome>>, WriteError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + self.inner.write_timeout;
        let bytes: usize = commands.iter().map(|(_, command)| command.len()).sum();
        let room = self.inner.room.clone().acquire_many_owned(room_for(bytes));
        let room = match timeout_at(deadline, room).await {
            Ok(room) => room.expect("it is never closed"),
            Err(_) => return Err(self.refusal()),
        };
        let (reply, answers) = oneshot::channel();
        let ticket = Ticket::new(commands, room);
        let submission = Submission { reply, ticket: ticket.clone() };
        // Gives the submission up also when the caller drops this future.
        let abandon = AbandonOnDrop(ticket.clone());
        let answers = async {
            self.inner.submissions.send(submission).await.map_err(|_| WriteError::Stopped)?;
            answers.await.map_err(|_| WriteError::Stopped)
        };
        let result = timeout_at(deadline, answers).await;
        drop(abandon);
        match result {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) | Err(_) if ticket.give_up() => Err(self.refusal()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(WriteError::Unknown),
        }
    }

    /// Why a write that was never taken has not been.
    fn refusal(&self) -> WriteError {
        if self.inner.shared.core.borrow().is_disk_full { WriteError::DiskFull } else { WriteError::NoLeader }
    }

    /// Waits until [`Replica::read`] on this node sees every write that was confirmed, anywhere, before this call
    /// (ReadIndex, thesis, section 6.4). Gives the applied index.
    ///
    /// # Errors
    ///
    /// No leader could confirm that in time, or the node has stopped.
    pub async fn barrier(&self) -> Result<Index, ReadError> {
        let (reply, ready) = oneshot::channel();
        let ready = async {
            self.inner.reads.send(reply).await.map_err(|_| ReadError::Stopped)?;
            ready.await.map_err(|_| ReadError::Stopped)
        };
        let applied = timeout(self.inner.read_timeout, ready).await.unwrap_or(Err(ReadError::NoLeader))?;
        if self.is_diverged() { Err(ReadError::Diverged) } else { Ok(applied) }
    }

    /// Whether this node has found that its state is not that of the majority. Then it refuses reads and writes, and does
    /// not lead; it goes on as a voter, and [`Replica::read`] and [`Replica::marked`] show what is wrong. Replace its disk.
    pub fn is_diverged(&self) -> bool {
        self.inner.shared.is_diverged.load(Ordering::Acquire)
    }

    /// Looks at the state as this node has it now; stale unless [`Replica::barrier`] was awaited before. Applying waits
    /// meanwhile: take what is needed, or a view, and go.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.inner.shared.state.read().machine)
    }

    /// What this node noted when it applied the mark at `index`; `None` if it has not yet, or has forgotten. The last
    /// eight marks are kept.
    pub fn marked(&self, index: Index) -> Option<Mark<S>> {
        self.inner.shared.mark(index)
    }

    /// Where this node stands. Positions of the log and of the state are taken one after the other.
    pub fn status(&self) -> Status {
        let state = self.inner.shared.state.read();
        let (hash_index, state_hash) = (state.applied.index, state.state_hash());
        drop(state);
        let core = self.inner.shared.core.borrow().clone();
        let peers = self.inner.shared.peers.lock();
        let peers = peers.iter().map(|(id, view)| PeerStatus {
            id: *id,
            peer_address: view.peer_address.clone(),
            client_address: view.client_address.clone(),
            connected: view.connected,
        });
        Status {
            me: self.inner.me,
            role: core.role,
            term: core.term,
            leader: core.leader,
            last: core.last,
            committed: core.committed,
            applied: hash_index,
            hash_index,
            state_hash,
            cluster: *self.inner.cluster.borrow(),
            configuration: core.configuration,
            is_damaged: core.is_damaged,
            peers: peers.collect(),
        }
    }

    /// Hands leadership from this node to another one, and returns when that leads (thesis, section 3.10). Writes that
    /// come meanwhile wait for the new leader.
    ///
    /// # Errors
    ///
    /// See [`TransferError`]. If nothing came of it, this node leads as before, or whoever is named there.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), TransferError> {
        self.hand_over(Some(to)).await
    }

    async fn hand_over(&self, to: Option<NodeId>) -> Result<(), TransferError> {
        let (reply, answer) = oneshot::channel();
        self.inner.own.send(Own::Transfer { to, reply }).map_err(|_| TransferError::Stopped)?;
        let to = answer.await.map_err(|_| TransferError::Stopped)??;
        let mut core = self.inner.shared.core.subscribe();
        let decided = core.wait_for(|core| core.transfer_to.is_none() && core.leader.is_some());
        let leader = match timeout(self.inner.write_timeout, decided).await {
            Ok(Ok(core)) => core.leader,
            _ => None,
        };
        if leader == Some(to) { Ok(()) } else { Err(TransferError::Failed { to, leader }) }
    }

    /// Stops the node and waits until its threads have ended. What it has confirmed is durable. If it leads, it hands
    /// leadership over first, so that the others need not miss it before they elect another.
    pub async fn shutdown(&self) {
        if self.inner.shared.core.borrow().role == Role::Leader {
            // Whatever comes of it: it is going.
            let _ = self.hand_over(None).await;
        }
        // It may have ended by itself.
        let _ = self.inner.own.send(Own::Stop);
        self.stopped().await;
    }

    /// Waits until the node has ended, and says why if nobody asked it to: a failed disk, for one.
    pub async fn stopped(&self) -> Option<String> {
        let mut stopped = self.inner.shared.stopped.subscribe();
        let ended = stopped.wait_for(Option::is_some).await;
        let reason = ended.map_or_else(|_| Some(String::new()), |reason| reason.clone());
        reason.filter(|reason| !reason.is_empty())
    }
}
