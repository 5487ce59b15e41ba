//! The cluster: nodes, disks, network, and what must hold after every step.

mod checks;
mod disk;
mod manual;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use self::disk::{Disk, MaxByIndex, holds_id};
use crate::message::{InstallSnapshot, Message, Proposal};
use crate::raft::{Apply, LogRead, LogReadResult, Options, Output, Raft, Role, SendSnapshot, SnapshotProgress, Write};
use crate::types::{Configuration, Entries, Entry, Incarnation, Index, Member, NodeId, Term, kind};

pub(crate) const STEP: Duration = Duration::from_millis(5);

pub(crate) struct Node {
    /// Who it is, with the disk it has now.
    pub(crate) me: Member,
    pub(crate) raft: Option<Raft>,
    disk: Disk,
    queue: VecDeque<Write>,
    /// Its disk takes writes, and no sync returns.
    pub(crate) hangs: bool,
    /// What is to be put in the place of lost entries with the next sync.
    repair: Entries,
    /// The core has said that this disk is to be replaced.
    is_hopeless: bool,
    /// The core has said that this node is to end.
    has_failed: bool,
    pub(crate) applied: Vec<Entry>,
    /// Its state is not what its log says.
    pub(crate) is_wrong: bool,
    /// How often it learnt that its state differs from the majority's.
    pub(crate) disagreed: usize,
}

#[derive(Clone)]
struct Flying {
    at: Duration,
    from: Member,
    to: Member,
    message: Message,
}

pub(crate) struct Sim {
    options: Options,
    pub(crate) now: Duration,
    pub(crate) nodes: Vec<Node>,
    flying: Vec<Flying>,
    cuts: BTreeSet<(usize, usize)>,
    random: u64,
    connections: u64,
    /// Loss, doubling and delay of messages, slow syncs.
    pub(crate) faults: bool,
    /// Pieces that a checkpoint is sent in.
    pub(crate) checkpoint_pieces: u64,
    /// What any node has applied, hence the cluster has committed.
    pub(crate) committed: Vec<Entry>,
    /// Who belongs to the cluster before any entry says otherwise.
    founders: Configuration,
    /// Disks that are gone, and whose they were: what they held may have counted.
    lost: Vec<(Member, Disk)>,
    leaders: BTreeMap<Term, Member>,
    reads: BTreeMap<(usize, u64), Index>,
    next_token: u64,
    /// Messages wait until they are delivered one by one, and what happens is noted.
    is_manual: bool,
    pub(crate) trace: Vec<String>,
    pub(crate) reads_answered: u64,
    pub(crate) lease_reads: u64,
    /// How many comparisons of states have been agreed on.
    pub(crate) agreed: usize,
    /// How often a node was told to lead.
    pub(crate) transfers: u64,
    /// How many lost entries have been repaired.
    pub(crate) repaired: u64,
    /// How many damaged logs took a checkpoint.
    pub(crate) covered: u64,
    /// How many disks were replaced because nobody had what they had lost.
    pub(crate) given_up: u64,
}

pub(crate) fn member(node: usize) -> Member {
    Member::new(NodeId::new(node as u64 + 1), Incarnation::new(100 + node as u64))
}

pub(crate) fn position_of(member: Member) -> usize {
    position(member.id)
}

fn position(id: NodeId) -> usize {
    id.get() as usize - 1
}

impl Sim {
    /// A cluster of this many voters.
    pub(crate) fn new(count: usize, seed: u64) -> Sim {
        Sim::with_spares(count, 0, seed)
    }

    /// A cluster of this many voters, and as many others that belong to nothing yet.
    pub(crate) fn with_spares(count: usize, spares: usize, seed: u64) -> Sim {
        Sim::with_options(count, spares, seed, Options::default())
    }

    /// The same, with these options but for the bounds that are small here, and the seed.
    pub(crate) fn with_options(count: usize, spares: usize, seed: u64, options: Options) -> Sim {
        let node = |node: usize| Node {
            me: member(node),
            raft: None,
            disk: Disk::default(),
            queue: VecDeque::new(),
            hangs: false,
            repair: Entries::default(),
            is_hopeless: false,
            has_failed: false,
            is_wrong: false,
            disagreed: 0,
            applied: Vec::new(),
        };
        let mut sim = Sim {
            options,
            now: Duration::ZERO,
            nodes: (0..count + spares).map(node).collect(),
            flying: Vec::new(),
            cuts: BTreeSet::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            connections: 0,
            faults: false,
            checkpoint_pieces: 2,
            committed: Vec::new(),
            founders: Configuration::new((0..count).map(member).collect()),
            lost: Vec::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_token: 0,
            is_manual: false,
            trace: Vec::new(),
            reads_answered: 0,
            lease_reads: 0,
            agreed: 0,
            transfers: 0,
            repaired: 0,
            covered: 0,
            given_up: 0,
        };
        (0..count + spares).for_each(|node| sim.start(node));
        sim
    }

