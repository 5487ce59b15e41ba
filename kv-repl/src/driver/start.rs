//! From what the disk holds to a running node: the same steps on first boot and on every restart.
//!
//! 1. The disk is read: see `boot`.
//! 2. Without a founding record the node waits until the cluster is founded (see `founding`), or until a node of the cluster
//!    hands it the record: then it has been there before, and has lost its disk.
//! 3. The core runs.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use futures::FutureExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use super::applier::Applier;
use super::apply_queue::ApplyQueue;
use super::boot::{self, Boot, Booted, configurations_after, last_stamp_ms};
use super::checkpoints::Checkpoints;
use super::clock::Clock;
use super::config::{ReplicaConfig, StartError};
use super::founding::{Founding, FoundingRecord, store_record};
use super::host::{Host, RealHost, monotonic};
use super::identity::{Identity, NodeState, short};
use super::log_writer;
use super::marks::Marks;
use super::origin::Origin;
use super::peers::{self, Context, Link, PeerEvent};
use super::reads::Reads;
use super::replica::{Inner, Replica, room};
use super::replicated::Replicated;
use super::shared::{PeerView, Shared};
use super::snapshots;
use super::task::{Inboxes, Own, Task};
use super::tasks::Tasks;
use super::threads::panicked;
use super::traits::{BoxError, Log, LogReader, StateMachine};
use crate::raft::{self, Lost, Raft};
use crate::transport::Transport;
use crate::types::{Configuration, Member, NodeId};

const PEER_EVENTS: usize = 4096;
const SUBMISSIONS: usize = 1024;
const READS: usize = 4096;

/// Everything the node's task needs, beside what the core gets.
struct Node<S: StateMachine, L: Log, T: Transport> {
    config: ReplicaConfig,
    booted_log: L,
    lost: Vec<Lost>,
    node: NodeState,
    checkpoints: Checkpoints,
    shared: Arc<Shared<S>>,
    context: Arc<Context<T>>,
    links: Vec<Link>,
    cluster: watch::Sender<Option<[u8; 32]>>,
    own: mpsc::UnboundedSender<Own>,
}

impl<S: StateMachine> Replica<S> {
    /// Starts a node. The call is the same on first boot and on every restart; a cluster is founded when every node of
    /// `config.peers` has been started once. Must be called within a tokio runtime. Returns as soon as the disk has been
    /// read; until the cluster is founded and has a leader, writes and reads wait.
    ///
    /// # Errors
    ///
    /// The configuration, the log or the checkpoints don't allow it; see [`StartError`].
    pub async fn start<L: Log, T: Transport>(
        config: ReplicaConfig,
        log: L,
        transport: T,
    ) -> Result<Replica<S>, StartError> {
        config.validate()?;
        let booted = boot::read_disk(&config, log, None).await?;
        match booted {
            Boot::Ready(booted) => Ok(Replica::run(config, *booted, transport)),
            Boot::BeyondRepair { reason, .. } => Err(StartError::Damaged(reason)),
        }
    }

    /// Starts a node with what its disk held.
    pub(super) fn run<L: Log, T: Transport>(config: ReplicaConfig, booted: Booted<S, L>, transport: T) -> Replica<S> {
        let (events, peers) = mpsc::channel(PEER_EVENTS);
        let (submissions, submitted) = mpsc::channel(SUBMISSIONS);
        let (reads, read) = mpsc::channel(READS);
        let (own, own_events) = mpsc::unbounded_channel();
        let inboxes = Inboxes { peers, own: own_events, submissions: submitted, reads: read };

        let shared = Arc::new(Shared::new(booted.state));
        shared.is_diverged.store(booted.node.is_diverged, Ordering::Release);
        let (cluster, cluster_seen) = watch::channel(booted.founding.as_ref().map(FoundingRecord::cluster_id));
        let (context, links) = connect(&config, booted.node.me, booted.founding, transport, events, &shared);
        let inner = Inner {
            me: booted.node.me,
            cluster: cluster_seen,
            shared: shared.clone(),
            submissions,
            room: room(),
            reads,
            own: own.clone(),
            write_timeout: config.write_timeout,
            read_timeout: config.read_timeout,
        };
        let node = Node {
            config,
            booted_log: booted.log,
            lost: booted.lost,
            node: booted.node,
            checkpoints: booted.checkpoints,
            shared,
            context,
            links,
            cluster,
            own,
        };
        tokio::spawn(node.run(inboxes));
        Replica::new(inner)
    }
}

