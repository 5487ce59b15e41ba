//! A whole node without a thread, a socket or a clock: the driver's own parts, put together so that a simulation decides
//! when each of them does something.
//!
//! The core's task, the log writer, the applier, the checkpoints and the sessions are those that a real node runs. What
//! differs is who calls them: the simulation, one after the other, instead of threads and a runtime.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::applier::{Applier, write_checkpoint};
use super::apply_queue::ApplyQueue;
use super::boot::{Boot, Booted, boot};
use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::config::{ReplicaConfig, StartError};
use super::founding::{Founding, FoundingRecord, store_record};
use super::host::Host;
use super::identity::Identity;
use super::log_writer::{LogTask, Writer};
use super::marks::Marks;
use super::origin::{Origin, Submission, Ticket};
use super::peers::{Link, PeerEvent};
use super::reads::Reads;
use super::replica::room;
use super::shared::{Answer, Shared};
use super::snapshots::{Mover, SnapshotTask};
use super::start::{core_boot, draw_nonce};
use super::task::{Inboxes, Own, Task};
use super::traits::{Log, LogError, StateMachine};
use crate::codec::Frame;
use crate::message::Message;
use crate::raft::{self, Raft};
use crate::types::{Configuration, Index, Member, NodeId, kind};

/// A running node.
pub(crate) struct SimNode<S: StateMachine> {
    task: Task<S, kv_wal::Reader>,
    inboxes: Inboxes<S::Outcome>,
    /// What it says of itself.
    pub(crate) identity: Identity,
    writer: Writer<kv_wal::Log>,
    log_tasks: Arc<Mutex<VecDeque<LogTask>>>,
    mover: Mover<S>,
    snapshot_tasks: Receiver<SnapshotTask>,
    checkpoints: Checkpoints,
    frames: Vec<(NodeId, mpsc::Receiver<Frame>)>,
    peers: mpsc::Sender<PeerEvent>,
    submissions: mpsc::Sender<Submission<S::Outcome>>,
    reads: mpsc::Sender<oneshot::Sender<Index>>,
    own: mpsc::UnboundedSender<Own>,
}

/// A write that has been given to a node.
pub(crate) struct PendingWrite<O> {
    answers: oneshot::Receiver<Vec<Answer<O>>>,
    ticket: Ticket,
}

/// What has become of a write.
pub(crate) enum WriteResult<O> {
    /// It has been done.
    Done(O),
    /// It may be done, now or later.
    Unknown,
    /// It has entered no log.
    NotMade,
}

impl<O> PendingWrite<O> {
    /// What has become of it, if that is known.
    pub(crate) fn poll(&mut self) -> Option<WriteResult<O>> {
        match self.answers.try_recv() {
            Ok(mut answers) => Some(match answers.pop() {
                Some(Answer::Outcome(outcome)) => WriteResult::Done(outcome),
                _ => WriteResult::Unknown,
            }),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(self.give_up()),
        }
    }

    /// Its client waits no longer.
    pub(crate) fn give_up(&self) -> WriteResult<O> {
        if self.ticket.give_up() { WriteResult::NotMade } else { WriteResult::Unknown }
    }
}

/// What a node finds on its disk.
pub(crate) enum Started<S: StateMachine> {
    /// It runs.
    Running(Box<SimNode<S>>),
    /// It waits until there is a cluster.
    Empty(Box<EmptyNode<S>>),
    /// Its disk counts for nothing any more.
    BeyondRepair,
}

/// A node that belongs to no cluster yet.
pub(crate) struct EmptyNode<S: StateMachine> {
    config: ReplicaConfig,
    booted: Booted<S, kv_wal::Log>,
    /// What it says of itself.
    pub(crate) identity: Identity,
    /// What it has heard from the others.
    pub(crate) founding: Founding,
}

impl<S: StateMachine> EmptyNode<S> {
    /// It founds a cluster, or has been handed the record of one that names it: from now on it belongs to that.
    pub(crate) fn found(
        mut self,
        record: &FoundingRecord,
        now: Duration,
        host: &Arc<dyn Host>,
    ) -> Result<Box<SimNode<S>>, StartError> {
        store_record(&mut self.booted.log, &mut self.booted.node, record)?;
        SimNode::assemble(&self.config, self.booted, record, now, host)
    }
}

