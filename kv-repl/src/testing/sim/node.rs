//! A simulated machine: its disk, and the node that runs on it or does not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kv_wal::testing::SimFs;

use super::Random;
use super::host::SimHost;
use crate::driver::founding::FoundingRecord;
use crate::driver::host::Host;
use crate::driver::identity::Identity;
use crate::driver::simulated::{EmptyNode, SimNode, Started, sim_config};
use crate::raft::Options;
use crate::types::{Index, Member, NodeId};
use crate::{StartError, StateMachine};

/// Smallest segments, so that they are begun and removed all the time.
const LOG: kv_wal::Options =
    kv_wal::Options { segment_bytes: 64 << 10, batch_bytes_max: 1 << 20, expect: None, prepare_ahead: false };

pub(super) struct Machine<S: StateMachine> {
    pub(super) id: NodeId,
    home: PathBuf,
    disk: SimFs,
    /// The directory of the log; another one after each power loss.
    log_dir: PathBuf,
    generation: u64,
    pub(super) host: Arc<SimHost>,
    pub(super) node: Option<Box<SimNode<S>>>,
    /// In its place, while it belongs to no cluster.
    pub(super) empty: Option<Box<EmptyNode<S>>>,
    /// Who ran here last.
    pub(super) me: Option<Member>,
    /// Grows with each start and end: what was meant for the node before is meant for nobody.
    pub(super) epoch: u64,
    pub(super) turn_at: Option<Duration>,
    pub(super) disk_at: Option<Duration>,
    /// It does nothing before.
    pub(super) paused_until: Duration,
    pub(super) disk_hangs_until: Duration,
    pub(super) full_until: Duration,
    pub(super) clock: Clock,
    /// The wall clock is ahead by so many milliseconds.
    pub(super) clock_ahead_ms: u64,
    /// What it must hold, as a voter, before a machine may lose data.
    pub(super) owes: Option<Index>,
    /// Bits of what its running node believes to have have flipped.
    is_spoiled: bool,
    /// What has been compared with the others.
    pub(super) compared: Index,
}

/// How fast the time of a machine goes: its timers are early or late.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    per_mille: u32,
}

impl Clock {
    /// The time of the machine.
    pub(super) fn local(self, now: Duration) -> Duration {
        now * self.per_mille / 1000
    }

    /// When it is that time there, or just after it.
    pub(super) fn global(self, local: Duration) -> Duration {
        local * 1000 / self.per_mille + Duration::from_nanos(2)
    }
}

impl<S: StateMachine> Machine<S> {
    pub(super) fn new(id: NodeId, home: PathBuf, random: &mut Random) -> Machine<S> {
        Machine {
            id,
            log_dir: home.join("log-0"),
            disk: SimFs::new(random.draw()),
            generation: 0,
            host: Arc::new(SimHost::new(random.draw(), home.join("checkpoints"))),
            home,
            node: None,
            empty: None,
            me: None,
            epoch: 0,
            turn_at: None,
            disk_at: None,
            paused_until: Duration::ZERO,
            disk_hangs_until: Duration::ZERO,
            full_until: Duration::ZERO,
            clock: Clock { per_mille: 950 + random.below(101) as u32 },
            clock_ahead_ms: 0,
            owes: None,
            is_spoiled: false,
            compared: Index::ZERO,
        }
    }

    /// Starts the node from its disk. False if the disk counts for nothing any more.
    pub(super) fn start(&mut self, peers: &[NodeId], options: &Options, now: Duration) -> Result<bool, StartError> {
        assert!(!self.is_up(), "it runs already");
        let config = sim_config(self.id, peers, self.host.dir(), options.clone());
        let log = kv_wal::Log::open_with(Arc::new(self.disk.clone()), &self.log_dir, LOG);
        let (log, _) = log.map_err(|error| StartError::Log(crate::LogError::new(error)))?;
        match SimNode::start(&config, log, self.clock.local(now), &self.host())? {
            Started::BeyondRepair => return Ok(false),
            Started::Running(node) => self.run(node),
            Started::Empty(empty) => {
                self.epoch += 1;
                self.me = Some(empty.identity.me);
                self.empty = Some(empty);
            }
        }
        Ok(true)
    }

    /// The empty node that waits here belongs to a cluster from now on.
    pub(super) fn found(&mut self, record: &FoundingRecord, now: Duration) -> Result<(), StartError> {
        let empty = self.empty.take().expect("an empty node waits here");
        let node = empty.found(record, self.clock.local(now), &self.host())?;
        self.run(node);
        Ok(())
    }

