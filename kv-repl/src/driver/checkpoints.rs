//! The checkpoint files of a node: written beside ongoing work, found again on start, received from a leader.
//!
//! A file gets its name only when it is complete and synced, so a file with a name is whole unless the disk damaged it;
//! that is found by its checksums on loading, and the one before is used. What has no name yet is removed when it is given
//! up: on a full disk it may be what fills it.
//!
//! The two newest of what has been applied are kept, and the log is kept back to the older of them, so that one damaged
//! checkpoint loses nothing. A received one that is ahead is kept beside them: before it is restored it covers nothing of
//! the log.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

use super::host::Host;
use super::replicated::Replicated;
use super::traits::{CheckpointMeta, StateMachine};
use crate::planted::{self, Mistake};
use crate::types::{EntryId, Index, Term};

const KEPT: usize = 2;
const SUFFIX: &str = "checkpoint";

/// The directory of checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    host: Arc<dyn Host>,
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
    unnamed: Unnamed,
}

/// A file without a lasting name. It is removed with this, unless it has got one.
#[derive(Debug)]
struct Unnamed {
    file: File,
    path: PathBuf,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Gone, if it has got its name. Else there is nobody to tell, and it is tried again when the directory is opened.
        let _ = fs::remove_file(&self.path);
    }
}

/// Number of the next file without a name: no two of a process are the same.
static NEXT_UNNAMED: AtomicU64 = AtomicU64::new(0);

impl Checkpoints {
    /// Opens the directory, creates it if it is absent, and removes what an interrupted writer left.
    pub(crate) fn open(dir: &Path, host: Arc<dyn Host>) -> io::Result<Checkpoints> {
        let is_new = !dir.exists();
        fs::create_dir_all(dir)?;
        let path = fs::canonicalize(dir)?;
        // What is published in a directory is found again only if the directory is.
        for (nth, above) in path.ancestors().skip(1).enumerate().take(if is_new { usize::MAX } else { 1 }) {
            // One further up may not be ours to open, but then it has not just been made.
            host.sync_dir(above).or_else(|error| if nth > 0 { Ok(()) } else { Err(error) })?;
        }
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        // What is found now may rest upon a name that was given just before a crash, and the log is changed for it.
        host.sync_dir(&path)?;
        Ok(Checkpoints { dir: dir.to_owned(), host })
    }