impl<S: StateMachine> SimNode<S> {
    /// Starts a node from its disk: a log, and checkpoints in `config.dir`.
    pub(crate) fn start(
        config: &ReplicaConfig,
        log: kv_wal::Log,
        now: Duration,
        host: &Arc<dyn Host>,
    ) -> Result<Started<S>, StartError> {
        let Boot::Ready(booted) = boot::<S, _>(config, log, None, host)? else {
            return Ok(Started::BeyondRepair);
        };
        match booted.founding.clone() {
            Some(record) => SimNode::assemble(config, *booted, &record, now, host).map(Started::Running),
            None => {
                let me = booted.node.me;
                let identity = sim_identity(config, me, None);
                let founding = Founding::new(me, identity.listed.clone());
                let empty = EmptyNode { config: config.clone(), booted: *booted, identity, founding };
                Ok(Started::Empty(Box::new(empty)))
            }
        }
    }

    fn assemble(
        config: &ReplicaConfig,
        booted: Booted<S, kv_wal::Log>,
        record: &FoundingRecord,
        now: Duration,
        host: &Arc<dyn Host>,
    ) -> Result<Box<SimNode<S>>, StartError> {
        let reader = Log::reader(&booted.log);
        let nonce = draw_nonce(&booted.node, &**host)?;
        let founders = record.configuration.clone();
        let begin = core_boot(&booted.node, &booted.state, &reader, founders, booted.lost)?;
        let options = raft::Options { seed: host.draw()?, ..config.raft.clone() };
        let raft = Raft::new(booted.node.me, options, begin, now);

        let (peers, from_peers) = mpsc::channel(1 << 16);
        let (submissions, submitted) = mpsc::channel(1 << 16);
        let (reads, read) = mpsc::channel(1 << 16);
        let (own, own_events) = mpsc::unbounded_channel();
        let (snapshots, snapshot_tasks) = channel();
        let (receiving, received) = channel();
        let shared = Arc::new(Shared::new(booted.state));
        shared.is_diverged.store(booted.node.is_diverged, Ordering::Release);
        let me = (config.id, nonce);
        let checkpoints = booted.checkpoints;
        let applier = Applier::new(shared.clone(), reader.clone(), checkpoints.clone(), own.clone(), me, u64::MAX);
        let (links, frames) =
            config.peers.iter().filter(|(id, _)| *id != config.id).map(|(id, _)| Link::to(*id)).unzip();
        let log_tasks: Arc<Mutex<VecDeque<LogTask>>> = Arc::default();
        let queue = log_tasks.clone();
        let task = Task {
            raft,
            shared: shared.clone(),
            reader,
            log: Box::new(move |task| {
                queue.lock().push_back(task);
                None
            }),
            apply: ApplyQueue::without_thread(applier),
            snapshots,
            received,
            unrestored: BTreeMap::new(),
            covered: VecDeque::new(),
            own: own.clone(),
            links,
            marks: Marks::new(config.compare_interval),
            origin: Origin::new(config.id, nonce),
            reads: Reads::default(),
            clock: Clock::default(),
            host: host.clone(),
        };
        Ok(Box::new(SimNode {
            task,
            inboxes: Inboxes { peers: from_peers, own: own_events, submissions: submitted, reads: read },
            identity: sim_identity(config, booted.node.me, Some(record)),
            writer: Writer::new(booted.log, booted.node, own.clone()),
            log_tasks,
            mover: Mover::new(checkpoints.clone(), shared, receiving, own.clone()),
            snapshot_tasks,
            checkpoints,
            frames,
            peers,
            submissions,
            reads,
            own,
        }))
    }

    /// Takes whatever has arrived, and carries out what follows from it. Breaks when the node ends, with the reason.
    pub(crate) fn turn(&mut self, now: Duration) -> ControlFlow<String> {
        let turned = self.task.turn(now, &mut self.inboxes);
        if let ControlFlow::Break(reason) = turned {
            return ControlFlow::Break(reason.unwrap_or_default());
        }
        while let Ok(task) = self.snapshot_tasks.try_recv() {
            self.mover.work(task);
        }
        ControlFlow::Continue(())
    }

