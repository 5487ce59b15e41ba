//! The checkpoint files of a durable store, beside its log in one directory and under its lock.
//!
//! A file gets its name only when it is complete and synced, so a file with a name is whole unless the disk damaged it;
//! that is found when it is read, and the one before is used. What has no name yet is removed when it is given up: on a full
//! disk it may be what fills it.
//!
//! Two are kept, and the log back to the older of them, so that one damaged checkpoint loses nothing. Only a checkpoint
//! that this process has read to its end or has written counts as one of two: nobody has looked at the others.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kv_wal::Index;
use kv_wal::fs::{File, Fs};
use tracing::warn;

use super::error::DurableError;
use super::identity::{Identity, NotOurs, VERSION};
use super::journal::id_of;
use crate::checkpoint::{self, CheckpointError, CheckpointMeta};
use crate::read_view::ReadView;
use crate::store::Store;

const KEPT: usize = 2;
const SUFFIX: &str = ".checkpoint";
/// A checkpoint that is being written. There is one at a time.
const UNFINISHED_NAME: &str = "checkpoint.tmp";
/// Bytes handed to the system at once.
const WRITE_BYTES: usize = 256 << 10;
/// A checkpoint is synced whenever so much of it has been written: one sync of all of it at the end would have the log's
/// syncs, which go to the same disk, wait behind it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// The checkpoints in a directory.
#[derive(Debug)]
pub(super) struct Checkpoints {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Last entries of those that are known to be sound, newest first.
    sound: Vec<Index>,
}

/// A checkpoint that was passed over because it is damaged.
#[derive(Clone, Debug)]
pub struct DamagedCheckpoint {
    /// Its file. It stays until two later checkpoints are there.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: Arc<CheckpointError>,
}

/// What a sound checkpoint holds.
pub(super) struct Loaded {
    pub(super) last: Index,
    pub(super) path: PathBuf,
    pub(super) store: Store,
    pub(super) identity: Identity,
}

impl Checkpoints {
    /// The checkpoints in `dir`, whose lock is held. Removes what an interrupted writer left.
    pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, DurableError> {
        let checkpoints = Checkpoints { fs, dir: dir.to_owned(), sound: Vec::new() };
        if checkpoints.names()?.iter().any(|name| name == UNFINISHED_NAME) {
            let path = checkpoints.unfinished();
            checkpoints.fs.remove(&path).map_err(DurableError::checkpoint("remove", &path))?;
        }
        Ok(checkpoints)
    }

    /// Reads the newest checkpoint that is not damaged, and tells which ones are.
    pub(super) fn load_newest(&mut self) -> Result<(Option<Loaded>, Vec<DamagedCheckpoint>), DurableError> {
        let mut damaged = Vec::new();
        for last in self.list()? {
            let path = self.path(last);
            match self.load(last, &path)? {
                Ok(loaded) => {
                    self.sound = vec![last];
                    return Ok((Some(loaded), damaged));
                }
                Err(error) => {
                    warn!(path = %path.display(), %error, "a damaged checkpoint is passed over");
                    damaged.push(DamagedCheckpoint { path, error: Arc::new(error) });
                }
            }
        }
        Ok((None, damaged))
    }

    /// A checkpoint, or what damage it has. The outer error is none of damage.
    fn load(&self, last: Index, path: &Path) -> Result<Result<Loaded, CheckpointError>, DurableError> {
        let file = self.fs.open_read(path).map_err(DurableError::checkpoint("open", path))?;
        let bytes = file.bytes().map_err(DurableError::checkpoint("read", path))?;
        let (store, meta) = match checkpoint::read(&mut FileReader { file, offset: 0, bytes }) {
            Ok(read) => read,
            Err(error @ CheckpointError::UnknownVersion { .. }) => {
                return Err(DurableError::CheckpointFormat { path: path.to_owned(), source: Arc::new(error) });
            }
            Err(error) => return Ok(Err(error)),
        };
        let identity = Identity::decode(&meta.blob).map_err(|not_ours| not_ours.at(path))?;
        if meta.last != id_of(last) {
            return Err(DurableError::Foreign { path: path.to_owned() });
        }
        Ok(Ok(Loaded { last, path: path.to_owned(), store, identity }))
    }

    /// The newest checkpoint that is known to be sound.
    pub(super) fn newest(&self) -> Option<Index> {
        self.sound.first().copied()
    }

