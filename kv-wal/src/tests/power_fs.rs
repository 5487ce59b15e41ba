//! A disk that can lose power: real files show what the page cache would, and beside them is kept what is durable.
//!
//! A write is durable after the file's sync, a name after the directory's. When the power goes, each sector of each
//! write that was not synced is there or not, as the seed has it, and so is each change of a name up to some point. A
//! sync can be made to fail: then what it should have covered is lost from the disk, while the cache goes on showing it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::format::SECTOR_BYTES;
use crate::fs::{File, Fs, Lock, RealFs, Region};

type Names = BTreeMap<PathBuf, Arc<Mutex<Image>>>;

/// What a file's disk holds.
#[derive(Debug, Default)]
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
    full: bool,
    random: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct PowerFs {
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
struct PowerFile {
    world: Arc<Mutex<World>>,
    image: Arc<Mutex<Image>>,
    live: Arc<dyn File>,
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// Splitmix64.
pub(crate) fn random(seed: &mut u64) -> u64 {
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
}

impl Image {
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

impl PowerFs {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> PowerFs {
        let world = World { random: seed, history: vec![Names::new()], ..World::default() };
        PowerFs { world: Arc::new(Mutex::new(world)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The files that lie in `dir`, as if all of them were durable.
    pub(crate) fn over(dir: &Path) -> PowerFs {
        let fs = PowerFs::new(1);
        let names: Names = std::fs::read_dir(dir).unwrap().map(|e| (e.unwrap().path(), Arc::default())).collect();
        fs.world().names = names;
        fs
    }

    /// From now on there is no room for another byte, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.world().full = full;
    }

    /// The disk does nothing until `during` has returned.
    pub(crate) fn while_stalled<T>(&self, during: impl FnOnce() -> T) -> T {
        let _world = self.world();
        during()
    }

    /// Whether the power has gone.
    pub(crate) fn is_off(&self) -> bool {
        let world = self.world();
        world.power_off_at.is_some_and(|at| world.operations > at)
    }

    /// The power goes after `operations` more.
    pub(crate) fn power_off_after(&self, operations: u64) {
        let mut world = self.world();
        world.power_off_at = Some(world.operations + operations);
    }

    /// The first sync after `operations` more fails.
    pub(crate) fn fail_sync_after(&self, operations: u64) {
        let mut world = self.world();
        world.sync_fails_at = Some(world.operations + operations);
    }

    /// Power comes back: a new disk that holds what this one kept, laid out in `dir`.
    pub(crate) fn after_power_loss(&self, seed: u64, dir: &Path) -> PowerFs {
        let mut seed = seed;
        let world = self.world();
        let candidates = world.history.iter().chain([&world.names]);
        let pick = random(&mut seed) as usize % candidates.clone().count();
        let mut names = Names::new();
        for (path, image) in candidates.clone().nth(pick).unwrap() {
            let path = dir.join(path.file_name().unwrap());
            let durable = image.lock().unwrap().after_power_loss(&mut seed);
            std::fs::write(&path, &durable).unwrap();
            names.insert(path, Arc::new(Mutex::new(Image { durable, unsynced: Vec::new() })));
        }
        let again = PowerFs::new(seed);
        again.world().history = vec![names.clone()];
        again.world().names = names;
        again
    }

    fn rename_step(&self, change: impl FnOnce(&mut Names)) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let before = world.names.clone();
        world.history.push(before);
        change(&mut world.names);
        Ok(())
    }

    fn file(&self, image: Arc<Mutex<Image>>, live: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(PowerFile { world: self.world.clone(), image, live })
    }
}

impl Fs for PowerFs {
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
        Ok(self.file(image, RealFs.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.world().step()?;
        let image = self.world().names[path].clone();
        Ok(self.file(image, RealFs.open(path)?))
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
        world.history = vec![world.names.clone()];
        Ok(())
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut world = self.world();
        buffer.iter_mut().for_each(|byte| *byte = random(&mut world.random) as u8);
        Ok(())
    }
}

impl File for PowerFile {
    fn bytes(&self) -> io::Result<u64> {
        self.live.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.live.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        world.step()?;
        if world.full && offset + data.len() as u64 > self.live.bytes()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.image.lock().unwrap().unsynced.push((offset as usize, data.to_owned()));
        self.live.write_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        world.step()?;
        let fails = world.sync_fails_at.is_some_and(|at| world.operations > at);
        let mut image = self.image.lock().unwrap();
        let unsynced = std::mem::take(&mut image.unsynced);
        if fails {
            world.sync_fails_at = None;
            return Err(io::Error::other("the disk refuses"));
        }
        unsynced.iter().for_each(|(offset, data)| put(&mut image.durable, *offset, data));
        Ok(())
    }

    fn map(&self) -> io::Result<Arc<dyn Region>> {
        self.live.map()
    }
}
