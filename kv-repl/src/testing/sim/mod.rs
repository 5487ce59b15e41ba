//! A cluster of whole nodes on one thread, from one seed, while everything goes wrong that can.
//!
//! ```text
//!   clients --> node: sessions, core, log writer, applier, checkpoints --> messages --> network --> other nodes
//!                     `--> kv-wal --> simulated disk                                  loses, doubles, delays
//! ```
//!
//! The nodes are those of the driver, with the real log on a simulated disk; only threads, sockets and clocks are not
//! there: events have a time, and the earliest one is next. Nothing else decides what happens, so a seed gives the same
//! run each time.
//!
//! 1. *Faults*: for a while they come at random, every kind of [`Fault`].
//! 2. *Calm*: they stop. The cluster must come together and go on, within a bound of simulated time.
//! 3. *Judgement*: every object is read once more, and what the clients saw must be linearizable.
//!
//! All the time: the core's invariants hold, a term has one leader, states with the same applied index have the same hash, and no node is told
//! that its state is wrong. What breaks one of these panics.

mod clients;
mod faults;
mod founding;
mod host;
mod network;
mod node;
mod random;
mod report;
mod settings;
mod shrink;
mod workload;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tracing::debug;

use self::clients::{Client, Objects};
use self::network::Network;
use self::node::Machine;
pub use self::random::Random;
pub use self::report::{Fault, Report};
pub use self::settings::Settings;
pub use self::shrink::{Finding, shrink};
pub use self::workload::{Request, Workload};
use crate::driver::peers::PeerEvent;
use crate::driver::simulated::SimNode;
use crate::driver::threads::message_of;
use crate::planted;
use crate::raft::{Options, Raft, Role};
use crate::types::{Index, Member, NodeId, Term};

/// So much cannot happen in such a time, unless a node spins.
const WINDOW: Duration = Duration::from_millis(1);
const WINDOW_EVENTS: u64 = 20_000;

/// From here up to a thousand times as much: what a new leader has begun has got nowhere, or somewhere, or nearly everywhere.
const NEW_LEADER: Duration = Duration::from_micros(50);

/// What a leader is hit by when it has just been elected, or is handing over: something has been begun, and the leader is gone.
const FAULTS_OF_LEADER: &[Fault] =
    &[Fault::Isolation, Fault::OneWayCut, Fault::Pause, Fault::Kill, Fault::PowerLoss, Fault::HungDisk];

