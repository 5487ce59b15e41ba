//! The cluster: nodes, disks, network, and what must hold after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::trace::say;
use crate::message::{InstallSnapshot, Message, Proposal};
use crate::raft::{
    Apply, Boot, LogRead, LogReadResult, Lost, Options, Output, Raft, Role, SendSnapshot, SnapshotProgress, Write,
};
use crate::types::{Configuration, Entry, EntryId, HardState, Incarnation, Index, Member, NodeId, Term, kind};

pub(super) const STEP: Duration = Duration::from_millis(5);

/// A disk: what is on it for certain. What was written and not synced waits in `Node::queue`.
#[derive(Clone, Default)]
struct Disk {
    base: EntryId,
    entries: Vec<Entry>,
    hard_state: HardState,
    checkpoint: EntryId,
    /// Entries that cannot be read any more. They are kept above, for comparison with what takes their place.
    lost: BTreeSet<Index>,
}

pub(super) struct Node {
    /// Who it is, with the disk it has now.
    pub(super) me: Member,
    pub(super) raft: Option<Raft>,
    disk: Disk,
    queue: VecDeque<Write>,
    /// Its disk takes writes, and no sync returns.
    pub(super) hangs: bool,
    /// What is to be put in the place of lost entries with the next sync.
    repair: Vec<Entry>,
    /// The core has said that this disk is to be replaced.
    is_hopeless: bool,
    pub(super) applied: Vec<Entry>,
}

#[derive(Clone)]
struct Flying {
    at: Duration,
    from: Member,
    to: Member,
    message: Message,
}

pub(super) struct Sim {
    options: Options,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    flying: Vec<Flying>,
    cuts: BTreeSet<(usize, usize)>,
    random: u64,
    connections: u64,
    /// Loss, doubling and delay of messages, slow syncs.
    pub(super) faults: bool,
    /// Pieces that a checkpoint is sent in.
    pub(super) checkpoint_pieces: u64,
    /// What any node has applied, hence the cluster has committed.
    pub(super) committed: Vec<Entry>,
    /// Who belongs to the cluster before any entry says otherwise.
    founders: Configuration,
    /// Disks that are gone, and whose they were: what they held may have counted.
    lost: Vec<(Member, Disk)>,
    leaders: BTreeMap<Term, Member>,
    reads: BTreeMap<(usize, u64), Index>,
    next_token: u64,
    /// Messages wait until they are delivered one by one, and what happens is noted.
    is_manual: bool,
    pub(super) trace: Vec<String>,
    pub(super) reads_answered: u64,
    pub(super) lease_reads: u64,
    /// How often a node was told to lead.
    pub(super) transfers: u64,
    /// How many lost entries have been repaired.
    pub(super) repaired: u64,
    /// How many disks were replaced because nobody had what they had lost.
    pub(super) given_up: u64,
}

pub(super) fn member(node: usize) -> Member {
    Member::new(NodeId::new(node as u64 + 1), Incarnation::new(100 + node as u64))
}

pub(super) fn position_of(member: Member) -> usize {
    position(member.id)
}

fn position(id: NodeId) -> usize {
    id.get() as usize - 1
}

impl Disk {
    fn last(&self) -> Index {
        self.entries.last().map_or(self.base.index, Entry::index)
    }

