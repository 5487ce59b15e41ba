//! The checkpoint files of a node: written beside ongoing work, found again on start, received from a leader.
//!
//! A file gets its name only when it is complete and synced, so a file with a name is whole unless the disk damaged it;
//! that is found by its checksums on loading, and the one before is used. The two newest of what has been applied are kept,
//! and the log is kept back to the older of them, so that one damaged checkpoint loses nothing. A received one that is
//! ahead is kept beside them: before it is restored it covers nothing of the log.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::replicated::Replicated;
use super::traits::{CheckpointMeta, StateMachine};
use crate::types::{EntryId, Index, Term};

const KEPT: usize = 2;
const SUFFIX: &str = "checkpoint";

/// The directory of checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
}

/// A file that is being sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) last: EntryId,
    pub(crate) file: File,
    pub(crate) file_bytes: u64,
}

/// A received file that is not complete yet.
#[derive(Debug)]
pub(crate) struct Incoming {
    last: EntryId,
    file_bytes: u64,
    held_bytes: u64,
    file: File,
    path: PathBuf,
}

impl Checkpoints {
    /// Opens the directory, creates it if it is absent, and removes what an interrupted writer left.
    pub(crate) fn open(dir: &Path) -> io::Result<Checkpoints> {
        fs::create_dir_all(dir)?;
        // What is published in a directory is found again only if the directory is.
        if let Some(above) = fs::canonicalize(dir)?.parent() {
            File::open(above)?.sync_all()?;
        }
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(Checkpoints { dir: dir.to_owned() })
    }

    /// The last entries of the checkpoints that are there, newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<EntryId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            found.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        found.sort_by_key(|last| std::cmp::Reverse(last.index));
        Ok(found)
    }

    /// Loads the newest checkpoint that is not damaged.
    pub(crate) fn load_newest<S: StateMachine>(&self) -> io::Result<Option<Replicated<S>>> {
        for last in self.list()? {
            match self.load(last) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => warn!(checkpoint = %self.path(last).display(), %error, "damaged checkpoint passed over"),
            }
        }
        Ok(None)
    }

    /// Verifies a checkpoint, and takes it out of use if it is damaged: the one before it takes its place. Its file is left
    /// beside the others for whoever wants to know what happened to it.
    pub(crate) fn verify<S: StateMachine>(&self, last: EntryId) -> io::Result<()> {
        let Err(error) = self.load::<S>(last) else { return Ok(()) };
        let path = self.path(last);
        if path.exists() {
            warn!(checkpoint = %path.display(), %error, "a damaged checkpoint is set aside");
            fs::rename(&path, path.with_extension("damaged"))?;
            File::open(&self.dir)?.sync_all()?;
        }
        Err(error)
    }

    fn load<S: StateMachine>(&self, last: EntryId) -> io::Result<Replicated<S>> {
        load_file(&self.path(last), last)
    }

    /// Writes a checkpoint and returns when it is durable under its name.
    pub(crate) fn write<S: StateMachine>(&self, view: &S::View, meta: &CheckpointMeta) -> io::Result<()> {
        let temporary = self.dir.join("writing.tmp");
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        S::save(view, meta, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.publish(&temporary, meta.last)
    }

    /// Removes all but the newest, where everything up to `applied` has been applied, and says up to which entry the log is
    /// no longer needed.
    pub(crate) fn prune(&self, applied: Index) -> io::Result<Option<EntryId>> {
        let (ahead, behind): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(|last| last.index > applied);
        for old in ahead.iter().skip(1).chain(behind.iter().skip(KEPT)) {
            match fs::remove_file(self.path(*old)) {
                // Two threads may prune at once.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(behind.get(KEPT - 1).copied())
    }

    /// Opens the newest checkpoint for sending.
    pub(crate) fn open_newest(&self) -> io::Result<Option<Outgoing>> {
        self.list()?.first().map_or(Ok(None), |last| self.open_if_there(*last))
    }

    /// Opens a checkpoint for sending; `None` if it has been replaced.
    pub(crate) fn open_if_there(&self, last: EntryId) -> io::Result<Option<Outgoing>> {
        match File::open(self.path(last)) {
            Ok(file) => Ok(Some(Outgoing { last, file_bytes: file.metadata()?.len(), file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to receive a checkpoint.
    pub(crate) fn receive(&self, last: EntryId, file_bytes: u64) -> io::Result<Incoming> {
        let path = self.dir.join("receiving.tmp");
        let file = File::create(&path)?;
        Ok(Incoming { last, file_bytes, held_bytes: 0, file, path })
    }

    /// Verifies a complete received file, makes it durable under its name and gives the state in it.
    pub(crate) fn accept<S: StateMachine>(&self, incoming: Incoming) -> io::Result<Replicated<S>> {
        assert!(incoming.is_complete(), "only a complete file is accepted");
        incoming.file.sync_all()?;
        let state = load_file(&incoming.path, incoming.last)?;
        self.publish(&incoming.path, incoming.last)?;
        Ok(state)
    }

    fn publish(&self, temporary: &Path, last: EntryId) -> io::Result<()> {
        fs::rename(temporary, self.path(last))?;
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, last: EntryId) -> PathBuf {
        self.dir.join(format!("{:016x}-{:016x}.{SUFFIX}", last.index.get(), last.term.get()))
    }
}

impl Incoming {
    /// Whether this is the file that a piece belongs to.
    pub(crate) fn is_for(&self, last: EntryId, file_bytes: u64) -> bool {
        self.last == last && self.file_bytes == file_bytes
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.held_bytes == self.file_bytes
    }

    /// Takes a piece if it is the next one.
    pub(crate) fn take(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let room = self.file_bytes - self.held_bytes;
        if offset == self.held_bytes && data.len() as u64 <= room {
            self.file.write_all(data)?;
            self.held_bytes += data.len() as u64;
        }
        Ok(())
    }
}

fn load_file<S: StateMachine>(path: &Path, last: EntryId) -> io::Result<Replicated<S>> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (machine, meta) = S::load(&mut input).map_err(io::Error::other)?;
    if meta.last != last {
        return Err(io::Error::other(format!("holds entry {} under the name of {last}", meta.last)));
    }
    Replicated::restore(machine, &meta).ok_or_else(|| io::Error::other("replication state of another version"))
}

fn parse_name(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.strip_suffix('.')?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some(EntryId::new(Term::new(number(term)?), Index::new(number(index)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::{Counter, state_at};

    #[test]
    fn what_was_received_ahead_covers_nothing_of_the_log() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path()).expect("opens");
        let write = |applied: u64| {
            let state = state_at(applied);
            checkpoints.write::<Counter>(&state.machine.view(), &state.checkpoint_meta()).expect("written");
        };
        let indices = || checkpoints.list().expect("listed").iter().map(|last| last.index.get()).collect::<Vec<_>>();
        let prune = |applied| checkpoints.prune(Index::new(applied)).expect("pruned").map(|last| last.index.get());
        [3, 10, 12].into_iter().for_each(write);
        assert_eq!(prune(4), None, "one checkpoint of what has been applied is not enough");
        assert_eq!(indices(), [12, 3]);
        [5, 7].into_iter().for_each(write);
        assert_eq!(prune(7), Some(5));
        assert_eq!(indices(), [12, 7, 5]);
        assert_eq!(prune(12), Some(7), "now it has been restored");
        assert_eq!(indices(), [12, 7]);
    }
}
