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
use crate::driver::simulated::{SimNode, Started, sim_config};
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
            home,
            disk: SimFs::new(random.draw()),
            generation: 0,
            host: Arc::new(SimHost::new(random.draw())),
            node: None,
            me: None,
            epoch: 0,
            turn_at: None,
            disk_at: None,
            paused_until: Duration::ZERO,
            disk_hangs_until: Duration::ZERO,
            full_until: Duration::ZERO,
            clock: Clock { per_mille: 950 + random.below(101) as u32 },
            clock_ahead_ms: 0,
            owes: Some(FoundingRecord::ENTRY_ID.index),
            compared: Index::ZERO,
        }
    }

    /// Starts the node from its disk. False if the disk counts for nothing any more.
    pub(super) fn start(
        &mut self,
        peers: &[NodeId],
        record: &FoundingRecord,
        options: &Options,
        now: Duration,
    ) -> Result<bool, StartError> {
        assert!(self.node.is_none(), "it runs already");
        let config = sim_config(self.id, peers, &self.home.join("checkpoints"), options.clone());
        let log = kv_wal::Log::open_with(Arc::new(self.disk.clone()), &self.log_dir, LOG);
        let (log, _) = log.map_err(|error| StartError::Log(crate::LogError::new(error)))?;
        let host: Arc<dyn Host> = self.host.clone();
        let Started::Running(node) = SimNode::start(&config, log, record, self.clock.local(now), &host)? else {
            return Ok(false);
        };
        self.epoch += 1;
        self.me = Some(node.me());
        self.compared = node.state().0;
        self.node = Some(node);
        Ok(true)
    }

    /// The process ends. What it has written is in the page cache, unless that forgets what the disk does not have.
    pub(super) fn kill(&mut self, is_forgotten: bool) -> io::Result<()> {
        self.node = None;
        self.epoch += 1;
        (self.turn_at, self.disk_at) = (None, None);
        if is_forgotten { self.disk.evict() } else { Ok(()) }
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
        fs::remove_dir_all(std::mem::replace(&mut self.log_dir, next)).or_else(unless_absent)
    }

    /// Another disk, with nothing on it.
    pub(super) fn wipe(&mut self, random: &mut Random) -> io::Result<()> {
        self.kill(false)?;
        let next = self.next_dir();
        self.disk = SimFs::new(random.draw());
        fs::remove_dir_all(std::mem::replace(&mut self.log_dir, next)).or_else(unless_absent)?;
        fs::remove_dir_all(self.home.join("checkpoints")).or_else(unless_absent)
    }

    fn next_dir(&mut self) -> PathBuf {
        self.generation += 1;
        self.home.join(format!("log-{}", self.generation))
    }

    /// The next sync but a few fails.
    pub(super) fn fail_a_sync(&self, random: &mut Random) {
        self.disk.fail_sync_after(random.below(3));
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.disk.set_full(is_full);
    }

    /// A bit flips in the log, somewhere in what has been written. No node may run. False if nothing has been written.
    pub(super) fn flip_a_bit(&self, random: &mut Random) -> io::Result<bool> {
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
        self.disk.flip_on_disk(path, at..at + 1);
        self.disk.evict()?;
        Ok(true)
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
