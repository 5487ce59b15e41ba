//! From what the disk holds to a running node: the same steps on first boot and on every restart.
//!
//! 1. The state blob of the log says who the node is; an empty log gets a new incarnation. It is durable, and the start is
//!    counted, before anybody hears of it.
//! 2. The newest checkpoint that is whole gives the state.
//! 3. Log and checkpoint are brought together: see `reconcile`.
//! 4. Without a founding record the node waits until the cluster is founded (see `founding`); then the core runs.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::applier::Applier;
use super::checkpoints::Checkpoints;
use super::config::{ReplicaConfig, StartError};
use super::founding::{Founding, FoundingRecord};
use super::identity::{Identity, NodeState, short};
use super::log_writer;
use super::origin::Origin;
use super::peers::{self, Context, Link, PeerEvent};
use super::reads::Reads;
use super::replica::{Inner, Replica, room};
use super::replicated::Replicated;
use super::shared::{PeerView, Shared};
use super::snapshots;
use super::task::{Inboxes, Own, Task};
use super::threads::panicked;
use super::traits::{BoxError, Log, LogReader, StateMachine};
use crate::raft::{Boot, Raft};
use crate::transport::Transport;
use crate::types::{Configuration, Entry, EntryId, HardState, Incarnation, Index, Member, NodeId, Term, kind};

const PEER_EVENTS: usize = 4096;
const SUBMISSIONS: usize = 1024;
const READS: usize = 4096;
/// Bytes of entries looked at in one go.
const SCAN_BYTES: usize = 4 << 20;

/// What the disk held.
struct Booted<S, L> {
    log: L,
    state: Replicated<S>,
    node: NodeState,
    checkpoints: Checkpoints,
    founding: Option<FoundingRecord>,
}

/// Everything the node's task needs, beside what the core gets.
struct Node<S: StateMachine, L: Log, T: Transport> {
    config: ReplicaConfig,
    booted_log: L,
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
        let boot_config = config.clone();
        let booted: Booted<S, L> = tokio::task::spawn_blocking(move || boot(&boot_config, log))
            .await
            .map_err(|panic| StartError::Other(Box::new(panic)))??;
        let (events, peers) = mpsc::channel(PEER_EVENTS);
        let (submissions, submitted) = mpsc::channel(SUBMISSIONS);
        let (reads, read) = mpsc::channel(READS);
        let (own, own_events) = mpsc::unbounded_channel();
        let inboxes = Inboxes { peers, own: own_events, submissions: submitted, reads: read };

        let shared = Arc::new(Shared::new(booted.state));
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
            node: booted.node,
            checkpoints: booted.checkpoints,
            shared,
            context,
            links,
            cluster,
            own,
        };
        tokio::spawn(node.run(inboxes));
        Ok(Replica::new(inner))
    }
}

fn boot<S: StateMachine, L: Log>(config: &ReplicaConfig, mut log: L) -> Result<Booted<S, L>, StartError> {
    let mut node = node_state(config.id, &log)?;
    let failed = |source| StartError::Checkpoints { path: config.dir.clone(), source };
    let checkpoints = Checkpoints::open(&config.dir).map_err(failed)?;
    let found = checkpoints.load_newest().map_err(failed)?;
    let state = found.unwrap_or_else(Replicated::empty);
    reconcile(&mut log, &state)?;
    let founding = match &state.founding {
        Some(record) => Some(record.clone()),
        None => founding_entry(&log.reader())?,
    };
    node.starts += 1;
    log.append(&[], Some(&node.encode()))?;
    log.sync()?;
    info!(
        id = %config.id, incarnation = %node.me.incarnation, term = %node.hard_state.term,
        checkpoint = %state.applied, last = %log.reader().last(), "disk read"
    );
    Ok(Booted { log, state, node, checkpoints, founding })
}