    fn run(&mut self, node: Box<SimNode<S>>) {
        self.epoch += 1;
        self.me = Some(node.me());
        self.compared = node.state().0;
        self.node = Some(node);
    }

    fn host(&self) -> Arc<dyn Host> {
        self.host.clone()
    }

    /// Whether a process runs here.
    pub(super) fn is_up(&self) -> bool {
        self.node.is_some() || self.empty.is_some()
    }

    /// What its process says of itself.
    pub(super) fn identity(&mut self) -> Option<&mut Identity> {
        let empty = self.empty.as_mut().map(|empty| &mut empty.identity);
        self.node.as_mut().map(|node| &mut node.identity).or(empty)
    }

    /// The process ends. What it has written is in the page cache, unless that forgets what the disk does not have.
    pub(super) fn kill(&mut self, is_forgotten: bool) -> io::Result<()> {
        (self.node, self.empty) = (None, None);
        self.epoch += 1;
        (self.turn_at, self.disk_at) = (None, None);
        let was_spoiled = std::mem::take(&mut self.is_spoiled);
        if is_forgotten || was_spoiled { self.disk.evict() } else { Ok(()) }
    }

    /// The power goes, perhaps in the middle of a write.
    pub(super) fn lose_power(&mut self, random: &mut Random) -> io::Result<()> {
        if let Some(node) = self.node.as_mut().filter(|node| node.wants_disk() && random.once_in(2)) {
            self.disk.power_off_after(random.below(6));
            // Whatever becomes of it, nobody hears of it.
            let _ = node.use_disk();
        }
        self.kill(false)?;
        let next = self.next_dir();
        fs::create_dir_all(&next)?;
        self.disk = self.disk.after_power_loss(random.draw(), &next);
        self.host.lose_power(random)?;
        fs::remove_dir_all(std::mem::replace(&mut self.log_dir, next)).or_else(unless_absent)
    }

    /// Another disk, with nothing on it.
    pub(super) fn wipe(&mut self, random: &mut Random) -> io::Result<()> {
        self.kill(false)?;
        let next = self.next_dir();
        self.disk = SimFs::new(random.draw());
        fs::remove_dir_all(std::mem::replace(&mut self.log_dir, next)).or_else(unless_absent)?;
        fs::remove_dir_all(self.host.dir()).or_else(unless_absent)
    }

    fn next_dir(&mut self) -> PathBuf {
        self.generation += 1;
        self.home.join(format!("log-{}", self.generation))
    }

    /// The next sync but a few fails, of the log or of a checkpoint.
    pub(super) fn fail_a_sync(&self, random: &mut Random) {
        if random.once_in(4) {
            self.host.fail_a_sync();
        } else {
            self.disk.fail_sync_after(random.below(3));
        }
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.disk.set_full(is_full);
    }

    /// A bit flips in the log, somewhere in what has been written. A node that runs finds out when it reads that, or when it
    /// starts again. False if nothing has been written.
    pub(super) fn flip_a_bit(&mut self, random: &mut Random) -> io::Result<bool> {
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&self.log_dir)? {
            files.push(entry?.path());
        }
        files.sort();
        let mut used: Vec<(PathBuf, usize)> = Vec::new();
        for path in files {
            used.extend(used_sectors(&path)?.into_iter().map(|sector| (path.clone(), sector)));
        }
        if used.is_empty() {
            return Ok(false);
        }
        // The end is where the last batch and the hard state are.
        let from = if random.once_in(3) { used.len().saturating_sub(3) } else { 0 };
        let (path, sector) = &used[from + random.below((used.len() - from) as u64) as usize];
        let at = sector * SECTOR_BYTES + random.below(SECTOR_BYTES as u64) as usize;
        self.is_spoiled = self.is_up();
        self.disk.decay(path, at)
    }

    /// Whether it has nothing that a flipped bit may have made worthless.
    pub(super) fn is_sound(&self) -> bool {
        !self.is_spoiled
    }
}

const SECTOR_BYTES: usize = 512;

/// The sectors of a file that are not all zeros.
fn used_sectors(path: &Path) -> io::Result<Vec<usize>> {
    let bytes = fs::read(path)?;
    let used = bytes.chunks_exact(SECTOR_BYTES).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    Ok(used.map(|(number, _)| number).collect())
}

fn unless_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