    fn write(&mut self, write: &Write) {
        if let Some(base) = write.reset {
            (self.base, self.entries) = (base, Vec::new());
            self.lost.clear();
        }
        if let Some(first) = write.entries.first() {
            assert!(first.index() <= self.last().next(), "writes leave no gap");
            self.entries.truncate(first.index().since(self.base.index.next()) as usize);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(hard_state) = write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "terms never go back");
            let same_term = hard_state.term == self.hard_state.term;
            let voted = self.hard_state.voted_for;
            assert!(!same_term || voted.is_none() || voted == hard_state.voted_for, "one vote a term");
            self.hard_state = hard_state;
        }
    }

    fn holds(&self, entry: &Entry) -> bool {
        if entry.index() <= self.checkpoint.index {
            return true;
        }
        let skip = entry.index().get().checked_sub(self.base.index.get() + 1);
        skip.and_then(|skip| self.entries.get(skip as usize)) == Some(entry)
    }

    fn lost_after(&self, applied: Index) -> Vec<Lost> {
        let mut ranges: Vec<Lost> = Vec::new();
        for index in self.lost.iter().filter(|index| **index > applied) {
            let next = self.entries[index.since(self.base.index) as usize].id();
            match ranges.last_mut().filter(|range| range.next.index == *index) {
                Some(range) => range.next = next,
                None => ranges.push(Lost { first: *index, next }),
            }
        }
        ranges
    }

    fn boot(&self, configuration: Configuration) -> Boot {
        let mut terms: Vec<EntryId> = Vec::new();
        let is_there = |index: &Index| !self.lost.contains(index);
        for entry in self.entries.iter().filter(|entry| is_there(&entry.index())) {
            if terms.last().is_none_or(|run| run.term != entry.term()) {
                terms.push(entry.id());
            }
        }
        let applied = self.checkpoint.index;
        let stamp_ms = self.entries.last().map_or(0, Entry::stamp_ms);
        Boot {
            hard_state: self.hard_state,
            configuration,
            configurations: configurations(&self.entries).filter(|(at, _)| *at > applied && is_there(at)).collect(),
            base: self.base,
            terms,
            last: self.last(),
            applied,
            stamp_ms,
            lost: self.lost_after(applied),
        }
    }
}

impl Sim {
    /// A cluster of this many voters.
    pub(super) fn new(count: usize, seed: u64) -> Sim {
        Sim::with_spares(count, 0, seed)
    }

    /// A cluster of this many voters, and as many others that belong to nothing yet.
    pub(super) fn with_spares(count: usize, spares: usize, seed: u64) -> Sim {
        Sim::with_options(count, spares, seed, Options::default())
    }

    /// The same, with these options but for the bounds that are small here, and the seed.
    pub(super) fn with_options(count: usize, spares: usize, seed: u64, options: Options) -> Sim {
        let node = |node: usize| Node {
            me: member(node),
            raft: None,
            disk: Disk::default(),
            queue: VecDeque::new(),
            hangs: false,
            repair: Vec::new(),
            is_hopeless: false,
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
            transfers: 0,
            repaired: 0,
            given_up: 0,
        };
        (0..count + spares).for_each(|node| sim.start(node));
        sim
    }

    /// A cluster in which nothing happens by itself.
    pub(super) fn manual(count: usize, spares: usize, options: Options) -> Sim {
        let mut sim = Sim::with_options(count, spares, 1, options);
        (sim.is_manual, sim.checkpoint_pieces) = (true, 1);
        sim
    }

    fn note(&mut self, node: usize, said: &str) {
        if self.is_manual {
            self.trace.push(format!("{} {said}", node + 1));
        }
    }

    /// The next moment that a node waits for has come.
    pub(super) fn time_out(&mut self, node: usize) {
        self.now = self.raft(node).poll_timeout().map_or(self.now, |at| at.max(self.now));
        let now = self.now;
        self.raft(node).handle_timeout(now);
        self.drain(node);
    }

    /// Carries out what a node wants done.
    pub(super) fn flush(&mut self, node: usize) {
        self.drain(node);
    }

