//! How the cluster begins: empty nodes greet all others until one of them founds it, and whoever belongs to it hands the
//! record to those that are empty.

use std::time::Duration;

use super::{Event, Fault, NEW_LEADER, Simulation, Workload};
use crate::FoundingRecord;
use crate::driver::identity::Relation;
use crate::types::Member;

/// How often a node that belongs to no cluster greets the others, at most.
const GREETING_EVERY: Duration = Duration::from_millis(200);

/// What a founder is hit by, when it has just founded.
const FAULTS_OF_FOUNDER: &[Fault] = &[Fault::Wipe, Fault::Wipe, Fault::PowerLoss, Fault::Kill, Fault::Isolation];

impl<W: Workload> Simulation<W> {
    /// An empty node greets the others, and they greet it.
    pub(super) fn greet_all(&mut self, node: usize, epoch: u64) {
        if self.machines[node].epoch != epoch || self.machines[node].empty.is_none() {
            return;
        }
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.greet(node, other);
            self.greet(other, node);
        }
        let voters = self.machines[node].empty.as_ref().and_then(|empty| empty.founding.voters());
        let Some(configuration) = voters else { return self.plan_within(GREETING_EVERY, Event::Greet { node, epoch }) };
        let record = FoundingRecord { configuration, secret: [self.random.draw() as u8; 32] };
        assert!(self.hashes.is_empty(), "node {} founds another cluster:\n{}", node + 1, self.describe());
        self.report.foundings += 1;
        self.join(node, &record);
        if self.random.once_in(2) {
            let after = NEW_LEADER * 2u32.pow(self.random.below(13) as u32);
            self.plan(after, Event::Aimed { node, faults: FAULTS_OF_FOUNDER });
        }
    }

    /// `from` dials `to`: how they stand to each other, as `from` sees it; `None` if they do not talk.
    fn dial(&mut self, from: usize, to: usize) -> Option<Relation> {
        let is_paused = |node: usize| self.machines[node].paused_until > self.now;
        let is_cut = [(from, to), (to, from)].iter().any(|way| self.network.cuts.contains(way));
        if is_cut || is_paused(from) || is_paused(to) {
            return None;
        }
        self.network.connections += 1;
        let answerer = self.machines[to].identity()?.me;
        let dialer = self.machines[from].identity()?;
        let (me, hello) = (dialer.me, dialer.hello(answerer.id));
        let answering = self.machines[to].identity()?;
        answering.judge(&hello).ok()?;
        let answer = answering.answer(me, self.network.connections);
        self.machines[from].identity()?.judge(&answer).ok()
    }

    fn greet(&mut self, from: usize, to: usize) {
        match self.dial(from, to) {
            Some(Relation::BothEmpty) => {
                let answerer = self.machines[to].me.expect("it has answered");
                let empty = self.machines[from].empty.as_mut().expect("it says so");
                empty.founding.heard_empty(answerer);
            }
            Some(Relation::PeerEmpty) => {
                let dialer = self.machines[from].identity().expect("it has dialed");
                let record = dialer.founding.as_ref().expect("it belongs to a cluster").encode();
                let (from, epoch, after) = (dialer.me, self.machines[to].epoch, self.duration_below(GREETING_EVERY));
                self.plan(after, Event::HandOver { from, node: to, epoch, record });
            }
            Some(Relation::Members | Relation::PeerFounded) | None => {}
        }
    }

    /// An empty node is handed the record of a cluster.
    pub(super) fn hand_over(&mut self, from: Member, node: usize, epoch: u64, record: &[u8]) {
        let machine = &mut self.machines[node];
        if machine.epoch == epoch
            && let Some(empty) = &mut machine.empty
            && let Some(record) = FoundingRecord::naming(machine.id, record)
            && empty.identity.accept(from, &record)
        {
            self.join(node, &record);
        }
    }

    /// What the others have heard of it holds no longer: it greets them anew.
    fn join(&mut self, node: usize, record: &FoundingRecord) {
        self.disconnect_all(node);
        match self.machines[node].found(record, self.now) {
            Ok(()) => {
                self.connect_all(node);
                self.settle(node);
            }
            Err(error) => self.end(node, &error.to_string()),
        }
    }
}