    /// A number below `below`.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// Starts a node from its disk.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.draw(u64::MAX);
        // Small bounds, so that memory, windows and the way to the disk are all exercised.
        let options = Options {
            seed,
            inflight_messages_max: 3,
            message_bytes_max: 200,
            tail_bytes_max: 400,
            ..self.options.clone()
        };
        let disk = &mut self.nodes[node].disk;
        if disk.checkpoint.index > disk.last() || (disk.base.index < disk.checkpoint.index && !holds_id(disk)) {
            // As the driver does: the log restarts after the checkpoint.
            (disk.base, disk.entries) = (disk.checkpoint, Vec::new());
            disk.lost.clear();
        }
        if disk.lost.first().is_some_and(|first| *first <= disk.checkpoint.index) {
            disk.truncate_prefix(disk.checkpoint);
        }
        let applied = disk.checkpoint.index;
        let configuration = self.configuration_at(applied);
        let boot = self.nodes[node].disk.boot(configuration);
        let applied = self.committed[..boot.applied.get() as usize].to_vec();
        let raft = Raft::new(self.nodes[node].me, options, boot, self.now);
        self.nodes[node].raft = Some(raft);
        self.nodes[node].applied = applied;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.connect(node, other);
            self.connect(other, node);
        }
    }

    /// Power off: what was not synced is lost, but for a prefix of the writes that may have made it.
    pub(crate) fn crash(&mut self, node: usize) {
        let survive = self.draw(self.nodes[node].queue.len() as u64 + 1) as usize;
        let victim = &mut self.nodes[node];
        let me = victim.me;
        victim.raft = None;
        victim.repair = Entries::default();
        for write in victim.queue.drain(..).take(survive) {
            victim.disk.write(&write);
        }
        self.reads.retain(|(reader, _), _| *reader != node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if let Some(raft) = &mut self.nodes[other].raft {
                raft.handle_disconnected(self.now, me);
            }
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        if self.nodes[to].raft.is_none() || self.cuts.contains(&(from, to)) {
            return;
        }
        self.connections += 1;
        let peer = self.nodes[to].me;
        if let Some(raft) = &mut self.nodes[from].raft {
            raft.handle_connected(self.now, peer, self.connections);
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self, from: usize, to: usize) {
        if self.cuts.remove(&(from, to)) {
            self.connect(from, to);
        }
    }

    pub(crate) fn isolate(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(crate) fn heal_all(&mut self) {
        for (from, to) in self.cuts.clone() {
            self.heal(from, to);
        }
    }

    pub(crate) fn raft(&mut self, node: usize) -> &mut Raft {
        self.nodes[node].raft.as_mut().expect("the node runs")
    }

    /// Proposes a command; false if the node does not lead.
    pub(crate) fn propose(&mut self, node: usize, payload: &str) -> bool {
        let now = self.now;
        let Some(raft) = &mut self.nodes[node].raft else { return false };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let proposed = raft.propose(now, 1, &[Proposal { kind: kind::COMMAND, payload }]).is_ok();
        self.drain(node);
        proposed
    }

    /// Asks for a read, which must see what is committed now.
    pub(crate) fn read(&mut self, node: usize) {
        let now = self.now;
        self.next_token += 1;
        let token = self.next_token;
        if let Some(raft) = &mut self.nodes[node].raft {
            self.reads.insert((node, token), Index::new(self.committed.len() as u64));
            raft.read(now, token);
            self.drain(node);
        }
    }

    /// Reads from a leader's lease, if it has one: it must see what is committed now.
    pub(crate) fn read_by_lease(&mut self, node: usize) {
        let (now, committed) = (self.now, self.committed.len() as u64);
        let Some(raft) = &mut self.nodes[node].raft else { return };
        if let Some(index) = raft.lease_read(now) {
            assert!(index >= Index::new(committed), "stale read by lease: {index} after {committed} was committed");
            self.lease_reads += 1;
        }
    }

    /// How many reads have neither been answered nor refused.
    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// Asks for a change of membership; false if the node does not take it.
    pub(crate) fn change(&mut self, node: usize, target: &Configuration) -> bool {
        let now = self.now;
        let Some(raft) = &mut self.nodes[node].raft else { return false };
        let changed = raft.change_membership(now, target).is_ok();
        self.drain(node);
        changed
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &&usize| self.nodes[**node].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader);
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let term = |node: &usize| self.nodes[*node].raft.as_ref().map(Raft::term);
        all.iter().filter(leads).max_by_key(|node| term(node)).copied()
    }

    /// Runs until `done`, for at most `bound` of simulated time.
    pub(crate) fn run_until(&mut self, what: &str, bound: Duration, done: impl Fn(&Sim) -> bool) {
        let end = self.now + bound;
        while !done(self) {
            assert!(self.now < end, "{what}: not within {bound:?}\n{}", self.describe());
            self.step();
        }
    }

    /// Lets so much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now <= until {
            self.step();
        }
    }

    /// Every node in a line, for whoever has to understand a failure.
    pub(crate) fn describe(&self) -> String {
        let line = |node: &Node| match &node.raft {
            None => format!("{} is down", node.me),
            Some(raft) => format!(
                "{} {:?} in {} last {} durable {} committed {} applied {} of {:?}",
                node.me,
                raft.role(),
                raft.term(),
                raft.last(),
                raft.durable(),
                raft.committed(),
                node.applied.len(),
                raft.configuration()
            ),
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn elect(&mut self) -> usize {
        self.run_until("a leader", Duration::from_secs(20), |sim| sim.leader().is_some());
        self.leader().expect("just waited for it")
    }

    /// Lets time pass: syncs, deliveries, timeouts.
    pub(crate) fn step(&mut self) {
        self.now += STEP;
        for node in 0..self.nodes.len() {
            if !self.faults || self.draw(3) == 0 {
                self.sync(node);
            }
        }
        let (due, later) = std::mem::take(&mut self.flying).into_iter().partition(|flying| flying.at <= self.now);
        self.flying = later;
        for Flying { from, to, message, .. } in due {
            let (now, at) = (self.now, position(to.id));
            let is_there = self.nodes[at].raft.is_some() && self.nodes[at].me == to;
            if is_there && !self.cuts.contains(&(position(from.id), at)) {
                self.raft(at).handle_message(now, from, message);
                self.drain(at);
            }
        }
        for node in 0..self.nodes.len() {
            let now = self.now;
            if let Some(raft) = &mut self.nodes[node].raft {
                raft.handle_timeout(now);
                self.drain(node);
            }
            self.check_log(node);
            self.give_up(node);
        }
    }

    /// Replaces a disk that is of no use any more, and starts a node again that has ended.
    fn give_up(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].has_failed) {
            self.note(node, "ends, and starts again");
            self.crash(node);
            self.start(node);
        }
        if std::mem::take(&mut self.nodes[node].is_hopeless) {
            self.note(node, "begins again with an empty disk");
            self.given_up += 1;
            self.wipe(node);
            self.start(node);
        }
    }

    /// One sync: covers everything that has been written.
    pub(crate) fn sync(&mut self, node: usize) {
        let now = self.now;
        let Node { raft: Some(raft), disk, queue, repair, hangs: false, .. } = &mut self.nodes[node] else { return };
        for entry in repair.iter() {
            let at = entry.index().since(disk.base.index.next()) as usize;
            assert_eq!(&disk.entries[at], entry, "what takes the place of a lost entry is that entry");
            assert!(disk.lost.remove(&entry.index()), "only what is lost is repaired");
            self.repaired += 1;
            if self.is_manual {
                self.trace.push(format!("{} repairs {}", node + 1, entry.id()));
            }
        }
        if !repair.is_empty() {
            raft.handle_repaired(now, &std::mem::take(repair));
        }
        let mut done = None;
        for write in queue.drain(..) {
            disk.write(&write);
            done = Some(write.into_durable());
        }
        if let Some(done) = done {
            raft.handle_durable(now, done);
            self.drain(node);
        }
    }

    pub(crate) fn drain(&mut self, node: usize) {
        loop {
            let Some(raft) = &mut self.nodes[node].raft else { return };
            let Some(output) = raft.poll_output() else { return raft.invariants() };
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { to, message } => self.send(node, to, message),
            Output::Write(write) => self.nodes[node].queue.push_back(write),
            Output::Apply(Apply::Entries(pieces)) => {
                pieces.iter().flatten().for_each(|entry| self.apply(node, entry.clone()));
            }
            Output::Apply(Apply::Stored { first, last }) => {
                let disk = &self.nodes[node].disk;
                let skip = first.since(disk.base.index.next()) as usize;
                let stored = disk.entries[skip..=last.since(disk.base.index.next()) as usize].to_vec();
                assert!(disk.lost.range(first..=last).next().is_none(), "what is lost is not applied");
                stored.into_iter().for_each(|entry| self.apply(node, entry));
            }
            Output::ReadLog(request) => {
                let disk = &self.nodes[node].disk;
                let found = request.from.get().checked_sub(disk.base.index.get() + 1);
                let stored = found.and_then(|skip| disk.entries.get(skip as usize..)).unwrap_or_default();
                let mut bytes = 0;
                let is_read = |entry: &&Entry| {
                    bytes += entry.frame().len();
                    let fits = bytes == entry.frame().len() || bytes <= request.bytes_max;
                    fits && !disk.lost.contains(&entry.index())
                };
                let entries: Entries = stored.iter().take_while(is_read).cloned().collect();
                let gone = entries.is_empty();
                let result = if gone { LogReadResult::Gone } else { LogReadResult::Entries(entries) };
                let now = self.now;
                self.raft(node).handle_log_read(now, LogRead { peer: request.peer, token: request.token, result });
            }
            Output::Repair(entries) => self.nodes[node].repair = entries,
            Output::ForgetPrefix(upto) => {
                self.note(node, &format!("forgets what is before {upto}"));
                self.covered += 1;
                self.nodes[node].disk.truncate_prefix(upto);
            }
            Output::LogLost { .. } => self.nodes[node].is_hopeless = true,
            Output::Unreadable { .. } => self.nodes[node].has_failed = true,
            Output::SendSnapshot(request) => self.send_snapshot(node, request),
            Output::VerifySnapshot { .. } => {}
            Output::SnapshotPiece { from, piece } => self.take_piece(node, from, &piece),
            Output::Restore { last } => {
                assert!(last.index.get() as usize > self.nodes[node].applied.len(), "only what is ahead is restored");
                self.note(node, &format!("restores {last}"));
                self.nodes[node].applied = self.committed[..last.index.get() as usize].to_vec();
            }
            Output::ReadReady { token, index } => {
                let must_see = self.reads.remove(&(node, token)).expect("asked once, answered once");
                assert!(index >= must_see, "stale read: {index} after {must_see} was committed");
                self.reads_answered += 1;
                self.note(node, &format!("reads at {index}"));
            }
            Output::ReadRejected { token } => {
                self.note(node, "cannot read");
                self.reads.remove(&(node, token)).expect("asked once, answered once");
            }
            Output::Role(change) => {
                let leader = change.leader.map_or(String::new(), |leader| format!(", led by {leader}"));
                self.note(node, &format!("is {:?} in {}{leader}", change.role, change.term));
                if change.role == Role::Leader {
                    let me = self.nodes[node].me;
                    let first = *self.leaders.entry(change.term).or_insert(me);
                    assert_eq!(first, me, "election safety (5.2): two leaders in term {}", change.term);
                }
            }
        }
    }

    /// A file with a byte for each piece stands for the checkpoint; its content is what was committed up to its last entry.
    /// One that is being sent stays open.
    fn send_snapshot(&mut self, node: usize, request: SendSnapshot) {
        if request.wanted.is_none() && self.nodes[node].disk.checkpoint.index < request.needed {
            self.checkpoint_only(node);
            assert!(self.nodes[node].disk.checkpoint.index >= request.needed, "only what has been applied is covered");
            return;
        }
        let begun = request.wanted.map(|(last, offset)| (last, offset, &b"x"[..]));
        let (checkpoint, offset, data) = begun.unwrap_or((self.nodes[node].disk.checkpoint, 0, b""));
        let piece = InstallSnapshot {
            term: request.term,
            connection: request.connection,
            last: checkpoint,
            file_bytes: self.checkpoint_pieces,
            offset,
            data: Bytes::from_static(data),
        };
        self.send(node, request.to, Message::InstallSnapshot(piece));
    }

    fn take_piece(&mut self, node: usize, from: Member, piece: &InstallSnapshot) {
        let (now, last) = (self.now, piece.last);
        let held = piece.offset + piece.data.len() as u64;
        let progress = if held == piece.file_bytes {
            // Complete, verified and durable, before the core hears of it.
            self.nodes[node].disk.checkpoint = self.nodes[node].disk.checkpoint.max_by_index(last);
            SnapshotProgress::Received { last, stamp_ms: 0, configuration: self.configuration_at(last.index) }
        } else {
            SnapshotProgress::Continue { last, offset: held }
        };
        self.raft(node).handle_snapshot(now, from, progress);
    }

    fn send(&mut self, from: usize, to: Member, message: Message) {
        let from = self.nodes[from].me;
        self.transfers += u64::from(matches!(message, Message::TimeoutNow(_)));
        if !self.faults {
            self.flying.push(Flying { at: self.now + STEP, from, to, message });
            return;
        }
        let copies = match self.draw(20) {
            0..=1 => 0,
            2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let steps = if self.draw(10) == 0 { self.draw(60) } else { self.draw(4) };
            self.flying.push(Flying { at: self.now + STEP * (1 + steps as u32), from, to, message: message.clone() });
        }
    }
}