    /// Up to which entry the log is not needed, even if the newest checkpoint turns out to be damaged.
    pub(super) fn covered(&self) -> Option<Index> {
        self.sound.get(KEPT - 1).copied()
    }

    /// Writes the state after the entry `last`, and returns when it is durable under its name.
    pub(super) fn write(&mut self, view: &ReadView, last: Index, identity: &Identity) -> Result<(), DurableError> {
        let (unfinished, path) = (self.unfinished(), self.path(last));
        if let Err(error) = self.write_unfinished(view, last, identity, &unfinished) {
            if let Err(error) = self.fs.remove(&unfinished) {
                // It is tried again when the next one is written, or the directory opened.
                warn!(path = %unfinished.display(), %error, "an unfinished checkpoint cannot be removed");
            }
            return Err(error);
        }
        self.fs.rename(&unfinished, &path).map_err(DurableError::checkpoint("rename to", &path))?;
        self.fs.sync_dir(&self.dir).map_err(DurableError::checkpoint("sync", &self.dir))?;
        self.sound.insert(0, last);
        self.sound.truncate(KEPT);
        Ok(())
    }

    fn write_unfinished(
        &self,
        view: &ReadView,
        last: Index,
        identity: &Identity,
        path: &Path,
    ) -> Result<(), DurableError> {
        let file = self.fs.create(path).map_err(DurableError::checkpoint("create", path))?;
        let out = FileWriter { file: file.clone(), offset: 0, synced: 0 };
        let mut out = BufWriter::with_capacity(WRITE_BYTES, out);
        let meta = CheckpointMeta { last: id_of(last), blob: Bytes::copy_from_slice(&identity.encode()) };
        checkpoint::write(view, &meta, &mut out).map_err(DurableError::checkpoint("write", path))?;
        file.sync().map_err(DurableError::checkpoint("sync", path))
    }

    /// Removes all but the two newest that are sound. One that cannot be removed is left for the next time.
    pub(super) fn remove_old(&self) -> Result<(), DurableError> {
        if self.sound.len() < KEPT {
            return Ok(());
        }
        for old in self.list()?.into_iter().filter(|last| !self.sound.contains(last)) {
            let path = self.path(old);
            if let Err(error) = self.fs.remove(&path) {
                warn!(path = %path.display(), %error, "an old checkpoint cannot be removed");
            }
        }
        Ok(())
    }

    /// The last entries of the checkpoints that are there, newest first.
    fn list(&self) -> Result<Vec<Index>, DurableError> {
        let mut found: Vec<_> = self.names()?.iter().filter_map(|name| parse_name(name)).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>, DurableError> {
        self.fs.list(&self.dir).map_err(DurableError::checkpoint("list", &self.dir))
    }

    fn path(&self, last: Index) -> PathBuf {
        self.dir.join(format!("{:016x}{SUFFIX}", last.get()))
    }

    fn unfinished(&self) -> PathBuf {
        self.dir.join(UNFINISHED_NAME)
    }
}

impl NotOurs {
    /// The same as an error of a file.
    pub(super) fn at(self, path: &Path) -> DurableError {
        let path = path.to_owned();
        match self {
            NotOurs::Foreign => DurableError::Foreign { path },
            NotOurs::Version(found) => DurableError::Version { path, found, supported: VERSION },
        }
    }
}

/// Only names as [`Checkpoints::path`] makes them: two names of one checkpoint would be two checkpoints.
fn parse_name(name: &str) -> Option<Index> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|_| is_ours).map(Index::new)
}

/// Reads a file from front to back.
struct FileReader {
    file: Arc<dyn File>,
    offset: u64,
    bytes: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.bytes - self.offset).unwrap_or(usize::MAX);
        let count = buffer.len().min(rest);
        self.file.read_at(&mut buffer[..count], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes a file from front to back, and syncs it as it grows.
struct FileWriter {
    file: Arc<dyn File>,
    offset: u64,
    synced: u64,
}

impl Write for FileWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_at(data, self.offset)?;
        self.offset += data.len() as u64;
        if self.offset - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync()?;
            self.synced = self.offset;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_names_are_checkpoints() {
        assert_eq!(parse_name("00000000000000ff.checkpoint"), Some(Index::new(255)));
        for other in ["ff.checkpoint", "00000000000000FF.checkpoint", "+0000000000000ff.checkpoint", "checkpoint.tmp"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