/// Prepares the connections and starts dialing and accepting.
fn connect<S: StateMachine, T: Transport>(
    config: &ReplicaConfig,
    me: Member,
    founding: Option<FoundingRecord>,
    transport: T,
    events: mpsc::Sender<PeerEvent>,
    shared: &Arc<Shared<S>>,
) -> (Arc<Context<T>>, Vec<Link>) {
    let mut listed: Vec<NodeId> = config.peers.iter().map(|(id, _)| *id).collect();
    listed.sort();
    let greeted = shared.clone();
    let context = Arc::new(Context {
        transport,
        founded: watch::Sender::new(founding.is_some()),
        identity: RwLock::new(Identity::new(me, listed, config.client_address.clone(), founding)),
        events,
        on_greeting: Box::new(move |peer, address| {
            if let Some(view) = greeted.peers.lock().get_mut(&peer) {
                view.client_address = Some(address.to_owned());
            }
        }),
        patience: config.raft.election_timeout_max * 2,
        tasks: Arc::default(),
    });
    let mut links = Vec::new();
    for (id, address) in config.peers.iter().filter(|(id, _)| *id != me.id) {
        let view = PeerView { peer_address: address.clone(), ..PeerView::default() };
        shared.peers.lock().insert(*id, view);
        let (link, dialing) = peers::dial(context.clone(), *id, address.clone());
        context.tasks.spawn(dialing);
        links.push(link);
    }
    context.tasks.spawn(peers::accept(context.clone()));
    (context, links)
}

/// Ends a node when it is dropped, however its task ends: everybody who waits for it hears why.
struct Ending<S: StateMachine> {
    shared: Arc<Shared<S>>,
    tasks: Arc<Tasks>,
    /// `None` if somebody asked for it.
    reason: Option<String>,
}

impl<S: StateMachine> Drop for Ending<S> {
    fn drop(&mut self) {
        self.tasks.abort();
        self.shared.close();
        let reason = self.reason.take();
        match &reason {
            Some(reason) => error!(%reason, "this node has stopped"),
            None => info!("this node has stopped"),
        }
        self.shared.stopped.send_replace(Some(reason.unwrap_or_default()));
    }
}

impl<S: StateMachine, L: Log, T: Transport> Node<S, L, T> {
    /// Founds the cluster if need be, runs the core to its end, and cleans up: whoever hears that the node has ended can
    /// use its files and its address.
    async fn run(self, inboxes: Inboxes<S::Outcome>) {
        let tasks = self.context.tasks.clone();
        let mut ending = Ending {
            shared: self.shared.clone(),
            tasks: tasks.clone(),
            reason: Some("its task was dropped".to_owned()),
        };
        ending.reason = self.run_to_end(inboxes).await;
        tasks.shutdown().await;
    }

    async fn run_to_end(mut self, mut inboxes: Inboxes<S::Outcome>) -> Option<String> {
        let founding = self.context.identity.read().founding.clone();
        match founding {
            Some(record) => self.run_core(record, inboxes).await,
            None => match self.found(&mut inboxes).await {
                Ok(Some(record)) => self.run_core(record, inboxes).await,
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            },
        }
    }

    /// Waits until this node founds the cluster or is handed its record; `None` if it is stopped before.
    async fn found(&mut self, inboxes: &mut Inboxes<S::Outcome>) -> Result<Option<FoundingRecord>, StartError> {
        let listed = self.context.identity.read().listed.clone();
        info!(peers = ?listed.iter().map(|id| id.get()).collect::<Vec<_>>(), "empty: waiting until all nodes are there");
        let mut founding = Founding::new(self.node.me, listed);
        loop {
            if let Some(configuration) = founding.voters() {
                let secret = draw_secret()?;
                return self.store_founding(FoundingRecord { configuration, secret }).map(Some);
            }
            tokio::select! {
                event = inboxes.peers.recv() => match event {
                    Some(PeerEvent::Empty { peer }) => founding.heard_empty(peer),
                    Some(PeerEvent::Disconnected { peer }) => founding.forget(peer.id),
                    Some(PeerEvent::Found { from, record }) => {
                        let record = FoundingRecord::naming(self.node.me.id, &record);
                        if let Some(record) = record.filter(|record| self.context.identity.write().accept(from, record)) {
                            return self.store_founding(record).map(Some);
                        }
                    }
                    Some(PeerEvent::Message { .. } | PeerEvent::Connected { .. }) => {}
                    None => return Ok(None),
                },
                event = inboxes.own.recv() => if matches!(event, None | Some(Own::Stop)) { return Ok(None) },
            }
        }
    }