/// What happens at a moment.
enum Event {
    /// The node looks at what has arrived, and at its clock.
    Turn { node: usize, epoch: u64 },
    /// A write and its sync are done.
    Disk { node: usize, epoch: u64 },
    /// Something arrives on a connection.
    Arrive { node: usize, epoch: u64, event: Box<PeerEvent> },
    /// The node is started.
    Start { node: usize },
    /// A client does the next thing.
    Client { client: usize },
    /// A node gets much to do.
    Noise,
    /// A client does not wait for this operation any longer.
    GiveUp { client: usize, operation: u64 },
    /// Something goes wrong.
    Fault,
    /// One of these things goes wrong with a node that has just done something decisive.
    Aimed { node: usize, faults: &'static [Fault] },
    /// A node that belongs to no cluster greets the others.
    Greet { node: usize, epoch: u64 },
    /// It is handed the record of one.
    HandOver { from: Member, node: usize, epoch: u64, record: Bytes },
    /// What was cut can be used again.
    Heal { from: usize, to: usize },
    /// A checkpoint is due.
    Checkpoint,
    /// All are to be voters.
    Gather,
}

/// Runs one seed.
///
/// # Panics
///
/// If something is found. The message says what, and which faults led to it.
pub fn run<W: Workload>(workload: W, seed: u64, settings: &Settings) -> Report {
    let mut simulation = Simulation::new(workload, seed, settings.clone()).expect("a temporary directory can be used");
    let run = catch_unwind(AssertUnwindSafe(|| {
        simulation.run_faults();
        simulation.calm_down();
        simulation.judge();
    }));
    if let Err(panic) = run {
        resume_unwind(Box::new(format!("{}\n{}", message_of(&*panic), simulation.timeline())));
    }
    simulation.report
}

struct Simulation<W: Workload> {
    workload: W,
    settings: Settings,
    options: Options,
    random: Random,
    now: Duration,
    /// At most, of any node.
    checkpoint_every: Duration,
    /// By time, and those of one time in the order they were planned.
    events: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    machines: Vec<Machine<W::Machine>>,
    network: Network,
    clients: Vec<Client<W>>,
    objects: Objects<W>,
    is_calm: bool,
    /// Each new leader is hit by something: one mistake may take several of them in a row.
    hits_new_leaders: bool,
    leaders: BTreeMap<Term, Member>,
    hashes: BTreeMap<Index, [u8; 32]>,
    report: Report,
    /// What has gone wrong, when and where.
    timeline: Vec<(Duration, Fault, usize)>,
    /// Since when, and how many events since then.
    window: (Duration, u64),
    _scratch: TempDir,
}

impl<W: Workload> Simulation<W> {
    fn new(workload: W, seed: u64, settings: Settings) -> io::Result<Simulation<W>> {
        let scratch = scratch()?;
        let mut random = Random::new(seed);
        let id = |node: usize| NodeId::new(node as u64 + 1);
        let home = |node: usize| -> PathBuf { scratch.path().join(format!("{}", node + 1)) };
        let machines = (0..settings.nodes).map(|node| Machine::new(id(node), home(node), &mut random)).collect();
        // Small bounds, so that memory, windows and the way to the disk are all exercised.
        // Now and then elections come so fast that messages outlive them, and reads rely on leases as long as clocks allow.
        let haste = [1, 1, 1, 8][random.below(4) as usize];
        let times = Options::default();
        let options = Options {
            election_timeout_min: times.election_timeout_min / haste,
            election_timeout_max: times.election_timeout_max / haste,
            heartbeat_interval: times.heartbeat_interval / haste,
            lease: random.once_in(3).then_some(times.election_timeout_min * 7 / 8 / haste),
            inflight_messages_max: 4,
            message_bytes_max: [200, 1 << 10][random.below(2) as usize],
            tail_bytes_max: 4 << 10,
            uncommitted_bytes_max: 64 << 10,
            ..times
        };
        let hits_new_leaders = random.once_in(2);
        let mut simulation = Simulation {
            workload,
            options,
            checkpoint_every: Duration::from_millis([300, 2000, 2000][random.below(3) as usize]),
            random,
            now: Duration::ZERO,
            events: BTreeMap::new(),
            planned: 0,
            machines,
            network: Network::default(),
            clients: (0..settings.clients).map(|_| Client::default()).collect(),
            objects: Objects::default(),
            is_calm: false,
            hits_new_leaders,
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            report: Report::new(seed),
            timeline: Vec::new(),
            window: (Duration::ZERO, 0),
            settings,
            _scratch: scratch,
        };
        simulation.begin();
        Ok(simulation)
    }

    /// Who begins: nodes on empty disks, at once or one by one.
    fn begin(&mut self) {
        let is_at_once = self.random.once_in(2);
        for node in 0..self.machines.len() {
            if is_at_once {
                self.start(node);
            } else {
                self.start_soon(node);
            }
        }
        for client in 0..self.clients.len() {
            self.plan_within(Duration::from_secs(1), Event::Client { client });
        }
        self.plan_within(Duration::from_secs(2), Event::Fault);
        self.plan_within(Duration::from_secs(2), Event::Checkpoint);
        self.plan_within(Duration::from_secs(2), Event::Noise);
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        self.events.insert((self.now + after, self.planned), event);
    }