    /// When it has something to do, if nothing arrives before. At once if something has.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let has_arrived = !self.inboxes.own.is_empty() || !self.inboxes.peers.is_empty();
        if has_arrived { Some(Duration::ZERO) } else { self.task.deadline() }
    }

    /// Whether something waits for the disk.
    pub(crate) fn wants_disk(&self) -> bool {
        !self.log_tasks.lock().is_empty() || !self.writer.is_idle()
    }

    /// Writes what there is to write, and syncs once.
    pub(crate) fn use_disk(&mut self) -> Result<(), LogError> {
        self.log_tasks.lock().drain(..).for_each(|task| self.writer.push(task));
        self.writer.work()
    }

    /// What it has sent since this was last asked.
    pub(crate) fn take_messages(&mut self) -> Vec<(NodeId, Message)> {
        let mut taken = Vec::new();
        for (to, frames) in &mut self.frames {
            while let Ok(frame) = frames.try_recv() {
                if let Frame::Message(message) = frame {
                    taken.push((*to, message));
                }
            }
        }
        taken
    }

    /// Something happens on a connection.
    pub(crate) fn deliver(&self, event: PeerEvent) {
        // A queue that is full loses it, as a network may.
        let _ = self.peers.try_send(event);
    }

    /// A client's command.
    pub(crate) fn submit(&self, command: Bytes) -> PendingWrite<S::Outcome> {
        let room = room().try_acquire_owned().expect("a fresh room is empty");
        let (reply, answers) = oneshot::channel();
        let ticket = Ticket::new(vec![(kind::COMMAND, command)], room);
        // One that finds no place is closed at once.
        let _ = self.submissions.try_send(Submission { reply, ticket: ticket.clone() });
        PendingWrite { answers, ticket }
    }

    /// A client's read: it may look at the state when this is answered.
    pub(crate) fn read(&self) -> oneshot::Receiver<Index> {
        let (reply, answer) = oneshot::channel();
        let _ = self.reads.try_send(reply);
        answer
    }

    /// Looks at the state as it is applied here.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.task.shared.state.read().machine)
    }

    /// Whether it votes in the configuration that has been applied, and no change is under way there.
    pub(crate) fn is_settled_voter(&self) -> bool {
        let state = self.task.shared.state.read();
        state.configuration().is_voter(self.me()) && !state.configuration().is_joint()
    }

    /// What has been applied.
    pub(crate) fn applied(&self) -> Index {
        self.task.shared.applied()
    }

    /// The same, and the state hash there.
    pub(crate) fn state(&self) -> (Index, [u8; 32]) {
        let state = self.task.shared.state.read();
        (state.applied.index, state.state_hash())
    }

    /// Writes a checkpoint of what has been applied.
    pub(crate) fn checkpoint(&self) -> std::io::Result<()> {
        let state = self.task.shared.state.read();
        let (view, meta) = (state.machine.view(), state.checkpoint_meta());
        write_checkpoint(&self.checkpoints, &view, &meta, &self.task.shared, &self.own)
    }

    /// The leader is asked to let another node lead.
    pub(crate) fn transfer(&self) {
        let (reply, _) = oneshot::channel();
        let _ = self.own.send(Own::Transfer { to: None, reply });
    }

    /// The leader is asked for other members.
    pub(crate) fn change_membership(&self, target: Configuration) {
        let _ = self.own.send(Own::Change(target));
    }

    /// The newest checkpoint, if the log reaches back to the one before it.
    pub(crate) fn spare_checkpoint(&self) -> std::io::Result<Option<PathBuf>> {
        let base = self.task.raft.status().base.index;
        let all = self.checkpoints.list()?;
        let is_spare = all.get(1).is_some_and(|older| older.index >= base);
        Ok(all.first().filter(|_| is_spare).map(|newest| self.checkpoints.path(*newest)))
    }

    /// The core, to be looked at.
    pub(crate) fn core(&self) -> &Raft {
        &self.task.raft
    }

    /// Who it is, with the disk it has now.
    pub(crate) fn me(&self) -> Member {
        self.task.raft.me()
    }

    /// Whether its state was found to differ from the majority's.
    pub(crate) fn is_diverged(&self) -> bool {
        self.task.shared.is_diverged.load(Ordering::Acquire)
    }
}

/// The settings of a node in a simulation.
pub(crate) fn sim_config(id: NodeId, peers: &[NodeId], dir: &Path, raft: raft::Options) -> ReplicaConfig {
    let peers = peers.iter().map(|peer| (*peer, String::new())).collect();
    ReplicaConfig { raft, compare_interval: Duration::from_millis(700), ..ReplicaConfig::new(id, dir, peers) }
}

fn sim_identity(config: &ReplicaConfig, me: Member, founding: Option<&FoundingRecord>) -> Identity {
    let listed = config.peers.iter().map(|(id, _)| *id).collect();
    Identity::new(me, listed, String::new(), founding.cloned())
}
