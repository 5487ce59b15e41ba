//! A disk that fails: real files show what the page cache would, and beside them is kept what is durable.
//!
//! A write is durable after the file's sync, a name after the directory's. When the power goes, each sector of each
//! write that was not synced is there or not, as the seed has it, and so is each change of a name up to some point. A
//! sync can be made to fail: then of what it should have covered any sectors are on the disk, while the cache goes on
//! showing all of it, until it forgets ([`SimFs::evict`]). Besides: writes that fail or stop half way, a full disk, a
//! disk that hangs, sectors that cannot be read, flipped bits.
//!
//! One `SimFs` is one disk with one directory. It implements the same traits as the real file system, so the log runs
//! on it unchanged:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use kv_wal::testing::SimFs;
//! use kv_wal::{Log, Options};
//!
//! let (dir, disk) = (tempfile::tempdir()?, SimFs::new(7));
//! let options = Options { segment_bytes: 64 << 10, prepare_ahead: false, ..Options::default() };
//! let (mut log, _) = Log::open_with(Arc::new(disk.clone()), dir.path(), options)?;
//! log.append(&[], Some(b"synced"))?;
//! log.sync()?;
//! log.append(&[], Some(b"not synced"))?;
//! drop(log);
//!
//! let after = tempfile::tempdir()?;
//! let disk = disk.after_power_loss(8, after.path());
//! let (log, _) = Log::open_with(Arc::new(disk), after.path(), options)?;
//! assert_eq!(log.state().as_deref(), Some(&b"synced"[..]));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;

use crate::error::Damage;
use crate::format::SECTOR_BYTES;
use crate::fs::{File, Fs, Lock, RealFs, Region};
use crate::log::{Log, Options};
use crate::record::{Entry, EntryId, Index, Kind, Term};
use crate::scan::scan;

type Names = BTreeMap<PathBuf, Arc<Mutex<Image>>>;

/// What a file's disk holds.
#[derive(Default)]
struct Image {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct World {
    names: Names,
    /// Since the last sync of the directory; the first is what is durable.
    history: Vec<Names>,
    operations: u64,
    /// After so many operations the power goes, or a sync fails.
    power_off_at: Option<u64>,
    sync_fails_at: Option<u64>,
    /// After so many operations a write fails, of which a part has been done.
    write_fails_at: Option<u64>,
    /// After so many operations a rename, a removal or a sync of the directory fails, and does nothing.
    name_fails_at: Option<u64>,
    full: bool,
    /// Sectors of files that cannot be read.
    unreadable: Vec<(PathBuf, usize)>,
    /// Files made since the start.
    created: u64,
    random: u64,
}

/// A simulated disk: see [`testing`](crate::testing). Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimFs {
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
struct SimFile {
    path: PathBuf,
    world: Arc<Mutex<World>>,
    image: Arc<Mutex<Image>>,
    live: Arc<dyn File>,
    /// Reads what the disk holds, not what the page cache shows.
    direct: bool,
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// The next number of a seed: splitmix64.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl World {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        let off = self.power_off_at.is_some_and(|at| self.operations > at);
        if off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn name_step(&mut self) -> io::Result<()> {
        let operations = self.operations;
        let fails = self.name_fails_at.take_if(|at| operations > *at).is_some();
        if fails { Err(io::Error::other("the directory refuses")) } else { Ok(()) }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image of {} bytes and {} writes", self.durable.len(), self.unsynced.len())
    }
}

impl Image {
    /// What the disk has, and what still waits to be written to it.
    fn shown(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.unsynced.iter().for_each(|(offset, data)| put(&mut bytes, *offset, data));
        bytes
    }

