//! Ours.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kv_repl::NodeId;
use kv_repl::message::{Message, Proposal};
use kv_repl::raft::{Apply, Boot, Options, Output, Raft, Role};
use kv_repl::types::{Configuration, EntryId, HardState, Incarnation, Index, Member, kind};

use super::{COMMAND_BYTES, Cores, LOG_ENTRIES_MAX};

struct Three {
    rafts: Vec<Raft>,
    flying: VecDeque<(usize, usize, Message)>,
    now: Duration,
    /// Commands applied, on all nodes together.
    applied: u64,
    leader: usize,
}

fn member(node: usize) -> Member {
    Member::new(NodeId::new(node as u64 + 1), Incarnation::new(7))
}

fn core(node: usize) -> Raft {
    let boot = Boot {
        hard_state: HardState::default(),
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

/// Three cores with a leader.
pub fn start() -> Box<dyn Cores> {
    let rafts = (0..3).map(core).collect();
    let mut three = Three { rafts, flying: VecDeque::new(), now: Duration::from_secs(2), applied: 0, leader: 0 };
    for (from, to) in (0..9).map(|pair| (pair / 3, pair % 3)).filter(|(from, to)| from != to) {
        three.rafts[from].handle_connected(Duration::ZERO, member(to), 1);
    }
    three.rafts[0].handle_timeout(three.now);
    three.settle();
    three.leader = three.rafts.iter().position(|raft| raft.role() == Role::Leader).expect("one was elected");
    Box::new(three)
}

impl Three {
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
                Output::Apply(Apply::Entries(entries)) => {
                    self.applied += entries.iter().filter(|entry| entry.kind() == kind::COMMAND).count() as u64;
                }
                Output::Role(_) => {}
                other => panic!("nothing else is due: {other:?}"),
            }
        }
    }
}

impl Cores for Three {
    fn commit(&mut self, count: usize) {
        let goal = self.applied + 3 * count as u64;
        self.now += Duration::from_micros(1);
        let command = Proposal { kind: kind::COMMAND, payload: Bytes::from_static(&[7; COMMAND_BYTES]) };
        let proposals = vec![command; count];
        self.rafts[self.leader].propose(self.now, 0, &proposals).expect("it leads, and nothing waits");
        self.settle();
        assert_eq!(self.applied, goal, "all three have applied them");
        for raft in &mut self.rafts {
            let (base, last) = (raft.status().base, raft.last());
            if last.index.since(base.index) > LOG_ENTRIES_MAX {
                assert!(raft.handle_truncated(last), "all of it is applied");
            }
        }
    }
}
