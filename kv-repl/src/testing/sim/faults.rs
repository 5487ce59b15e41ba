//! What goes wrong, and when.

use std::time::Duration;

use super::{Event, Fault, Simulation, Workload};
use crate::raft::Role;
use crate::types::Index;

const SECOND: Duration = Duration::from_secs(1);

impl<W: Workload> Simulation<W> {
    /// Something goes wrong, and the next thing is planned.
    pub(super) fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        self.plan_within(SECOND * 2, Event::Fault);
        let fault = Fault::ALL[self.random.below(Fault::ALL.len() as u64) as usize];
        if self.settings.without.contains(&fault) {
            return;
        }
        let node = self.random.below(self.machines.len() as u64) as usize;
        if self.inject(fault, node) {
            self.report.count(fault);
        }
    }

    /// False if it has not happened, or is counted when it does.
    fn inject(&mut self, fault: Fault, node: usize) -> bool {
        let (now, lasting) = (self.now, self.duration_below(SECOND * 3));
        let rate = [0, 50, 10, 3][self.random.below(4) as usize];
        let other = (node + 1 + self.random.below(self.machines.len() as u64 - 1) as usize) % self.machines.len();
        match fault {
            Fault::Loss => self.network.loses = rate,
            Fault::Duplication => self.network.doubles = rate,
            Fault::Delay => self.network.delays = rate,
            Fault::OneWayCut => self.cut(node, other, lasting),
            Fault::PartialPartition => {
                self.cut(node, other, lasting);
                self.cut(other, node, lasting);
            }
            Fault::Isolation => {
                for other in (0..self.machines.len()).filter(|other| *other != node) {
                    self.cut(node, other, lasting);
                    self.cut(other, node, lasting);
                }
            }
            Fault::Pause => self.machines[node].paused_until = now + lasting,
            Fault::HungDisk => self.machines[node].disk_hangs_until = now + lasting * 3,
            Fault::FullDisk => self.machines[node].full_until = now + lasting,
            Fault::FailedSync => self.machines[node].fail_a_sync(&mut self.random),
            Fault::ClockJump => self.machines[node].clock_ahead_ms = self.random.below(1 << 32),
            Fault::Kill => return self.stop(node),
            Fault::PowerLoss => return self.lose_power(node),
            Fault::TotalPowerLoss => {
                for node in 0..self.machines.len() {
                    self.lose_power(node);
                }
            }
            Fault::BitFlip => return self.flip_a_bit(node),
            Fault::Wipe if !self.is_spare(node) => return false,
            Fault::Wipe => self.replace(node),
            Fault::Transfer => return self.transfer(),
        }
        !matches!(fault, Fault::Loss | Fault::Duplication | Fault::Delay)
    }

    fn stop(&mut self, node: usize) -> bool {
        let runs = self.machines[node].node.is_some();
        if runs {
            self.kill(node);
            self.start_soon(node);
        }
        runs
    }

    fn lose_power(&mut self, node: usize) -> bool {
        let runs = self.machines[node].node.is_some();
        self.machines[node].lose_power(&mut self.random).expect("the directory can be used");
        if runs {
            self.after_end(node);
            self.start_soon(node);
        }
        runs
    }

    /// Whether the others can do without what this node has on its disk: they have all that anybody has confirmed, on
    /// disks that are well.
    fn is_spare(&self, node: usize) -> bool {
        let is_well = |other: usize| self.machines[other].owes.is_none();
        let is_there = |other: usize| other == node || self.machines[other].node.is_some();
        (0..self.machines.len()).all(|other| is_well(other) && is_there(other))
    }

    /// From now on it owes what the others have.
    fn owe(&mut self, node: usize) {
        let cores = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let committed = cores.map(|node| node.core().committed()).max().unwrap_or(Index::ZERO);
        self.machines[node].owes = Some(committed);
    }

    /// The node comes back with an empty disk.
    pub(super) fn replace(&mut self, node: usize) {
        self.owe(node);
        self.machines[node].wipe(&mut self.random).expect("the directory can be used");
        self.after_end(node);
        self.start_soon(node);
    }

    fn flip_a_bit(&mut self, node: usize) -> bool {
        if !self.is_spare(node) || self.machines[node].node.is_none() {
            return false;
        }
        self.owe(node);
        self.kill(node);
        let has_flipped = self.machines[node].flip_a_bit(&mut self.random).expect("the files can be read");
        self.start_soon(node);
        has_flipped
    }

    fn transfer(&mut self) -> bool {
        let leads = |node: usize| {
            let running = self.machines[node].node.as_ref();
            running.is_some_and(|running| running.core().role() == Role::Leader)
        };
        let Some(leader) = (0..self.machines.len()).find(|node| leads(*node)) else { return false };
        self.machines[leader].node.as_ref().expect("it leads").transfer();
        self.settle(leader);
        true
    }

    /// How long a write and its sync take.
    pub(super) fn disk_latency(&mut self) -> Duration {
        let is_slow = !self.is_calm && self.random.once_in(20);
        self.duration_below(if is_slow { SECOND / 4 } else { SECOND / 500 })
    }

    /// Nothing more goes wrong, and what is broken is mended.
    pub(super) fn end_faults(&mut self) {
        (self.network.loses, self.network.doubles, self.network.delays) = (0, 0, 0);
        for (from, to) in self.network.cuts.clone() {
            self.heal(from, to);
        }
        for machine in &mut self.machines {
            machine.paused_until = machine.paused_until.min(self.now);
            machine.disk_hangs_until = machine.disk_hangs_until.min(self.now);
            machine.full_until = machine.full_until.min(self.now);
        }
    }
}