    fn plan_within(&mut self, bound: Duration, event: Event) {
        let after = self.duration_below(bound);
        self.plan(after, event);
    }

    fn duration_below(&mut self, bound: Duration) -> Duration {
        Duration::from_nanos(self.random.below(bound.as_nanos() as u64 + 1))
    }

    /// Faults come, and clients work.
    fn run_faults(&mut self) {
        while self.now < self.settings.faults_for {
            self.step();
        }
    }

    /// Faults end, and everything must come together.
    fn calm_down(&mut self) {
        self.is_calm = true;
        self.end_faults();
        self.gather();
        let (calm_at, until) = (self.now, self.now + self.settings.calm_within);
        let before: Vec<u64> = self.clients.iter().map(|client| client.done).collect();
        let goal = self.running().map(|node| node.core().committed()).max().unwrap_or(Index::ZERO);
        loop {
            self.step();
            let has_gone_on = self.clients.iter().zip(&before).all(|(client, before)| client.done > *before);
            if has_gone_on && self.is_together(goal) {
                break;
            }
            assert!(self.now < until, "the cluster does not come together:\n{}", self.describe());
        }
        self.report.calm_after = self.report.calm_after.max(self.now - calm_at);
    }

    /// Whether all run and vote, follow one leader, are not damaged, and have applied everything up to `goal`.
    fn is_together(&self, goal: Index) -> bool {
        let cores = || self.running().map(SimNode::core);
        let leaders = cores().filter(|core| core.role() == Role::Leader).count();
        let leader = cores().find_map(|core| core.leader());
        let voters = |core: &Raft| core.configuration().voters().len();
        let is_settled = |core: &Raft| !core.configuration().is_joint() && voters(core) == self.machines.len();
        let is_well = |core: &Raft| !core.is_damaged() && !core.is_disk_full();
        let is_applied = self.running().all(|node| node.applied() >= goal);
        let is_fine = is_applied && cores().all(|core| core.leader() == leader && is_settled(core) && is_well(core));
        cores().count() == self.machines.len() && leaders == 1 && is_fine
    }

    fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("clients always have something to do");
        self.is_moving(at);
        self.now = at;
        self.report.simulated = at;
        match event {
            Event::Turn { node, epoch } => {
                if self.is_current(node, epoch) && self.machines[node].turn_at == Some(at) && !self.postpone(node) {
                    self.machines[node].turn_at = None;
                    self.settle(node);
                }
            }
            Event::Disk { node, epoch } => self.use_disk(node, epoch),
            Event::Arrive { node, epoch, event } => self.arrive(node, epoch, *event),
            Event::Start { node } => self.start(node),
            Event::Client { client } => self.operate(client),
            Event::Noise => self.make_noise(),
            Event::GiveUp { client, operation } => self.give_up(client, operation),
            Event::Fault => self.fault(),
            Event::Aimed { node, faults } => self.aimed_fault(node, faults),
            Event::Greet { node, epoch } => self.greet_all(node, epoch),
            Event::HandOver { from, node, epoch, record } => self.hand_over(from, node, epoch, &record),
            Event::Heal { from, to } => self.heal(from, to),
            Event::Checkpoint => self.checkpoint(),
            Event::Gather => self.gather(),
        }
    }

    /// Time goes on: a node that is always due, and does nothing then, would take a processor for itself.
    fn is_moving(&mut self, at: Duration) {
        let is_later = at >= self.window.0 + WINDOW;
        self.window = if is_later { (at, 0) } else { (self.window.0, self.window.1 + 1) };
        assert!(self.window.1 < WINDOW_EVENTS, "a node spins:\n{}", self.describe());
    }

    fn is_current(&self, node: usize, epoch: u64) -> bool {
        let machine = &self.machines[node];
        machine.epoch == epoch && machine.node.is_some()
    }

