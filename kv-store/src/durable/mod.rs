//! A store on a disk of its own: [`Store`](crate::Store), a log of `kv-wal` and checkpoints, in one directory.
//!
//! | file | idea |
//! |---|---|
//! | `journal.rs` | the log: ops become entries |
//! | `commit.rs` | group commit by the callers themselves |
//! | `checkpoints.rs` | the files of checkpoints |
//! | `identity.rs` | the secret, and its bytes |
//! | `recovery.rs` | opening, as tables |
//! | `shared.rs`, `background.rs` | the steps of a checkpoint, and the thread that takes them |

mod background;
mod checkpoints;
mod commit;
mod error;
mod identity;
mod journal;
mod recovery;
mod shared;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kv_wal::Index;
use kv_wal::fs::{Fs, RealFs};

pub use checkpoints::DamagedCheckpoint;
pub use error::DurableError;
pub use recovery::Recovered;

use crate::op::{Condition, Deadline, Op};
use crate::outcome::Outcome;
use crate::read_view::ReadView;
use journal::Change;
use shared::{Clock, Shared, lock, read};

/// Most bytes of encoded ops that one call of [`DurableStore::apply_many`] takes.
pub const APPLY_MANY_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(crate::op::OP_BYTES_MAX + kv_wal::record::HEADER_BYTES <= APPLY_MANY_BYTES_MAX);

/// How to open a durable store. All of it may differ from one opening to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A checkpoint is written when the log has grown by so many bytes since the last one. Opening takes the longer, and
    /// the log the more room, the more this is; the log is kept back to the checkpoint before the last.
    pub checkpoint_log_bytes: u64,
    /// Bytes of a segment of the log: a multiple of 4096, from 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Write checkpoints, prepare segments, and have pairs removed that expire, on threads. Without it no thread is
    /// started: the call that finds a checkpoint due or a segment full does that itself, and pairs expire with the next
    /// write ([`DurableStore::remove_expired`]).
    pub in_background: bool,
    /// Open a store whose log has lost acknowledged writes, and give up these and all that came after them. Without it
    /// such a store is refused, with an error that names them.
    pub give_up_lost: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { checkpoint_log_bytes: 64 << 20, segment_bytes: 16 << 20, in_background: true, give_up_lost: false }
    }
}

/// How a durable store is getting on.
#[derive(Clone, Debug)]
pub struct Status {
    /// The last entry applied, which is durable.
    pub last: Index,
    /// The last entry of the newest checkpoint.
    pub checkpoint: Option<Index>,
    /// Why the last attempt to write a checkpoint has failed, if it has. It is tried again; meanwhile the log grows.
    pub checkpoint_failure: Option<DurableError>,
    /// Why no write is taken any more: [`DurableError::Poisoned`] or [`DurableError::Closed`].
    pub refuses_writes: Option<DurableError>,
}

/// A store whose every write is durable when it is answered. Clones are the same store; any thread may use one.
///
/// Ops are applied in the order of the log, after the sync that covers them: what can be read is durable. A read sees all
/// writes that were answered before it began.
///
/// ```
/// # fn main() -> Result<(), kv_store::DurableError> {
/// # let dir = tempfile::tempdir().unwrap();
/// use kv_store::{DurableOptions, DurableStore};
///
/// let (store, _) = DurableStore::open(dir.path(), DurableOptions::default())?;
/// store.put(b"k", b"v")?; // durable now
/// store.close()?;
///
/// let (store, recovered) = DurableStore::open(dir.path(), DurableOptions::default())?;
/// assert_eq!(recovered.entries_replayed, 1);
/// assert_eq!(store.get(b"k").unwrap(), "v");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DurableStore {
    open: Arc<Open>,
}

/// Ends with the last clone.
struct Open {
    shared: Arc<Shared>,
    background: Mutex<Option<JoinHandle<()>>>,
}

impl DurableStore {
    /// Opens the store in `dir`, which is created if it is absent, and recovers what a crash has left. The same call on
    /// the first opening and on every later one.
    ///
    /// # Errors
    ///
    /// Another process has the directory open; it holds a newer format or something else than a store; acknowledged writes
    /// are lost; an option is out of range; or the disk fails.
    pub fn open(dir: &Path, options: Options) -> Result<(DurableStore, Recovered), DurableError> {
        DurableStore::open_with(Arc::new(RealFs), dir, options)
    }

    /// Like [`DurableStore::open`], on another file system.
    ///
    /// # Errors
    ///
    /// As for [`DurableStore::open`].
    pub fn open_with(fs: Arc<dyn Fs>, dir: &Path, options: Options) -> Result<(DurableStore, Recovered), DurableError> {
        DurableStore::open_at(fs, dir, options, Box::new(wall_clock_ms))
    }