    /// The record is durable before this node says that it has it. This happens once in a node's life.
    fn store_founding(&mut self, record: FoundingRecord) -> Result<FoundingRecord, StartError> {
        store_record(&mut self.booted_log, &mut self.node, &record)?;
        let cluster = record.cluster_id();
        info!(cluster = %short(&cluster), voters = record.configuration.voters().len(), "founded");
        self.context.identity.write().founding = Some(record.clone());
        self.context.founded.send_replace(true);
        self.cluster.send_replace(Some(cluster));
        Ok(record)
    }

    async fn run_core(self, record: FoundingRecord, inboxes: Inboxes<S::Outcome>) -> Option<String> {
        match self.prepare(record.configuration) {
            Ok((task, threads)) => {
                // What the core believes is asserted. If it is not so, this node ends, and its process need not.
                let ended = AssertUnwindSafe(task.run(inboxes)).catch_unwind().await;
                let reason = ended.unwrap_or_else(|panic| Some(format!("core: {}", panicked(&*panic))));
                let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(join)).await;
                reason.or_else(|| joined.err().map(|panic| panic.to_string()))
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Starts the threads and puts the core together.
    fn prepare(self, founders: Configuration) -> Result<Prepared<S, L::Reader>, StartError> {
        let other = |error: std::io::Error| StartError::Other(Box::new(error));
        let reader = self.booted_log.reader();
        let host: Arc<dyn Host> = Arc::new(RealHost);
        let nonce = draw_nonce(&self.node, &*host)?;
        let boot = core_boot(&self.node, &*self.shared.state.read(), &reader, founders, self.lost)?;
        let options = crate::raft::Options { seed: host.draw()?, ..self.config.raft.clone() };
        let raft = Raft::new(self.node.me, options, boot, monotonic());
        let (log, log_thread) = log_writer::start(self.booted_log, self.node, self.own.clone()).map_err(other)?;
        let (receiving, received) = std::sync::mpsc::channel();
        let applier = Applier::new(
            self.shared.clone(),
            reader.clone(),
            self.checkpoints.clone(),
            self.own.clone(),
            (self.node.me.id, nonce),
            self.config.checkpoint_log_bytes,
        );
        let (apply, apply_thread) = ApplyQueue::start(applier, self.own.clone()).map_err(other)?;
        let (snapshots, snapshot_thread) =
            snapshots::spawn(self.checkpoints, self.shared.clone(), receiving, self.own.clone()).map_err(other)?;
        let task = Task {
            raft,
            shared: self.shared,
            reader,
            log,
            apply,
            snapshots,
            received,
            unrestored: BTreeMap::new(),
            covered: VecDeque::new(),
            own: self.own,
            links: self.links,
            marks: Marks::new(self.config.compare_interval),
            origin: Origin::new(self.node.me.id, nonce),
            reads: Reads::default(),
            clock: Clock::default(),
            host,
        };
        Ok((task, log_thread.into_iter().chain([apply_thread, snapshot_thread]).collect()))
    }
}

/// The nonce of a node process. Later starts have greater ones; the rest tells a disk from its copy.
pub(super) fn draw_nonce(node: &NodeState, host: &dyn Host) -> Result<u64, StartError> {
    Ok(node.starts << 32 | host.draw()? >> 32)
}

/// What the core begins with. `founders` is the configuration for a state that has applied nothing.
pub(super) fn core_boot<S: StateMachine, R: LogReader>(
    node: &NodeState,
    state: &Replicated<S>,
    reader: &R,
    founders: Configuration,
    lost: Vec<Lost>,
) -> Result<raft::Boot, StartError> {
    let applied = state.applied.index;
    let is_founded = *state.configuration() != Configuration::default();
    Ok(raft::Boot {
        hard_state: node.hard_state,
        configuration: if is_founded { state.configuration().clone() } else { founders },
        configurations: configurations_after(reader, applied, &lost)?,
        base: reader.base(),
        terms: reader.term_runs(),
        last: reader.last().index,
        applied,
        stamp_ms: state.stamp_ms().max(last_stamp_ms(reader)?),
        lost,
        is_diverged: node.is_diverged,
    })
}

/// The core's task, and the threads that work for it.
type Prepared<S, R> = (Task<S, R>, Vec<JoinHandle<()>>);

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a thread of this node panicked");
    }
}

fn draw_secret() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Other(BoxError::from(error.to_string())))?;
    Ok(bytes)
}
