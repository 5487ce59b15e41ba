//! Random faults, safety after every step; then the faults stop, and the cluster must recover.

use std::time::Duration;

use super::sim::Sim;
use crate::message::Proposal;
use crate::raft::Options;
use crate::types::{Configuration, Entry, Index, Member, kind};

/// What happened under faults. A run in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Counts {
    committed: usize,
    reads: u64,
    lease_reads: u64,
    transfers: u64,
    /// Joint configurations committed.
    joint: usize,
    /// Members that lost their disks.
    wiped: usize,
    /// Entries that were lost on the disk of a running node.
    spoiled: usize,
    /// Comparisons of states agreed on.
    agreed: usize,
    /// Lost entries repaired, damaged logs that took a checkpoint, and disks given up instead.
    repaired: u64,
    covered: u64,
    given_up: u64,
}

const BOUND: Duration = Duration::from_secs(60);

fn run(seed: u64) -> Counts {
    let voters = if seed.is_multiple_of(4) { 5 } else { 3 };
    let spares = if seed.is_multiple_of(2) { 2 } else { 0 };
    let lease = seed.is_multiple_of(3).then(|| Duration::from_millis(450));
    let mut sim = Sim::with_options(voters, spares, seed, Options { lease, ..Options::default() });
    let mut counts = Counts::default();
    sim.faults = true;
    for number in 0..1500 {
        disturb(&mut sim, number, &mut counts);
        sim.step();
    }
    counts.committed = sim.committed.len();
    counts.reads = sim.reads_answered;
    counts.lease_reads = sim.lease_reads;
    counts.transfers = sim.transfers;
    counts.given_up = sim.given_up;
    counts.repaired = sim.repaired;
    counts.covered = sim.covered;
    counts.agreed = sim.agreed;
    counts.joint = sim.configurations().filter(Configuration::is_joint).count();
    sim.faults = false;
    sim.heal_all();
    for node in 0..sim.nodes.len() {
        if sim.nodes[node].raft.is_none() {
            sim.start(node);
        }
    }
    recover(&mut sim);
    counts
}

/// One thing that goes wrong, or one that clients want.
fn disturb(sim: &mut Sim, number: u64, counts: &mut Counts) {
    let count = sim.nodes.len();
    let node = sim.draw(count as u64) as usize;
    let other = sim.draw(count as u64) as usize;
    let leader = sim.leader().unwrap_or(node);
    match sim.draw(200) {
        0..=1 if sim.nodes[node].raft.is_some() => sim.crash(node),
        2 if number.is_multiple_of(3) => {
            for node in 0..count {
                if sim.nodes[node].raft.is_some() {
                    sim.crash(node);
                }
            }
        }
        3..=9 if sim.nodes[node].raft.is_none() => sim.start(node),
        10 => sim.isolate(node),
        11..=12 => sim.cut(node, other),
        13..=17 => sim.heal_all(),
        18..=20 => sim.checkpoint(node),
        21..=60 => {
            sim.read(node);
            (0..count).for_each(|node| sim.read_by_lease(node));
        }
        154..=156 if sim.nodes[leader].raft.is_some() => {
            let now = sim.now;
            let mark = Proposal { kind: kind::MARK, payload: bytes::Bytes::new() };
            let _ = sim.raft(leader).propose(now, 0, &[mark]);
        }
        61..=120 => {
            sim.propose(if number.is_multiple_of(5) { node } else { leader }, &format!("command {number}"));
        }
        121..=123 if sim.nodes[leader].raft.is_some() => {
            let (now, to) = (sim.now, sim.nodes[other].me.id);
            let _ = sim.raft(leader).transfer_leadership(now, to);
        }
        124 if may_lose_a_disk(sim) => {
            counts.wiped += usize::from(sim.in_log_of(leader).is_member(sim.nodes[node].me));
            sim.wipe(node);
        }
        151..=153 if may_lose_a_disk(sim) => {
            let (base, last) = sim.log_of(node);
            let count = 1 + sim.draw(8);
            // The others write a checkpoint, and keep nothing for this one: then nobody may have it in the log any more.
            let is_old = sim.draw(3) == 0;
            let first = base.get() + 1 + sim.draw(if is_old { 3 } else { last.since(base) + 1 });
            if sim.draw(3) == 0 {
                // It finds out when somebody needs them, or when it starts again.
                counts.spoiled += sim.spoil(node, first..first + count);
            } else {
                sim.lose(node, first..first + count);
            }
            if is_old {
                (0..sim.nodes.len())
                    .filter(|other| *other != node)
                    .for_each(|other| sim.checkpoint_up_to(other, Index::new(u64::MAX)));
            }
        }
        // A disk may have lost something that nobody knows of yet: it must not become one that everything depends on.
        125..=150 if count != 3 && !(0..count).any(|one| sim.has_lost(one)) => change(sim, leader, node, other),
        _ => {}
    }
}