/// Who the node is. If its log is empty it gets a new incarnation, which is not stored yet.
fn node_state<L: Log>(id: NodeId, log: &L) -> Result<NodeState, StartError> {
    if let Some(blob) = log.state() {
        let node = NodeState::decode(&blob).ok_or(StartError::State("unknown format"))?;
        if node.me.id != id {
            return Err(StartError::OtherNode { expected: id, found: node.me.id });
        }
        return Ok(node);
    }
    if log.reader().last() != EntryId::ZERO {
        return Err(StartError::State("there are entries but no node state"));
    }
    let incarnation = Incarnation::new(draw_number()?);
    Ok(NodeState { me: Member::new(id, incarnation), hard_state: HardState::default(), starts: 0, is_given_up: false })
}

/// Brings log and checkpoint together. `c` is the checkpoint's last entry.
///
/// | log | verdict |
/// |---|---|
/// | begins after `c` | entries are missing: refused |
/// | holds `c` | in order |
/// | ends before `c` | the leader committed from its followers, or a received checkpoint was not followed by its reset: the log restarts after `c` |
/// | has another entry in place of `c` | a received checkpoint was not followed by its reset: the log restarts after `c` |
fn reconcile<S: StateMachine, L: Log>(log: &mut L, state: &Replicated<S>) -> Result<(), StartError> {
    let checkpoint = state.applied;
    let reader = log.reader();
    if reader.base().index > checkpoint.index {
        return Err(StartError::Gap { base: reader.base() });
    }
    if term_at(&reader, checkpoint) == Some(checkpoint.term) {
        return Ok(());
    }
    warn!(%checkpoint, last = %reader.last(), "the log restarts after the checkpoint");
    log.reset(checkpoint)?;
    Ok(log.sync()?)
}

fn term_at<R: LogReader>(reader: &R, id: EntryId) -> Option<Term> {
    if id.index == reader.base().index {
        return Some(reader.base().term);
    }
    let within = id.index > reader.base().index && id.index <= reader.last().index;
    let runs = reader.term_runs();
    let run = runs.iter().rev().find(|run| run.index <= id.index);
    run.filter(|_| within).map(|run| run.term)
}

fn founding_entry<R: LogReader>(reader: &R) -> Result<Option<FoundingRecord>, StartError> {
    let first = FoundingRecord::ENTRY_ID.index;
    if reader.base() != EntryId::ZERO || reader.last().index < first {
        return Ok(None);
    }
    let entries = reader.read(first..first.next(), 1)?;
    let entry = entries.first().filter(|entry| entry.kind() == kind::FOUNDING);
    let record = entry.and_then(|entry| FoundingRecord::decode(&entry.payload()));
    record.map(Some).ok_or(StartError::State("the log does not begin with a founding record"))
}

/// The configurations in the log after `applied`, and where they stand. The core must know of them before any is applied.
fn configurations_after<R: LogReader>(reader: &R, applied: Index) -> Result<Vec<(Index, Configuration)>, StartError> {
    let (mut first, end) = (applied.max(reader.base().index).next(), reader.last().index.next());
    let mut found = Vec::new();
    while first < end {
        let entries = reader.read(first..end, SCAN_BYTES)?;
        let last = entries.last().ok_or(StartError::State("entries of the log are missing"))?;
        first = last.index().next();
        for entry in entries.iter().filter(|entry| entry.kind() == kind::CONFIGURATION) {
            let configuration = Configuration::decode(&entry.payload());
            let configuration = configuration.ok_or(StartError::State("a configuration in the log is unreadable"))?;
            found.push((entry.index(), configuration));
        }
    }
    Ok(found)
}

/// The stamp of the last entry, which is the greatest in the log.
fn last_stamp_ms<R: LogReader>(reader: &R) -> Result<u64, StartError> {
    let last = reader.last().index;
    if last == reader.base().index {
        return Ok(0);
    }
    Ok(reader.read(last..last.next(), 1)?.first().map_or(0, Entry::stamp_ms))
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
        identity: RwLock::new(Identity { me, listed, client_address: config.client_address.clone(), founding }),
        events,
        on_greeting: Box::new(move |peer, address| {
            if let Some(view) = greeted.peers.lock().get_mut(&peer) {
                view.client_address = Some(address.to_owned());
            }
        }),
        patience: config.raft.election_timeout_max * 2,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
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
    stop: CancellationToken,
    /// `None` if somebody asked for it.
    reason: Option<String>,
}

