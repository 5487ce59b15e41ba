use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A message does not arrive.
    Loss,
    /// A message arrives twice.
    Duplication,
    /// A message arrives late, and others before it.
    Delay,
    /// Nothing gets from one node to another; the way back is open.
    OneWayCut,
    /// Two nodes cannot talk, and both can talk to the others.
    PartialPartition,
    /// A node is cut off.
    Isolation,
    /// A node does nothing for a while.
    Pause,
    /// A process is killed.
    Kill,
    /// The power of a node fails: what was not synced is there or not, sector by sector.
    PowerLoss,
    /// The power of all nodes fails at once.
    TotalPowerLoss,
    /// A sync fails; of what it should have covered any part is on the disk.
    FailedSync,
    /// A disk has no room for a while.
    FullDisk,
    /// A disk does nothing for a while.
    HungDisk,
    /// A bit of what is on the disk flips.
    BitFlip,
    /// A node comes back with an empty disk.
    Wipe,
    /// A wall clock jumps.
    ClockJump,
    /// The leader is told to hand over.
    Transfer,
    /// A node comes into the cluster or goes, or becomes a voter or a learner.
    Membership,
    /// The newest checkpoint of a node is damaged or lost.
    CheckpointLoss,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 19] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Delay,
        Fault::OneWayCut,
        Fault::PartialPartition,
        Fault::Isolation,
        Fault::Pause,
        Fault::Kill,
        Fault::PowerLoss,
        Fault::TotalPowerLoss,
        Fault::FailedSync,
        Fault::FullDisk,
        Fault::HungDisk,
        Fault::BitFlip,
        Fault::Wipe,
        Fault::ClockJump,
        Fault::Transfer,
        Fault::Membership,
        Fault::CheckpointLoss,
    ];
}

/// What happened in a run, or in many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed, if it was one.
    pub seed: Option<u64>,
    /// Simulated time.
    pub simulated: Duration,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<Fault, u64>,
    /// Operations that clients got an answer to.
    pub operations: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// Operations that were under way at the same time as another one on the same object.
    pub concurrent: u64,
    /// Reads that were answered without a question to anybody.
    pub leased: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost to cuts.
    pub cut_off: u64,
    /// Nodes that ended by themselves: their disk failed.
    pub ended: u64,
    /// Starts that failed for want of room, or because a sync failed.
    pub not_started: u64,
    /// Disks that counted for nothing any more, found by the node itself.
    pub given_up: u64,
    /// Clusters founded. More than one of a seed if the founder lost its disk before anybody else knew.
    pub foundings: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Longest time that the cluster took to come together when faults had stopped.
    pub calm_after: Duration,
}

impl Report {
    pub(super) fn new(seed: u64) -> Report {
        Report { seed: Some(seed), ..Report::default() }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.seed = None;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.simulated += other.simulated;
        self.calm_after = self.calm_after.max(other.calm_after);
        for (sum, more) in [
            (&mut self.operations, other.operations),
            (&mut self.unknown, other.unknown),
            (&mut self.concurrent, other.concurrent),
            (&mut self.leased, other.leased),
            (&mut self.messages, other.messages),
            (&mut self.cut_off, other.cut_off),
            (&mut self.ended, other.ended),
            (&mut self.not_started, other.not_started),
            (&mut self.given_up, other.given_up),
            (&mut self.foundings, other.foundings),
            (&mut self.checkpoints, other.checkpoints),
            (&mut self.terms, other.terms),
        ] {
            *sum += more;
        }
    }

    /// Kinds of faults that never happened.
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| !self.faults.contains_key(fault)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.simulated.as_secs_f64();
        writeln!(
            f,
            "{seconds:.0} s simulated, {} clusters founded, {} terms with a leader, {} messages",
            self.foundings, self.terms, self.messages
        )?;
        writeln!(
            f,
            "{} operations ({:.0} a second), {} at the same time as another, {} of unknown outcome, {} reads by lease",
            self.operations,
            self.operations as f64 / seconds.max(1.0),
            self.concurrent,
            self.unknown,
            self.leased
        )?;
        writeln!(
            f,
            "{} nodes ended by themselves, {} starts failed, {} disks given up, {} checkpoints, calm after {:.1} s at most",
            self.ended,
            self.not_started,
            self.given_up,
            self.checkpoints,
            self.calm_after.as_secs_f64()
        )?;
        for (fault, count) in &self.faults {
            write!(f, "{fault:?} {count}  ")?;
        }
        Ok(())
    }
}