    /// The messages between two nodes that wait now arrive, in order, at most `count` of them.
    pub(super) fn deliver(&mut self, from: usize, to: usize, count: usize) {
        let mut left = count;
        let is_due = |flying: &Flying| {
            let is_due = left > 0 && position(flying.from.id) == from && position(flying.to.id) == to;
            left -= usize::from(is_due);
            is_due
        };
        let (due, later): (Vec<Flying>, _) = std::mem::take(&mut self.flying).into_iter().partition(is_due);
        self.flying = later;
        for flying in due {
            let is_there = self.nodes[to].raft.is_some() && self.nodes[to].me == flying.to;
            if is_there && !self.cuts.contains(&(from, to)) {
                self.trace.push(format!("{} -> {} {}", from + 1, to + 1, say(&flying.message)));
                let now = self.now;
                self.raft(to).handle_message(now, flying.from, flying.message);
                self.drain(to);
                self.check_log(to);
            }
        }
    }

    /// Those messages are lost.
    pub(super) fn discard(&mut self, from: usize, to: usize) {
        self.flying.retain(|flying| position(flying.from.id) != from || position(flying.to.id) != to);
    }

    /// Those messages will come twice.
    pub(super) fn double(&mut self, from: usize, to: usize) {
        let is_meant = |flying: &&Flying| position(flying.from.id) == from && position(flying.to.id) == to;
        let doubled: Vec<Flying> = self.flying.iter().filter(is_meant).cloned().collect();
        self.flying.extend(doubled);
    }