    fn create(&self) -> io::Result<Unnamed> {
        let path = self.dir.join(format!("unfinished-{}.tmp", NEXT_UNNAMED.fetch_add(1, Ordering::Relaxed)));
        Ok(Unnamed { file: File::create(&path)?, path })
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

    /// Loads the newest checkpoint that is not damaged. Those passed over are taken out of use: they must not be counted, nor
    /// sent. If none is whole they are left alone: they may be of a newer version.
    pub(crate) fn load_newest<S: StateMachine>(&self) -> io::Result<Option<Replicated<S>>> {
        let mut damaged = Vec::new();
        for last in self.list()? {
            match self.load(last)? {
                Ok(state) => {
                    damaged.into_iter().try_for_each(|last| self.set_aside(last))?;
                    return Ok(Some(state));
                }
                Err(error) => {
                    warn!(checkpoint = %self.path(last).display(), %error, "damaged checkpoint passed over");
                    damaged.push(last);
                }
            }
        }
        Ok(None)
    }

    /// Verifies a checkpoint, and takes it out of use if it is damaged: the one before it takes its place.
    pub(crate) fn verify<S: StateMachine>(&self, last: EntryId) -> io::Result<()> {
        match self.load::<S>(last)? {
            Ok(_) => Ok(()),
            Err(error) => {
                warn!(checkpoint = %self.path(last).display(), %error, "a damaged checkpoint is set aside");
                self.set_aside(last)?;
                Err(error)
            }
        }
    }

    /// Takes a file out of use. It is left beside the others for whoever wants to know what happened to it.
    fn set_aside(&self, last: EntryId) -> io::Result<()> {
        let path = self.path(last);
        fs::rename(&path, path.with_extension("damaged"))?;
        self.host.sync_dir(&self.dir)
    }

    /// The state in a checkpoint, or what is wrong with the file. The other error says nothing of the file: it could not be
    /// opened.
    fn load<S: StateMachine>(&self, last: EntryId) -> io::Result<io::Result<Replicated<S>>> {
        Ok(load_file(File::open(self.path(last))?, last))
    }

    /// Writes a checkpoint and returns when it is durable under its name.
    pub(crate) fn write<S: StateMachine>(&self, view: &S::View, meta: &CheckpointMeta) -> io::Result<()> {
        let unnamed = self.create()?;
        let mut out = BufWriter::with_capacity(1 << 20, &unnamed.file);
        S::save(view, meta, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.publish(&unnamed, meta.last)
    }

    /// Removes all but the newest, where everything up to `applied` has been applied, and says up to which entry the log is
    /// no longer needed.
    pub(crate) fn prune(&self, applied: Index) -> io::Result<Option<EntryId>> {
        let (ahead, behind): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(|last| last.index > applied);
        for old in ahead.iter().skip(1).chain(behind.iter().skip(KEPT)) {
            match fs::remove_file(self.path(*old)) {
                // Two threads may prune at once.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(checkpoint = %self.path(*old).display(), %error, "an old checkpoint cannot be removed");
                }
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
        Ok(Incoming { last, file_bytes, held_bytes: 0, unnamed: self.create()? })
    }

    /// Verifies a complete received file, makes it durable under its name and gives the state in it.
    pub(crate) fn accept<S: StateMachine>(&self, incoming: Incoming) -> io::Result<Replicated<S>> {
        assert!(incoming.is_complete(), "only a complete file is accepted");
        let state = load_file(File::open(&incoming.unnamed.path)?, incoming.last)?;
        self.publish(&incoming.unnamed, incoming.last)?;
        Ok(state)
    }

    /// Gives a complete file its name. When this returns both are durable, and the log may rely upon them.
    fn publish(&self, unnamed: &Unnamed, last: EntryId) -> io::Result<()> {
        if planted::is(Mistake::CheckpointNotSynced) {
            return fs::rename(&unnamed.path, self.path(last));
        }
        self.host.sync_file(&unnamed.file)?;
        fs::rename(&unnamed.path, self.path(last))?;
        self.host.sync_dir(&self.dir)
    }

    /// The file of a checkpoint that ends with `last`.
    pub(crate) fn path(&self, last: EntryId) -> PathBuf {
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
            self.unnamed.file.write_all(data)?;
            self.held_bytes += data.len() as u64;
        }
        Ok(())
    }
}

fn load_file<S: StateMachine>(file: File, last: EntryId) -> io::Result<Replicated<S>> {
    let mut input = BufReader::with_capacity(1 << 20, file);
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
    use bytes::Bytes;

    use super::*;
    use crate::driver::host::RealHost;
    use crate::driver::testing::{Counter, state_at};
    use crate::driver::traits::BoxError;

    /// A state that no disk has room for.
    struct Unwritable;

    impl StateMachine for Unwritable {
        type Outcome = ();
        type View = ();

        fn create(_secret: [u8; 32]) -> Self {
            Unwritable
        }

        fn apply(&mut self, _index: Index, _stamp_ms: u64, _command: &Bytes) {}

        fn view(&self) {}

        fn digest(&self) -> [u8; 32] {
            [0; 32]
        }

        fn save((): &(), _meta: &CheckpointMeta, out: &mut dyn Write) -> io::Result<()> {
            out.write_all(&[0; 1 << 21])?;
            Err(io::ErrorKind::StorageFull.into())
        }

        fn load(_input: &mut dyn io::Read) -> Result<(Self, CheckpointMeta), BoxError> {
            Err("there is none".into())
        }
    }

    /// Writes a checkpoint of so many entries, and says where it is.
    fn write(checkpoints: &Checkpoints, applied: u64) -> PathBuf {
        let state = state_at(applied);
        checkpoints.write::<Counter>(&state.machine.view(), &state.checkpoint_meta()).expect("written");
        checkpoints.path(state.applied)
    }

    /// On a full disk it may be what fills it.
    #[test]
    fn what_is_given_up_is_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let files = || fs::read_dir(dir.path()).expect("listed").count();
        let (last, meta) = (state_at(5).applied, state_at(5).checkpoint_meta());
        let mut incoming = checkpoints.receive(last, 10).expect("begun");
        incoming.take(0, b"part").expect("written");
        let other = checkpoints.receive(last, 12).expect("begun");
        assert_eq!(files(), 2);
        drop(incoming);
        assert_eq!(files(), 1, "the other is not touched");
        drop(other);
        checkpoints.write::<Unwritable>(&(), &meta).expect_err("it is refused");
        assert_eq!(files(), 0);
        checkpoints.write::<Counter>(&5, &meta).expect("written");
        assert_eq!(files(), 1);
    }

    /// A damaged one counts for nothing, or there would be one less than there seem to be.
    #[test]
    fn what_was_passed_over_is_not_one_of_two() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let write = |applied| write(&checkpoints, applied);
        let paths = [10, 20].map(write);
        fs::write(&paths[1], b"damaged").expect("writable");
        let newest = || checkpoints.load_newest::<Counter>().expect("readable").map(|state| state.applied.index.get());
        assert_eq!(newest(), Some(10));
        write(30);
        assert_eq!(checkpoints.prune(Index::new(30)).expect("pruned").map(|last| last.index.get()), Some(10));
        for path in dir.path().read_dir().expect("listed").map(|entry| entry.expect("its name").path()) {
            fs::write(&path, b"of a newer version").expect("writable");
        }
        assert_eq!(newest(), None);
        assert_eq!(checkpoints.list().expect("listed").len(), 2, "none is whole: they are left alone");
    }

    #[test]
    fn what_was_received_ahead_covers_nothing_of_the_log() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let checkpoints = Checkpoints::open(dir.path(), Arc::new(RealHost)).expect("opens");
        let write = |applied| drop(write(&checkpoints, applied));
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