    /// A machine that is paused does it later. True if so.
    fn postpone(&mut self, node: usize) -> bool {
        let (until, epoch) = (self.machines[node].paused_until, self.machines[node].epoch);
        if until <= self.now {
            return false;
        }
        self.machines[node].turn_at = Some(until);
        let after = until - self.now;
        self.plan(after, Event::Turn { node, epoch });
        true
    }

    fn arrive(&mut self, node: usize, epoch: u64, event: PeerEvent) {
        if let PeerEvent::Disconnected { peer } = event
            && let Some(empty) = &mut self.machines[node].empty
        {
            empty.founding.forget(peer.id);
        } else if self.is_current(node, epoch)
            && let Some(running) = &self.machines[node].node
        {
            running.deliver(event);
            if self.machines[node].paused_until <= self.now {
                self.settle(node);
            }
        }
    }

    fn use_disk(&mut self, node: usize, epoch: u64) {
        if !self.is_current(node, epoch) {
            return;
        }
        let machine = &mut self.machines[node];
        let waits_until = machine.disk_hangs_until.max(machine.paused_until);
        if waits_until > self.now {
            let after = waits_until - self.now;
            return self.plan(after, Event::Disk { node, epoch });
        }
        machine.disk_at = None;
        machine.set_full(machine.full_until > self.now);
        let Some(running) = &mut machine.node else { return };
        match running.use_disk() {
            Ok(()) => self.settle(node),
            Err(error) => self.end(node, &error.to_string()),
        }
    }

    /// Lets a node take what has arrived until nothing more comes of it, and plans what follows.
    fn settle(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        let local_now = machine.clock.local(now);
        let wall_clock_ms = now.as_millis() as u64 + machine.clock_ahead_ms;
        machine.host.clock_ms.store(wall_clock_ms, Ordering::Relaxed);
        planted::see_local_clock(wall_clock_ms);
        let Some(running) = &mut machine.node else { return };
        loop {
            if let ControlFlow::Break(reason) = running.turn(local_now) {
                return self.end(node, &reason);
            }
            let has_more = machine.host.do_aside();
            if !has_more && running.deadline() != Some(Duration::ZERO) {
                break;
            }
        }
        let (messages, me, epoch) = (running.take_messages(), running.me(), machine.epoch);
        let wants_disk = running.wants_disk();
        let deadline = running.deadline().map(|at| machine.clock.global(at));
        for (to, message) in messages {
            self.transmit(node, me, to, message);
        }
        if wants_disk && self.machines[node].disk_at.is_none() {
            let after = self.disk_latency();
            self.machines[node].disk_at = Some(now + after);
            self.plan(after, Event::Disk { node, epoch });
        }
        let is_new = |at: &Duration| self.machines[node].turn_at.is_none_or(|planned| planned > *at || planned <= now);
        if let Some(at) = deadline.map(|at| at.max(now + Duration::from_nanos(1))).filter(is_new) {
            self.machines[node].turn_at = Some(at);
            self.plan(at - now, Event::Turn { node, epoch });
        }
        self.check(node);
        self.answer_clients(node);
    }

    /// What must hold whenever a node has done something.
    fn check(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Some(running) = &machine.node else { return };
        let core = running.core();
        core.invariants();
        assert!(!running.is_diverged(), "node {} was told that its state is wrong", machine.id);
        let mut is_new = false;
        if core.role() == Role::Leader {
            is_new = !self.leaders.contains_key(&core.term());
            let leader = *self.leaders.entry(core.term()).or_insert(core.me());
            assert_eq!(leader, core.me(), "election safety: two leaders of term {}", core.term());
        }
        // What is applied later has another index.
        if running.applied() > machine.compared {
            let (applied, hash) = running.state();
            machine.compared = applied;
            let expected = *self.hashes.entry(applied).or_insert(hash);
            assert_eq!(expected, hash, "node {} has another state at entry {applied}", machine.id);
        }
        if machine.owes.is_some_and(|owed| core.durable() >= owed && !core.is_damaged() && running.is_settled_voter())
            && machine.is_sound()
        {
            machine.owes = None;
        }
        if is_new && self.hits_new_leaders {
            let after = NEW_LEADER * 2u32.pow(self.random.below(11) as u32);
            self.plan(after, Event::Aimed { node, faults: FAULTS_OF_LEADER });
        }
    }