    /// Syncs and deliveries, until nothing waits any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            (0..self.nodes.len()).for_each(|node| self.sync(node));
            (0..self.nodes.len()).for_each(|node| self.give_up(node));
            match self.flying.first().map(|first| (position(first.from.id), position(first.to.id))) {
                Some((from, to)) => self.deliver(from, to, usize::MAX),
                None if self.nodes.iter().all(|node| node.hangs || node.queue.is_empty() && node.repair.is_empty()) => {
                    return;
                }
                None => {}
            }
        }
        panic!("messages go to and fro for ever");
    }

    /// A node starts with entries of these terms on its disk, each too large to share a message with another.
    pub(super) fn set_log(&mut self, node: usize, terms: impl Iterator<Item = u64>, term: u64) {
        self.crash_losing_all(node);
        let payload = [b'x'; 150];
        let entry = |(at, term): (u64, u64)| {
            let id = EntryId::new(Term::new(term), Index::new(at));
            Entry::encode(&mut BytesMut::new(), id, 0, kind::COMMAND, &payload)
        };
        let entries = (1..).zip(terms).map(entry).collect();
        let hard_state = HardState { term: Term::new(term), voted_for: None };
        self.nodes[node].disk = Disk { entries, hard_state, ..Disk::default() };
        self.start(node);
    }

    pub(super) fn sync_now(&mut self, node: usize) {
        self.sync(node);
    }

    /// Power off: nothing that was not synced survives.
    pub(super) fn crash_losing_all(&mut self, node: usize) {
        self.nodes[node].queue.clear();
        self.crash(node);
        self.flying.retain(|flying| position(flying.to.id) != node);
    }

    /// A number below `below`.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    /// Starts a node from its disk.
    pub(super) fn start(&mut self, node: usize) {
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
        let covered = disk.checkpoint.index;
        disk.lost.retain(|index| *index > covered);
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
    pub(super) fn crash(&mut self, node: usize) {
        let survive = self.draw(self.nodes[node].queue.len() as u64 + 1) as usize;
        let victim = &mut self.nodes[node];
        let me = victim.me;
        victim.raft = None;
        victim.repair.clear();
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

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self, from: usize, to: usize) {
        if self.cuts.remove(&(from, to)) {
            self.connect(from, to);
        }
    }

    pub(super) fn isolate(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(super) fn heal_all(&mut self) {
        for (from, to) in self.cuts.clone() {
            self.heal(from, to);
        }
    }

    pub(super) fn raft(&mut self, node: usize) -> &mut Raft {
        self.nodes[node].raft.as_mut().expect("the node runs")
    }

    /// Proposes a command; false if the node does not lead.
    pub(super) fn propose(&mut self, node: usize, payload: &str) -> bool {
        let now = self.now;
        let Some(raft) = &mut self.nodes[node].raft else { return false };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let proposed = raft.propose(now, 1, &[Proposal { kind: kind::COMMAND, payload }]).is_ok();
        self.drain(node);
        proposed
    }

    /// Asks for a read, which must see what is committed now.
    pub(super) fn read(&mut self, node: usize) {
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
    pub(super) fn read_by_lease(&mut self, node: usize) {
        let (now, committed) = (self.now, self.committed.len() as u64);
        let Some(raft) = &mut self.nodes[node].raft else { return };
        if let Some(index) = raft.lease_read(now) {
            assert!(index >= Index::new(committed), "stale read by lease: {index} after {committed} was committed");
            self.lease_reads += 1;
        }
    }

    /// How many reads have neither been answered nor refused.
    pub(super) fn reads_waiting(&self) -> usize {
        self.reads.len()
    }

    /// Entries on a disk that cannot be read any more, with which the node finds itself when it starts.
    pub(super) fn lose(&mut self, node: usize, entries: impl IntoIterator<Item = u64>) {
        if self.nodes[node].raft.is_some() {
            self.crash(node);
        }
        let disk = &mut self.nodes[node].disk;
        let (base, last) = (disk.base.index, disk.last());
        // The last one, like the hard state, is known, or the disk counts as a new one.
        disk.lost.extend(entries.into_iter().map(Index::new).filter(|index| *index > base && *index < last));
    }

    /// An entry on a disk that cannot be read any more, while the node runs.
    pub(super) fn spoil(&mut self, node: usize, entry: u64) {
        self.nodes[node].disk.lost.insert(Index::new(entry));
    }

    /// The log of a node on its disk, from the entry after the first to the last.
    pub(super) fn log_of(&self, node: usize) -> (Index, Index) {
        let disk = &self.nodes[node].disk;
        (disk.base.index, disk.last())
    }

    /// Whether the disk of a node has lost entries.
    pub(super) fn has_lost(&self, node: usize) -> bool {
        !self.nodes[node].disk.lost.is_empty()
    }

    /// Another disk, with nothing on it.
    pub(super) fn wipe(&mut self, node: usize) {
        if self.nodes[node].raft.is_some() {
            self.crash(node);
        }
        let victim = &mut self.nodes[node];
        let lost = victim.me;
        victim.me = Member::new(victim.me.id, Incarnation::new(victim.me.incarnation.get() + 100));
        victim.applied.clear();
        self.lost.push((lost, std::mem::take(&mut victim.disk)));
    }

    /// Asks for a change of membership; false if the node does not take it.
    pub(super) fn change(&mut self, node: usize, target: &Configuration) -> bool {
        let now = self.now;
        let Some(raft) = &mut self.nodes[node].raft else { return false };
        let changed = raft.change_membership(now, target).is_ok();
        self.drain(node);
        changed
    }

    /// Writes a checkpoint of what a node has applied and leaves the log as it is.
    pub(super) fn checkpoint_only(&mut self, node: usize) {
        let applied = self.nodes[node].applied.last().map(Entry::id);
        let checkpoint = &mut self.nodes[node].disk.checkpoint;
        *checkpoint = applied.map_or(*checkpoint, |last| checkpoint.max_by_index(last));
    }

    /// Writes a checkpoint of what a node has applied and truncates its log.
    pub(super) fn checkpoint(&mut self, node: usize) {
        let victim = &mut self.nodes[node];
        let (Some(raft), Some(last)) = (&mut victim.raft, victim.applied.last().map(Entry::id)) else { return };
        if last.index <= victim.disk.checkpoint.index {
            return;
        }
        victim.disk.checkpoint = last;
        // The log can only be truncated as far as it is durable here.
        let on_disk = last.index > victim.disk.base.index && last.index <= victim.disk.last();
        let needed = last.index > raft.truncation_floor();
        if last.index <= raft.durable() && on_disk && !needed && raft.handle_truncated(last) {
            let count = last.index.since(victim.disk.base.index) as usize;
            victim.disk.entries.drain(..count);
            victim.disk.base = last;
            victim.disk.lost.retain(|index| *index > last.index);
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &&usize| self.nodes[**node].raft.as_ref().is_some_and(|raft| raft.role() == Role::Leader);
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let term = |node: &usize| self.nodes[*node].raft.as_ref().map(Raft::term);
        all.iter().filter(leads).max_by_key(|node| term(node)).copied()
    }

    /// Runs until `done`, for at most `bound` of simulated time.
    pub(super) fn run_until(&mut self, what: &str, bound: Duration, done: impl Fn(&Sim) -> bool) {
        let end = self.now + bound;
        while !done(self) {
            assert!(self.now < end, "{what}: not within {bound:?}\n{}", self.describe());
            self.step();
        }
    }

    /// Every node in a line, for whoever has to understand a failure.
    pub(super) fn describe(&self) -> String {
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

    pub(super) fn elect(&mut self) -> usize {
        self.run_until("a leader", Duration::from_secs(20), |sim| sim.leader().is_some());
        self.leader().expect("just waited for it")
    }

    /// Lets time pass: syncs, deliveries, timeouts.
    pub(super) fn step(&mut self) {
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

    /// Replaces a disk that is of no use any more.
    fn give_up(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].is_hopeless) {
            self.note(node, "begins again with an empty disk");
            self.given_up += 1;
            self.wipe(node);
            self.start(node);
        }
    }

    /// One sync: covers everything that has been written.
    fn sync(&mut self, node: usize) {
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

    fn drain(&mut self, node: usize) {
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
            Output::Apply(Apply::Entries(entries)) => entries.into_iter().for_each(|entry| self.apply(node, entry)),
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
                let entries: Vec<Entry> = stored.iter().take_while(is_read).cloned().collect();
                let gone = entries.is_empty();
                let result = if gone { LogReadResult::Gone } else { LogReadResult::Entries(entries) };
                let now = self.now;
                self.raft(node).handle_log_read(now, LogRead { peer: request.peer, token: request.token, result });
            }
            Output::Repair(entries) => self.nodes[node].repair = entries,
            Output::LogLost { .. } => self.nodes[node].is_hopeless = true,
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

    /// Who belongs to the cluster according to the committed entries up to here.
    pub(super) fn configuration_at(&self, index: Index) -> Configuration {
        let upto = &self.committed[..(index.get() as usize).min(self.committed.len())];
        configurations(upto).next_back().map_or_else(|| self.founders.clone(), |(_, last)| last)
    }

    /// All that have been committed.
    pub(super) fn configurations(&self) -> impl Iterator<Item = Configuration> {
        configurations(&self.committed).map(|(_, configuration)| configuration)
    }

    /// The configurations that an entry which `node` applies may have been committed by: the one before it, or a later
    /// one, in force at whoever leads, or led until just now.
    fn may_have_committed(&self, node: usize, index: Index) -> Vec<Configuration> {
        let running = self.nodes.iter().enumerate().filter_map(|(at, node)| node.raft.as_ref().map(|raft| (at, raft)));
        let leading = running.filter(|(at, raft)| raft.role() == Role::Leader || *at == node);
        leading.map(|(_, raft)| raft.configuration().clone()).chain([self.configuration_at(index)]).collect()
    }

    /// The configuration in force is the one that follows from snapshot and log, whatever has been cut off; and the core
    /// knows the log that is on the disk.
    fn check_log(&self, node: usize) {
        let Some(raft) = self.nodes[node].raft.as_ref().filter(|raft| !raft.is_damaged()) else { return };
        let expected = self.in_log_of(node);
        assert_eq!(raft.configuration(), &expected, "node {node}: thesis 4.1, the newest one in the log is in force");
        let Node { disk, queue, .. } = &self.nodes[node];
        // One entry at each step, another each time.
        let entries = if queue.is_empty() { &disk.entries[..] } else { &[] };
        if let Some(entry) = entries.get(self.now.as_millis() as usize / 5 % entries.len().max(1)) {
            assert!(
                raft.log.contains(entry.id()),
                "node {node}: {} is on the disk, and the core says otherwise",
                entry.id()
            );
        }
    }

    /// Whether a message with a configuration is on its way.
    pub(super) fn is_change_flying(&self) -> bool {
        self.flying.iter().any(|flying| configurations(flying.message.entries()).next().is_some())
    }

    /// The newest configuration in a node's log, be it durable or not.
    pub(super) fn in_log_of(&self, node: usize) -> Configuration {
        let Node { disk, queue, .. } = &self.nodes[node];
        let mut below = Index::new(u64::MAX);
        let mut newest = None;
        for write in queue.iter().rev() {
            newest = newest.or_else(|| newest_below(&write.entries, below));
            below = write.entries.first().map_or(below, |first| below.min(first.index()));
            if let Some(base) = write.reset {
                newest = newest.or_else(|| Some(self.configuration_at(base.index)));
            }
        }
        let newest = newest.or_else(|| newest_below(&disk.entries, below));
        newest.unwrap_or_else(|| self.configuration_at(disk.base.index))
    }

    /// A file with a byte for each piece stands for the checkpoint; its content is what was committed up to its last entry.
    /// One that is being sent stays open.
    fn send_snapshot(&mut self, node: usize, request: SendSnapshot) {
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

    /// State machine safety (5.4.3): every node applies the same entries in the same order; and what is applied anywhere
    /// is durable on a majority.
    fn apply(&mut self, node: usize, entry: Entry) {
        let at = self.nodes[node].applied.len();
        assert_eq!(entry.index().get() as usize, at + 1, "entries are applied in order, each once");
        match self.committed.get(at) {
            Some(known) => assert_eq!(known, &entry, "state machine safety: node {node} applies another entry"),
            None => {
                self.committed.push(entry.clone());
                let disks = self.nodes.iter().map(|node| (node.me, &node.disk));
                let disks = disks.chain(self.lost.iter().map(|(member, disk)| (*member, disk)));
                let holders: Vec<Member> =
                    disks.filter(|(_, disk)| disk.holds(&entry)).map(|(member, _)| member).collect();
                let by = self.may_have_committed(node, entry.index());
                let is_held = by.iter().any(|by| by.is_majority(|voter| holders.contains(&voter)));
                assert!(
                    is_held,
                    "{entry:?} is committed at node {node}, and durable on {holders:?} only\n{}",
                    self.describe()
                );
            }
        }
        self.note(node, &format!("applies {}", entry.id()));
        self.nodes[node].applied.push(entry);
    }
}

fn configurations(entries: &[Entry]) -> impl DoubleEndedIterator<Item = (Index, Configuration)> {
    let found = entries.iter().filter(|entry| entry.kind() == kind::CONFIGURATION);
    found.map(|entry| (entry.index(), Configuration::decode(&entry.payload()).expect("a configuration")))
}

fn newest_below(entries: &[Entry], below: Index) -> Option<Configuration> {
    let upto = entries.partition_point(|entry| entry.index() < below);
    configurations(&entries[..upto]).next_back().map(|(_, configuration)| configuration)
}

fn holds_id(disk: &Disk) -> bool {
    let skip = disk.checkpoint.index.since(disk.base.index.next()) as usize;
    disk.entries.get(skip).map(Entry::id) == Some(disk.checkpoint)
}

trait MaxByIndex {
    fn max_by_index(self, other: Self) -> Self;
}

impl MaxByIndex for EntryId {
    fn max_by_index(self, other: EntryId) -> EntryId {
        if other.index > self.index { other } else { self }
    }
}