impl<S: StateMachine> Drop for Ending<S> {
    fn drop(&mut self) {
        self.stop.cancel();
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
            stop: self.context.stop.clone(),
            reason: Some("its task was dropped".to_owned()),
        };
        ending.reason = self.run_to_end(inboxes).await;
        ending.stop.cancel();
        tasks.close();
        tasks.wait().await;
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
                    Some(PeerEvent::Found(record)) => {
                        if let Some(record) = self.judge_record(&record) {
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

    fn judge_record(&self, record: &Bytes) -> Option<FoundingRecord> {
        let decoded = FoundingRecord::decode(record);
        let named = decoded.filter(|record| record.configuration.is_voter(self.node.me));
        if named.is_none() {
            warn!("a founding record that does not name this node was handed over; ignored");
        }
        named
    }

    /// The record is durable before this node says that it has it. This happens once in a node's life.
    fn store_founding(&mut self, record: FoundingRecord) -> Result<FoundingRecord, StartError> {
        self.node.hard_state.term = FoundingRecord::ENTRY_ID.term;
        self.booted_log.append(&[record.entry()], Some(&self.node.encode()))?;
        self.booted_log.sync()?;
        let cluster = record.cluster_id();
        info!(cluster = %short(&cluster), voters = record.configuration.voters().len(), "founded");
        self.context.identity.write().founding = Some(record.clone());
        self.context.founded.send_replace(true);
        self.cluster.send_replace(Some(cluster));
        Ok(record)
    }

    async fn run_core(self, record: FoundingRecord, inboxes: Inboxes<S::Outcome>) -> Option<String> {
        let applied = self.shared.state.read().configuration().clone();
        let configuration = if applied == Configuration::default() { record.configuration } else { applied };
        match self.prepare(configuration) {
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
    fn prepare(self, configuration: Configuration) -> Result<Prepared<S, L::Reader>, StartError> {
        let other = |error: std::io::Error| StartError::Other(Box::new(error));
        let started = Instant::now();
        let reader = self.booted_log.reader();
        // Later starts have greater ones; the rest tells a disk from its copy.
        let nonce = self.node.starts << 32 | draw_number()? >> 32;
        let (applied, stamp_ms) = (self.shared.applied(), self.shared.state.read().stamp_ms());
        let boot = Boot {
            hard_state: self.node.hard_state,
            configuration,
            configurations: configurations_after(&reader, applied)?,
            base: reader.base(),
            terms: reader.term_runs(),
            last: reader.last().index,
            applied,
            stamp_ms: stamp_ms.max(last_stamp_ms(&reader)?),
            lost: Vec::new(),
        };
        let options = crate::raft::Options { seed: draw_number()?, ..self.config.raft.clone() };
        let raft = Raft::new(self.node.me, options, boot, started.elapsed());
        let (log, log_thread) = log_writer::spawn(self.booted_log, self.node, self.own.clone()).map_err(other)?;
        let (receiving, received) = std::sync::mpsc::channel();
        let backlog_bytes = Arc::new(AtomicUsize::new(0));
        let applier = Applier {
            shared: self.shared.clone(),
            reader: reader.clone(),
            checkpoints: self.checkpoints.clone(),
            core: self.own.clone(),
            node: self.node.me.id,
            nonce,
            checkpoint_log_bytes: self.config.checkpoint_log_bytes,
            backlog_bytes: backlog_bytes.clone(),
        };
        let (apply, apply_thread) = applier.spawn().map_err(other)?;
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
            origin: Origin::new(self.node.me.id, nonce),
            reads: Reads::default(),
            backlog_bytes,
            started,
        };
        Ok((task, vec![log_thread, apply_thread, snapshot_thread]))
    }
}

/// The core's task, and the threads that work for it.
type Prepared<S, R> = (Task<S, R>, Vec<JoinHandle<()>>);

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a thread of this node panicked");
    }
}

fn draw_number() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Other(BoxError::from(error.to_string())))?;
    Ok(u64::from_le_bytes(bytes))
}

fn draw_secret() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Other(BoxError::from(error.to_string())))?;
    Ok(bytes)
}