    fn after_power_loss(&self, seed: &mut u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        // Now and then all or nothing, which chance alone would hardly ever bring.
        let luck = random(seed) % 4;
        for (offset, data) in &self.unsynced {
            for (sector, data) in data.chunks(SECTOR_BYTES).enumerate() {
                if luck == 0 || (luck > 1 && random(seed).is_multiple_of(2)) {
                    put(&mut bytes, offset + sector * SECTOR_BYTES, data);
                }
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    bytes.resize(bytes.len().max(offset + data.len()), 0);
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl SimFs {
    /// An empty disk.
    pub fn new(seed: u64) -> SimFs {
        let world = World { random: seed, history: vec![Names::new()], ..World::default() };
        SimFs { world: Arc::new(Mutex::new(world)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic under this lock")
    }

    /// A disk with the files that lie in `dir`, all of them durable.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn over(dir: &Path) -> io::Result<SimFs> {
        let fs = SimFs::new(1);
        let mut names = Names::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let image = Image { durable: std::fs::read(&path)?, unsynced: Vec::new() };
            names.insert(path, Arc::new(Mutex::new(image)));
        }
        fs.world().history = vec![names.clone()];
        fs.world().names = names;
        Ok(fs)
    }

    /// The first write after `operations` more fails, when some of its bytes have been written.
    pub fn fail_write_after(&self, operations: u64) {
        let mut world = self.world();
        world.write_fails_at = Some(world.operations + operations);
    }

    /// The first creation, rename, removal or sync of the directory after `operations` more fails.
    pub fn fail_name_after(&self, operations: u64) {
        let mut world = self.world();
        world.name_fails_at = Some(world.operations + operations);
    }

    /// The sector of a file at `offset` cannot be read any more, but by a map.
    pub fn spoil(&self, path: &Path, offset: usize) {
        self.world().unreadable.push((path.to_owned(), offset / SECTOR_BYTES));
    }

    /// A bit of each of these bytes of a file flips on the disk. The page cache goes on showing what they were.
    ///
    /// # Panics
    ///
    /// If the disk has no such bytes.
    pub fn flip_on_disk(&self, path: &Path, bytes: Range<usize>) {
        let world = self.world();
        let image = world.names.get(path).expect("a file of this disk");
        let durable = &mut image.lock().expect("no panic under this lock").durable;
        bytes.for_each(|offset| durable[offset] ^= 1 << (offset % 8));
    }

    /// A bit of this byte of a file flips, on the disk and, unless the sector still waits to be written, in what the page
    /// cache shows: it was read again. False if the disk has no such byte.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn decay(&self, path: &Path, offset: usize) -> io::Result<bool> {
        let world = self.world();
        let Some(image) = world.names.get(path) else { return Ok(false) };
        let mut image = image.lock().expect("no panic under this lock");
        let sector = offset / SECTOR_BYTES * SECTOR_BYTES..(offset / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let is_waiting = |(at, data): &(usize, Vec<u8>)| *at < sector.end && sector.start < at + data.len();
        if offset >= image.durable.len() || image.unsynced.iter().any(is_waiting) {
            return Ok(false);
        }
        image.durable[offset] ^= 1 << (offset % 8);
        RealFs.open(path)?.write_at(&[image.durable[offset]], offset as u64)?;
        Ok(true)
    }

    /// Files that have been made.
    pub fn created(&self) -> u64 {
        self.world().created
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// The page cache forgets: files show what the disk has, and what still waits to be written to it. No file may be
    /// open.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn evict(&self) -> io::Result<()> {
        for (path, image) in &self.world().names {
            std::fs::write(path, image.lock().expect("no panic under this lock").shown())?;
        }
        Ok(())
    }

    /// From now on there is no room for another byte, or there is again.
    pub fn set_full(&self, full: bool) {
        self.world().full = full;
    }

    /// The disk does nothing until `during` has returned.
    pub fn while_stalled<T>(&self, during: impl FnOnce() -> T) -> T {
        let _world = self.world();
        during()
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        let world = self.world();
        world.power_off_at.is_some_and(|at| world.operations > at)
    }

    /// The power goes after `operations` more.
    pub fn power_off_after(&self, operations: u64) {
        let mut world = self.world();
        world.power_off_at = Some(world.operations + operations);
    }

    /// The first sync after `operations` more fails.
    pub fn fail_sync_after(&self, operations: u64) {
        let mut world = self.world();
        world.sync_fails_at = Some(world.operations + operations);
    }

    /// Power comes back: a new disk that holds what this one kept, laid out in `dir`.
    pub fn after_power_loss(&self, seed: u64, dir: &Path) -> SimFs {
        let mut seed = seed;
        let world = self.world();
        let candidates = world.history.iter().chain([&world.names]);
        let pick = random(&mut seed) as usize % candidates.clone().count();
        let mut names = Names::new();
        for (path, image) in candidates.clone().nth(pick).unwrap() {
            let path = dir.join(path.file_name().unwrap());
            let durable = image.lock().expect("no panic under this lock").after_power_loss(&mut seed);
            std::fs::write(&path, &durable).unwrap();
            names.insert(path, Arc::new(Mutex::new(Image { durable, unsynced: Vec::new() })));
        }
        let again = SimFs::new(seed);
        again.world().history = vec![names.clone()];
        again.world().names = names;
        again
    }

    fn rename_step(&self, change: impl FnOnce(&mut Names)) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.name_step()?;
        let before = world.names.clone();
        world.history.push(before);
        change(&mut world.names);
        Ok(())
    }

    fn existing(&self, path: &Path, direct: bool) -> io::Result<Arc<SimFile>> {
        self.world().step()?;
        let image = self.world().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        let (world, live) = (self.world.clone(), RealFs.open(path)?);
        Ok(Arc::new(SimFile { path: path.to_owned(), world, image, live, direct }))
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFs.create_dir_all(dir)
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        self.world().step()?;
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(self.world().names.keys().map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let image = Arc::<Mutex<Image>>::default();
        self.rename_step(|names| drop(names.insert(path.to_owned(), image.clone())))?;
        self.world().created += 1;
        let (world, live) = (self.world.clone(), RealFs.create(path)?);
        Ok(Arc::new(SimFile { path: path.to_owned(), world, image, live, direct: false }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.existing(path, false)?)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.existing(path, false)?)
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.existing(path, true)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename_step(|names| {
            let image = names.remove(from).unwrap();
            names.insert(to.to_owned(), image);
        })?;
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.rename_step(|names| drop(names.remove(path)))?;
        RealFs.remove(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.name_step()?;
        world.history = vec![world.names.clone()];
        Ok(())
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut world = self.world();
        buffer.iter_mut().for_each(|byte| *byte = random(&mut world.random) as u8);
        Ok(())
    }
}

impl File for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.live.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let sectors = offset as usize / SECTOR_BYTES..(offset as usize + buffer.len()).div_ceil(SECTOR_BYTES);
        let world = self.world.lock().expect("no panic under this lock");
        if world.unreadable.iter().any(|(path, sector)| *path == self.path && sectors.contains(sector)) {
            return Err(io::Error::other("the disk cannot read this sector"));
        }
        drop(world);
        if self.direct {
            let image = self.image.lock().expect("no panic under this lock").shown();
            let bytes = image.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            return Ok(());
        }
        self.live.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world.lock().expect("no panic under this lock");
        world.step()?;
        if world.full && offset + data.len() as u64 > self.live.bytes()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let operations = world.operations;
        let fails = world.write_fails_at.take_if(|at| operations > *at).is_some();
        // Whole sectors: as for the disk, so for the page cache.
        let sectors = data.len() as u64 / SECTOR_BYTES as u64 + 1;
        let stopped = (random(&mut world.random) % sectors) as usize * SECTOR_BYTES;
        let written = if fails { stopped } else { data.len() };
        self.image
            .lock()
            .expect("no panic under this lock")
            .unsynced
            .push((offset as usize, data[..written].to_owned()));
        self.live.write_at(&data[..written], offset)?;
        if fails { Err(io::Error::other("the disk refuses")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock().expect("no panic under this lock");
        world.step()?;
        let fails = world.sync_fails_at.is_some_and(|at| world.operations > at);
        let mut image = self.image.lock().expect("no panic under this lock");
        if fails {
            world.sync_fails_at = None;
            image.durable = image.after_power_loss(&mut world.random);
            image.unsynced.clear();
            return Err(io::Error::other("the disk refuses"));
        }
        let unsynced = std::mem::take(&mut image.unsynced);
        unsynced.iter().for_each(|(offset, data)| put(&mut image.durable, *offset, data));
        Ok(())
    }

    fn map(&self) -> io::Result<Arc<dyn Region>> {
        self.live.map()
    }
}

/// Makes the bytes of a segment file, whatever they are, match their checksums again, and its batches their chain: for
/// tests of what only whoever can write to the files can do.
pub fn reseal(segment: &mut [u8]) {
    crate::format::reseal(segment);
}

/// Does with the log in `dir`, whose files may be anything, whatever one can do with a log. Errors are fine, and so are
/// entries that nobody wrote: whoever can make files with checksums that match can make any. It must not panic.
///
/// # Panics
///
/// If it finds a defect of this crate, or `dir` cannot be read.
pub fn exercise(dir: &Path) {
    let options = Options { segment_bytes: 64 << 10, prepare_ahead: false, ..Options::default() };
    let open = || Log::open_with(Arc::new(SimFs::over(dir).expect("a directory")), dir, options);
    let entry =
        |index: Index| Entry::encode(&mut BytesMut::new(), EntryId::new(Term::new(1), index), 0, Kind(1), b"exercise");
    if let Ok(scanned) = scan(dir) {
        let _ = (scanned.entry(scanned.recovery.last.index), scanned.recovery.to_string());
    }
    let Ok((mut log, _)) = open() else { return };
    let reader = log.reader();
    for index in [log.base().index, log.last().index, Index::new(5), Index::new(u64::MAX)] {
        let _ = (reader.get(index), reader.term(index), reader.read(index.prev()..index.plus(3), 1 << 20));
    }
    let _ = (reader.iter(Index::ZERO..Index::new(u64::MAX)).take(100).count(), reader.term_runs(), log.damage());
    let mut scrubber = log.scrubber();
    while !scrubber.step(1 << 20).expect("its files are there").finished {}
    for Damage { first, .. } in log.damage().into_iter().chain(reader.suspects()) {
        let _ = log.repair(&[entry(first)]);
    }
    let _ = (log.append(&[], Some(b"state")), log.sync());
    let _ = (log.truncate_suffix(log.last().index.prev()), log.truncate_prefix(log.last()), log.reset(log.last()));
    let _ = (log.append(&[entry(log.last().index.next())], None), log.sync());
    drop(log);
    let _ = open();
}
