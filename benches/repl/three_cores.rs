//! Three Raft cores in this process, on disks and over a network that take no time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kv_repl::NodeId;
use kv_repl::message::{Message, Proposal};
use kv_repl::raft::{Apply, Boot, Options, Output, Raft, Role};
use kv_repl::types::{Configuration, Incarnation, Member, kind};

/// Bytes of a command.
pub(crate) const COMMAND_BYTES: usize = 128;

/// The cores, and what is on its way between them.
pub(crate) struct ThreeCores {
    rafts: Vec<Raft>,
    flying: VecDeque<(usize, usize, Message)>,
    now: Duration,
    /// Commands applied, on all nodes together.
    applied: u64,
    leader: usize,
    /// A log forgets what has been applied when it has grown to more entries.
    log_entries_max: usize,
    /// Commands since it last did.
    log_entries: usize,
}

fn member(node: usize) -> Member {
    Member::new(NodeId::new(node as u64 + 1), Incarnation::new(7))
}

fn core(node: usize) -> Raft {
    let boot = Boot::first(Configuration::new((0..3).map(member).collect()));
    Raft::new(member(node), Options::default(), boot, Duration::ZERO)
}

/// As many commands.
pub(crate) fn commands(count: usize) -> Vec<Proposal> {
    vec![Proposal { kind: kind::COMMAND, payload: Bytes::from_static(&[7; COMMAND_BYTES]) }; count]
}

impl ThreeCores {
    /// With a leader.
    pub(crate) fn new(log_entries_max: usize) -> ThreeCores {
        let (rafts, now) = ((0..3).map(core).collect(), Duration::from_secs(2));
        let flying = VecDeque::new();
        let mut cores = ThreeCores { rafts, flying, now, applied: 0, leader: 0, log_entries_max, log_entries: 0 };
        for (from, to) in (0..9).map(|pair| (pair / 3, pair % 3)).filter(|(from, to)| from != to) {
            cores.rafts[from].handle_connected(Duration::ZERO, member(to), 1);
        }
        cores.rafts[0].handle_timeout(now);
        cores.settle();
        cores.leader = cores.rafts.iter().position(|raft| raft.role() == Role::Leader).expect("one was elected");
        cores
    }

    /// Proposes, and lets everything happen that follows from it.
    pub(crate) fn commit(&mut self, proposals: &[Proposal]) {
        let goal = self.applied + 3 * proposals.len() as u64;
        self.now += Duration::from_micros(1);
        self.rafts[self.leader].propose(self.now, 0, proposals).expect("it leads, and nothing waits");
        self.settle();
        assert_eq!(self.applied, goal, "all three have applied them");
        // As after a checkpoint: the memory of the log stays bounded.
        self.log_entries += proposals.len();
        if self.log_entries > self.log_entries_max {
            self.log_entries = 0;
            for raft in &mut self.rafts {
                let last = raft.last();
                assert!(raft.handle_truncated(last), "all of it is applied");
            }
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
                Output::Apply(Apply::Entries(pieces)) => {
                    self.applied +=
                        pieces.iter().flatten().filter(|entry| entry.kind() == kind::COMMAND).count() as u64;
                }
                Output::Role(_) => {}
                other => panic!("nothing else is due: {other:?}"),
            }
        }
    }
}
