use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Random;
use crate::StartError;
use crate::driver::host::Host;

/// What waits to be done aside.
type Aside = Box<dyn FnOnce() + Send>;

/// The machine that a simulated node runs on, and the disk that its checkpoints are on. What is in the log is on a disk of
/// its own.
pub(super) struct SimHost {
    pub(super) clock_ms: AtomicU64,
    random: Mutex<Random>,
    aside: Mutex<Vec<Aside>>,
    /// The directory of the checkpoints.
    dir: PathBuf,
    durable: Mutex<Durable>,
    sync_fails: AtomicBool,
}

/// Files by their inodes.
#[derive(Default)]
struct Durable {
    contents: BTreeSet<u64>,
    names: BTreeMap<OsString, u64>,
}

impl SimHost {
    pub(super) fn new(seed: u64, dir: PathBuf) -> SimHost {
        SimHost {
            clock_ms: AtomicU64::new(0),
            random: Mutex::new(Random::new(seed)),
            aside: Mutex::default(),
            dir,
            durable: Mutex::default(),
            sync_fails: AtomicBool::new(false),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Does what was to be done aside. True if there was anything.
    pub(super) fn do_aside(&self) -> bool {
        let waiting = std::mem::take(&mut *self.aside.lock());
        let has_any = !waiting.is_empty();
        waiting.into_iter().for_each(|work| work());
        has_any
    }

    /// The next sync of a checkpoint fails.
    pub(super) fn fail_a_sync(&self) {
        self.sync_fails.store(true, Ordering::Relaxed);
    }

    /// The power goes: a name that was given since the last sync of the directory is there or not, and what was not synced
    /// of a file ends somewhere.
    pub(super) fn lose_power(&self, random: &mut Random) -> io::Result<()> {
        let mut durable = self.durable.lock();
        for (name, inode) in names(&self.dir)? {
            let path = self.dir.join(&name);
            if durable.names.get(&name) != Some(&inode) && random.once_in(2) {
                fs::remove_file(&path)?;
            } else if !durable.contents.contains(&inode) {
                let file = File::options().write(true).open(&path)?;
                file.set_len(random.below(file.metadata()?.len() + 1))?;
            }
        }
        durable.names = names(&self.dir)?;
        durable.contents = durable.names.values().copied().collect();
        Ok(())
    }

    fn may_sync(&self) -> io::Result<()> {
        let fails = self.sync_fails.swap(false, Ordering::Relaxed);
        if fails { Err(io::Error::other("the disk refuses")) } else { Ok(()) }
    }
}

/// The files in a directory and their inodes; none if it is not there.
fn names(dir: &Path) -> io::Result<BTreeMap<OsString, u64>> {
    let entry = |entry: io::Result<fs::DirEntry>| entry.map(|entry| (entry.file_name(), entry.ino()));
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        entries => entries?.map(entry).collect(),
    }
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimHost of {}", self.dir.display())
    }
}

impl Host for SimHost {
    fn wall_clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    fn draw(&self) -> Result<u64, StartError> {
        Ok(self.random.lock().draw())
    }

    fn run_aside(&self, work: Aside) {
        self.aside.lock().push(work);
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.may_sync()?;
        self.durable.lock().contents.insert(file.metadata()?.ino());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Those above it are there from the beginning.
        if dir.file_name() == self.dir.file_name() {
            self.may_sync()?;
            self.durable.lock().names = names(dir)?;
        }
        Ok(())
    }
}