    /// A node ends by itself: its process is started again.
    fn end(&mut self, node: usize, reason: &str) {
        debug!(node = node + 1, reason, "a node has ended");
        self.report.ended += 1;
        self.kill(node);
        self.start_soon(node);
    }

    fn kill(&mut self, node: usize) {
        // After a sync that failed, the system may forget what it could not write.
        let is_forgotten = self.random.once_in(2);
        self.machines[node].kill(is_forgotten).expect("the directory can be used");
        self.after_end(node);
    }

    /// The others see their connections end; its clients hear nothing more.
    fn after_end(&mut self, node: usize) {
        self.answer_clients(node);
        self.disconnect_all(node);
    }

    fn start_soon(&mut self, node: usize) {
        self.plan_within(Duration::from_secs(2), Event::Start { node });
    }

    fn start(&mut self, node: usize) {
        if self.machines[node].is_up() {
            return;
        }
        let peers: Vec<NodeId> = self.machines.iter().map(|machine| machine.id).collect();
        let full = self.machines[node].full_until > self.now;
        self.machines[node].set_full(full);
        match self.machines[node].start(&peers, &self.options, self.now) {
            Ok(true) if self.machines[node].empty.is_some() => {
                let epoch = self.machines[node].epoch;
                self.plan_within(Duration::from_millis(1), Event::Greet { node, epoch });
            }
            Ok(true) => {
                self.connect_all(node);
                self.settle(node);
            }
            Ok(false) => {
                self.report.given_up += 1;
                self.replace(node);
            }
            // A full disk, or a sync that was made to fail.
            Err(error) => {
                debug!(node = node + 1, %error, "a node does not start");
                self.report.not_started += 1;
                assert!(self.report.not_started < 1000, "node {} does not start: {error}", node + 1);
                self.start_soon(node);
            }
        }
    }

    fn checkpoint(&mut self) {
        let node = self.random.below(self.machines.len() as u64) as usize;
        if let Some(running) = &self.machines[node].node {
            // One that fails is tried again another time.
            self.report.checkpoints += u64::from(running.checkpoint().is_ok());
            self.settle(node);
        }
        self.plan_within(self.checkpoint_every, Event::Checkpoint);
    }

    /// The faults that led to the end, a line each.
    fn timeline(&self) -> String {
        let line = |(at, fault, node): &(Duration, Fault, usize)| {
            format!("{:>9.3} s  node {}  {fault:?}\n", at.as_secs_f64(), node + 1)
        };
        let lines: String = self.timeline.iter().map(line).collect();
        format!("{lines}{:>9.3} s  the end:\n{}", self.now.as_secs_f64(), self.describe())
    }

    fn describe(&self) -> String {
        let line = |machine: &Machine<W::Machine>| match &machine.node {
            None if machine.empty.is_some() => format!("{} is empty", machine.id),
            None => format!("{} is down", machine.id),
            Some(node) => {
                let core = node.core();
                format!(
                    "{} {:?} in {} last {} durable {} committed {} applied {}{}{}",
                    node.me(),
                    core.role(),
                    core.term(),
                    core.last(),
                    core.durable(),
                    core.committed(),
                    node.state().0,
                    if core.is_damaged() { " damaged" } else { "" },
                    if core.is_disk_full() { " full" } else { "" },
                )
            }
        };
        self.machines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A directory for the files, in memory if there is such a place.
fn scratch() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("kv-sim-");
    if memory.is_dir() { builder.tempdir_in(memory).or_else(|_| builder.tempdir()) } else { builder.tempdir() }
}
