//! What goes wrong, and when.

use std::fs;
use std::time::Duration;

use super::{Event, FAULTS_OF_LEADER, Fault, NEW_LEADER, Simulation, Workload};
use crate::driver::simulated::SimNode;
use crate::raft::Role;
use crate::types::{Configuration, Index, Member};

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
        let any = self.random.below(self.machines.len() as u64) as usize;
        // There is more to break at a leader.
        let node = if self.random.once_in(3) { self.leader().unwrap_or(any) } else { any };
        self.inject_and_count(fault, node);
    }

    /// A moment that many mistakes are about: a node has just done something that others do not know of.
    pub(super) fn aimed_fault(&mut self, node: usize, faults: &[Fault]) {
        let fault = faults[self.random.below(faults.len() as u64) as usize];
        if !self.is_calm && !self.settings.without.contains(&fault) {
            self.inject_and_count(fault, node);
        }
    }

    fn inject_and_count(&mut self, fault: Fault, node: usize) {
        self.timeline.push((self.now, fault, node));
        // Messages are lost, doubled and late later on, and counted then.
        let is_of_messages = matches!(fault, Fault::Loss | Fault::Duplication | Fault::Delay);
        if self.inject(fault, node) {
            self.report.count(fault);
        } else if !is_of_messages {
            self.timeline.pop();
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
            Fault::Membership => return self.change_membership(node),
            Fault::CheckpointLoss => return self.lose_a_checkpoint(node),
        }
        !matches!(fault, Fault::Loss | Fault::Duplication | Fault::Delay)
    }

    fn stop(&mut self, node: usize) -> bool {
        let runs = self.machines[node].is_up();
        if runs {
            self.kill(node);
            self.start_soon(node);
        }
        runs
    }

    fn lose_power(&mut self, node: usize) -> bool {
        let runs = self.machines[node].is_up();
        self.machines[node].lose_power(&mut self.random).expect("the directory can be used");
        if runs {
            self.after_end(node);
            self.start_soon(node);
        }
        runs
    }

    /// Whether the others can do without what this node has on its disk: they have all that anybody has confirmed, on
    /// disks that are well, and are enough to go on.
    fn is_spare(&self, node: usize) -> bool {
        let is_there = |other: usize| other == node || self.machines[other].is_up();
        (0..self.machines.len()).all(is_there) && self.are_disks_well() && self.is_settled()
    }

    fn are_disks_well(&self) -> bool {
        self.machines.iter().all(|machine| machine.owes.is_none())
    }

    /// Whether all that run know the same members, among whom one voter can be missed.
    fn is_settled(&self) -> bool {
        let known: Vec<&Configuration> = self.running().map(|node| node.core().configuration()).collect();
        let is_enough = |one: &&Configuration| !one.is_joint() && one.voters().len() > 2;
        known.first().is_some_and(is_enough) && known.iter().all(|one| *one == known[0])
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &SimNode<W::Machine>> {
        self.machines.iter().filter_map(|machine| machine.node.as_deref())
    }

    /// From now on it owes what the others have.
    fn owe(&mut self, node: usize) {
        let committed = self.running().map(|node| node.core().committed()).max().unwrap_or(Index::ZERO);
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
        if self.random.once_in(2) {
            self.kill(node);
            self.start_soon(node);
        } else {
            // It goes on for a while, and finds out or does not.
            self.plan_within(SECOND, Event::Aimed { node, faults: &[Fault::Kill] });
        }
        let has_flipped = self.machines[node].flip_a_bit(&mut self.random).expect("the files can be read");
        if has_flipped {
            self.owe(node);
            // What it has forgotten matters when those who know are not there.
            let other = self.random.below(self.machines.len() as u64) as usize;
            self.plan_within(SECOND * 3, Event::Aimed { node: other, faults: FAULTS_OF_LEADER });
        }
        has_flipped
    }

    fn transfer(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        self.machines[leader].node.as_ref().expect("it leads").transfer();
        self.settle(leader);
        if self.random.once_in(2) {
            let after = NEW_LEADER * 2u32.pow(self.random.below(8) as u32);
            self.plan(after, Event::Aimed { node: leader, faults: FAULTS_OF_LEADER });
        }
        true
    }

    /// One that leads, or believes so.
    fn leader(&self) -> Option<usize> {
        let leads = |node: &SimNode<W::Machine>| node.core().role() == Role::Leader;
        self.machines.iter().position(|machine| machine.node.as_deref().is_some_and(leads))
    }

    /// The leader is asked to let a node in, to let it go, or to let it vote or not. While a disk may have lost something no
    /// other may become one that everything depends on.
    fn change_membership(&mut self, node: usize) -> bool {
        let (Some(leader), Some(machine)) = (self.leader(), self.machines[node].node.as_ref()) else { return false };
        let (member, now) = (machine.me(), self.configuration_of(leader));
        if !self.are_disks_well() || now.is_joint() {
            return false;
        }
        let target = match now.is_voter(member) {
            true if now.voters().len() <= 2 => return false,
            true if self.random.once_in(2) => now.without(member.id),
            true => now.with_learner(member),
            false if now.is_member(member) => now.with_voter(member),
            false => now.with_learner(member),
        };
        self.ask_for_members(leader, target)
    }

    fn configuration_of(&self, node: usize) -> Configuration {
        let running = self.machines[node].node.as_ref();
        running.map(|running| running.core().configuration().clone()).unwrap_or_default()
    }

    /// False if the leader does not take it.
    fn ask_for_members(&mut self, leader: usize, target: Configuration) -> bool {
        let before = self.configuration_of(leader);
        self.machines[leader].node.as_ref().expect("it leads").change_membership(target);
        self.settle(leader);
        self.configuration_of(leader) != before
    }

    /// When all is calm all are to be voters again. A node that has lost its disk is let in by the leader itself.
    pub(super) fn gather(&mut self) {
        self.plan(SECOND / 5, Event::Gather);
        let Some(leader) = self.leader() else { return };
        let now = self.configuration_of(leader);
        let is_missing = |member: &Member| !now.is_voter(*member) && now.voter(member.id).is_none();
        let Some(member) = self.running().map(SimNode::me).find(is_missing) else { return };
        let is_learner = now.is_member(member);
        self.ask_for_members(leader, if is_learner { now.with_voter(member) } else { now.with_learner(member) });
    }

    /// The newest checkpoint cannot be read, or is not there, when the node starts again: the one before must do.
    fn lose_a_checkpoint(&mut self, node: usize) -> bool {
        let Some(running) = self.machines[node].node.as_ref() else { return false };
        let Some(path) = running.spare_checkpoint().expect("the directory can be read") else { return false };
        self.kill(node);
        if self.random.once_in(3) {
            fs::remove_file(&path).expect("it is there");
        } else {
            let mut bytes = fs::read(&path).expect("it is there");
            let at = self.random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.random.below(8);
            fs::write(&path, bytes).expect("it can be written");
        }
        self.start_soon(node);
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