    fn open_at(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: Options,
        clock: Clock,
    ) -> Result<(DurableStore, Recovered), DurableError> {
        let opened = recovery::open(fs, dir, &options)?;
        let recovered = opened.recovered.clone();
        let shared = Shared::new(opened, options.checkpoint_log_bytes, options.in_background, clock);
        let background = if options.in_background { Some(background::start(&shared)?) } else { None };
        Ok((DurableStore { open: Arc::new(Open { shared, background: Mutex::new(background) }) }, recovered))
    }

    /// Applies an op, and returns when it is durable and can be read. Concurrent calls share their syncs.
    ///
    /// # Errors
    ///
    /// As [`DurableError`] says of each.
    pub fn apply(&self, op: &Op<'_>) -> Result<Outcome, DurableError> {
        let mut outcomes = self.submit_ops(vec![op.encode()?])?;
        Ok(outcomes.pop().expect("an outcome for each op"))
    }

    /// Applies ops one after the other and returns when they are durable, after one wait for the disk. A crash leaves all
    /// of them or none, and so do readers see them; but one that cannot be done does not undo the others, as it may in an
    /// [`Op::Transaction`]. Of no ops there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// As for [`DurableStore::apply`]; or they are above [`APPLY_MANY_BYTES_MAX`]. Then none is applied.
    pub fn apply_many(&self, ops: &[Op<'_>]) -> Result<Vec<Outcome>, DurableError> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        self.submit_ops(ops.iter().map(Op::encode).collect::<Result<_, _>>()?)
    }

    /// Sets a key, whatever it had, without a deadline.
    ///
    /// # Errors
    ///
    /// As for [`DurableStore::apply`]; or the store has reached its memory limit.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), DurableError> {
        let (condition, deadline) = (Condition::Always, Deadline::None);
        match self.apply(&Op::Put { key, value, condition, deadline, want_previous: false })? {
            Outcome::OutOfMemory => Err(DurableError::OutOfMemory),
            _ => Ok(()),
        }
    }

    /// Removes a key, and tells whether it was present.
    ///
    /// # Errors
    ///
    /// As for [`DurableStore::apply`].
    pub fn delete(&self, key: &[u8]) -> Result<bool, DurableError> {
        Ok(self.apply(&Op::Delete { keys: vec![key] })? != Outcome::Count(0))
    }

    /// The value of a key, if it is present.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        read(&self.open.shared.live).store.get(key).map(|pair| pair.value_bytes())
    }

    /// The state as it is now, in O(1), to read as long as it is held.
    pub fn view(&self) -> ReadView {
        read(&self.open.shared.live).store.view()
    }

    /// Has pairs removed whose deadline the machine's clock has passed. Writes do that as they come, and the background
    /// thread when none come: this is for whoever has neither.
    ///
    /// # Errors
    ///
    /// As for [`DurableStore::apply`].
    pub fn remove_expired(&self) -> Result<(), DurableError> {
        self.open.shared.remove_expired()
    }

    /// Writes a checkpoint now, on this thread, while writes go on, and tells its last entry. What was answered before is
    /// in it.
    ///
    /// # Errors
    ///
    /// It could not be written, and the ones before it stand; or the store takes no writes any more.
    pub fn checkpoint(&self) -> Result<Index, DurableError> {
        self.open.shared.checkpoint()
    }

    /// How the store is getting on.
    pub fn status(&self) -> Status {
        let shared = &self.open.shared;
        let progress = shared.progress();
        Status {
            last: read(&shared.live).last,
            checkpoint: progress.newest,
            checkpoint_failure: progress.failure,
            refuses_writes: shared.commit.standing().check().err(),
        }
    }

    /// Waits for the writes and the checkpoint under way, and closes the store: the next opening has no end of the log to
    /// write again. Clones that are left can be read, and take no writes. Dropping the last clone does the same, and tells
    /// of no error.
    ///
    /// # Errors
    ///
    /// A write has failed, now or before. Nothing that was answered is lost.
    pub fn close(self) -> Result<(), DurableError> {
        self.open.end()
    }

    fn submit_ops(&self, ops: Vec<Vec<u8>>) -> Result<Vec<Outcome>, DurableError> {
        let change = Change::Ops(ops);
        let (bytes, bytes_max) = (change.bytes(), APPLY_MANY_BYTES_MAX);
        if bytes > bytes_max {
            return Err(DurableError::TooLarge { bytes, bytes_max });
        }
        self.open.shared.submit(change)
    }
}

impl Open {
    fn end(&self) -> Result<(), DurableError> {
        self.shared.duty.end();
        if let Some(thread) = lock(&self.background).take() {
            // A panic of it has been reported by the panic itself, and nothing depends on what it did.
            let _ = thread.join();
        }
        self.shared.close()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Whoever wants to know closes it.
        let _ = self.end();
    }
}

impl fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableStore").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A clock before 1970 is taken for 1970.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync + 'static>() {}
    shared_between_threads::<DurableStore>();
};

#[cfg(test)]
mod tests;