/// One disk may be lost at a time, and only while the others are a majority: all before must have been replaced.
fn may_lose_a_disk(sim: &Sim) -> bool {
    let committed = sim.configuration_at(Index::new(sim.committed.len() as u64));
    let is_there = |member: Member| sim.nodes.iter().any(|node| node.me == member);
    let can_spare = |one: Configuration| !one.is_joint() && one.voters().len() > 2 && one.members().all(is_there);
    let is_well = |node: usize| can_spare(sim.in_log_of(node)) && !sim.has_lost(node);
    !sim.is_change_flying() && can_spare(committed) && (0..sim.nodes.len()).all(is_well)
}

/// Some change: a node comes in or goes, is promoted or demoted, or takes another's place.
fn change(sim: &mut Sim, leader: usize, node: usize, other: usize) {
    let Some(raft) = &sim.nodes[leader].raft else { return };
    let (now, member, other) = (raft.configuration().settled(), sim.nodes[node].me, sim.nodes[other].me);
    let target = match sim.draw(4) {
        0 => now.with_learner(member),
        1 => now.without(member.id),
        2 => now.with_voter(member),
        _ => now.without(other.id).with_voter(member),
    };
    sim.change(leader, &target);
}

/// Faults have ended: somebody leads, commits, and brings all that belong to the cluster to the same state.
fn recover(sim: &mut Sim) {
    // The first leader may be one that has been deposed without knowing it yet: its proposals are lost, which is allowed.
    let is_last = |entry: &Entry| &entry.payload()[..] == b"last";
    for attempt in 0.. {
        assert!(attempt < 30, "no leader commits anything");
        let leader = sim.elect();
        sim.propose(leader, "last");
        sim.pass(Duration::from_secs(2));
        if sim.committed.iter().any(is_last) {
            break;
        }
    }
    sim.run_until("the configuration names who is there, and is committed", BOUND, |sim| settled(sim).is_some());
    let members: Vec<usize> =
        settled(sim).expect("just waited for it").members().map(super::sim::position_of).collect();
    let has_all = |sim: &Sim, node: usize| sim.nodes[node].applied.len() == sim.committed.len();
    sim.run_until("all members apply everything", BOUND, |sim| members.iter().all(|node| has_all(sim, *node)));
    let answered = sim.reads_answered + members.len() as u64;
    members.iter().for_each(|node| sim.read(*node));
    sim.run_until("reads are answered on every member", BOUND, |sim| sim.reads_answered == answered);
}

/// The configuration, when no change is going on and none is due.
fn settled(sim: &Sim) -> Option<Configuration> {
    let raft = sim.leader().and_then(|leader| sim.nodes[leader].raft.as_ref())?;
    let configuration = raft.configuration();
    let is_there = |member: Member| sim.nodes.iter().any(|node| node.me == member);
    let is_done =
        raft.is_configuration_committed() && !configuration.is_joint() && configuration.members().all(is_there);
    is_done.then(|| configuration.clone())
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are worth reading")]
fn safe_under_faults_and_live_after_them() {
    let seeds: Vec<u64> = match std::env::var("KV_SEED") {
        Ok(seed) => vec![seed.parse().expect("KV_SEED is a number")],
        Err(_) => (1..=1000 * factor()).collect(),
    };
    let mut all = Counts::default();
    for seed in &seeds {
        let run = std::panic::catch_unwind(|| run(*seed));
        let counts = run.unwrap_or_else(|_| {
            panic!("seed {seed} failed; again: KV_SEED={seed} cargo test -p kv-repl safe_under_faults")
        });
        all.committed += counts.committed;
        all.reads += counts.reads;
        all.lease_reads += counts.lease_reads;
        all.transfers += counts.transfers;
        all.joint += counts.joint;
        all.wiped += counts.wiped;
        all.spoiled += counts.spoiled;
        all.repaired += counts.repaired;
        all.covered += counts.covered;
        all.agreed += counts.agreed;
        all.given_up += counts.given_up;
    }
    println!("{} seeds: {all:?}", seeds.len());
    if seeds.len() == 1 {
        return;
    }
    let count = seeds.len();
    let happened = [
        all.committed / 20,
        all.reads as usize / 20,
        all.lease_reads as usize / 4,
        all.transfers as usize,
        all.agreed,
        all.joint,
        all.wiped,
        all.spoiled * 4,
        all.repaired as usize * 2,
        all.covered as usize * 100,
    ];
    assert!(happened.iter().all(|one| *one > count / 2), "too little has happened under faults: {all:?}");
}

/// `KV_TEST_FACTOR` of the environment: how many times more cases than usual.
fn factor() -> u64 {
    std::env::var("KV_TEST_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
