//! The Raft core alone: three of them in this process, on disks and over a network that take no time. What is measured is
//! how long the cores think about entries until all three have them committed, not what a cluster would do.
//!
//! A row's name says how many commands of 128 bytes are proposed at once. Nothing is durable: a write is called so as soon
//! as it is asked for. (`cluster_write` has real disks.)

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_repl::NodeId;
use kv_repl::message::{Message, Proposal};
use kv_repl::raft::{Apply, Boot, Options, Output, Raft, Role};
use kv_repl::types::{Configuration, EntryId, HardState, Incarnation, Index, Member, Term, kind};

const COMMAND_BYTES: usize = 128;

/// Three cores, and what is on its way between them.
struct Cores {
    rafts: Vec<Raft>,
    flying: VecDeque<(usize, usize, Message)>,
    now: Duration,
    /// Entries applied, on all nodes together.
    applied: u64,
    leader: usize,
}

fn member(node: usize) -> Member {
    Member::new(NodeId::new(node as u64 + 1), Incarnation::new(7))
}

fn core(node: usize) -> Raft {
    let boot = Boot {
        hard_state: HardState { term: Term::ZERO, voted_for: None },
        configuration: Configuration::new((0..3).map(member).collect()),
        configurations: Vec::new(),
        base: EntryId::ZERO,
        terms: Vec::new(),
        last: Index::ZERO,
        applied: Index::ZERO,
        stamp_ms: 0,
        lost: Vec::new(),
    };
    Raft::new(member(node), Options::default(), boot, Duration::ZERO)
}

impl Cores {
    /// With a leader.
    fn new() -> Cores {
        let rafts = (0..3).map(core).collect();
        let mut cores = Cores { rafts, flying: VecDeque::new(), now: Duration::ZERO, applied: 0, leader: 0 };
        for (from, to) in (0..9).map(|pair| (pair / 3, pair % 3)).filter(|(from, to)| from != to) {
            cores.rafts[from].handle_connected(cores.now, member(to), 1);
        }
        cores.now = Duration::from_secs(2);
        cores.rafts[0].handle_timeout(cores.now);
        cores.settle();
        cores.leader = cores.rafts.iter().position(|raft| raft.role() == Role::Leader).expect("one was elected");
        cores
    }

    /// Proposes, and lets everything happen that follows from it.
    fn commit(&mut self, proposals: &[Proposal]) {
        let goal = self.applied + 3 * proposals.len() as u64;
        self.now += Duration::from_micros(1);
        self.rafts[self.leader].propose(self.now, 0, proposals).expect("it leads, and nothing waits");
        self.settle();
        assert_eq!(self.applied, goal, "all three have applied them");
        // As after a checkpoint: the memory of the log stays bounded.
        for raft in &mut self.rafts {
            let last = raft.last();
            assert!(raft.handle_truncated(last), "all of it is applied");
        }
    }

    fn settle(&mut self) {
        (0..3).for_each(|node| self.drain(node));
        while let Some((from, to, message)) = self.flying.pop_front() {
            self.rafts[to].handle_message(self.now, member(from), message);
            self.drain(to);
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.rafts[node].poll_output() {
            match output {
                Output::Send { to, message } => self.flying.push_back((node, to.id.get() as usize - 1, message)),
                Output::Write(write) => self.rafts[node].handle_durable(self.now, write.into_durable()),
                Output::Apply(Apply::Entries(entries)) => self.applied += entries.len() as u64,
                Output::Role(_) => {}
                other => panic!("nothing else is due: {other:?}"),
            }
        }
    }
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_core_of_3_in_memory_nothing_durable");
    for count in [1_u64, 16, 64, 256, 1024] {
        let mut cores = Cores::new();
        let command = Proposal { kind: kind::COMMAND, payload: Bytes::from_static(&[7; COMMAND_BYTES]) };
        let proposals = vec![command; count as usize];
        group.throughput(Throughput::ElementsAndBytes { elements: count, bytes: count * COMMAND_BYTES as u64 });
        group.bench_function(BenchmarkId::new("commands_proposed_at_once", count), |bencher| {
            bencher.iter(|| cores.commit(&proposals));
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
