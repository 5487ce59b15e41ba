//! What can go wrong with a durable store, and who must act.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kv_wal::{Damage, Index};
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::op::OpError;

/// Why a durable store did not do what was asked. Cheap to clone, since one failed sync answers many callers.
///
/// Of a write that was answered with [`Failed`](DurableError::Failed) nothing is known until the store is opened again:
/// it is there then, or not. Of one that was answered with any other error nothing has been done, and nothing will be.
#[derive(Clone, Debug, Error)]
pub enum DurableError {
    /// The caller: the op is above a limit, or a transaction holds what it may not.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The caller: the ops of one call are too many bytes.
    #[error("ops of {bytes} bytes in one call are above the limit of {bytes_max}")]
    TooLarge {
        /// Their bytes, encoded.
        bytes: usize,
        /// The most that is taken.
        bytes_max: usize,
    },
    /// The caller: the state is at its memory limit. Delete something, or raise the limit.
    #[error("the store has reached its memory limit: delete something, or raise the limit")]
    OutOfMemory,
    /// The disk: no room. Nothing was written and the store goes on; free space and try again.
    #[error("no room beside {path}: free space and try again", path = .path.display())]
    DiskFull {
        /// The file that could not be made.
        path: PathBuf,
    },
    /// The disk: a write or a sync failed, or the writing thread panicked. Whether the write is there is known when the
    /// store has been opened again, and until then it takes no other.
    #[error("the write may be lost, open the store again to see: {0}")]
    Failed(kv_wal::Error),
    /// The disk: an earlier write failed. Reads go on.
    #[error("the store takes no writes since one failed: drop it and open it again")]
    Poisoned,
    /// The caller: the store was closed.
    #[error("the store is closed")]
    Closed,
    /// As the log says. Nothing was written.
    #[error(transparent)]
    Log(kv_wal::Error),
    /// The disk: a checkpoint could not be written or found.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Checkpoint {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The operator: a checkpoint is of another format. It is not passed over, since a newer release may have removed
    /// the log before it.
    #[error("{path}: {source}: use the release that wrote it", path = .path.display())]
    CheckpointFormat {
        /// The checkpoint.
        path: PathBuf,
        /// Its version, and ours.
        source: Arc<CheckpointError>,
    },
    /// The operator: the file belongs to another store, or to no store of this kind.
    #[error("{path} does not belong to this store: move it away", path = .path.display())]
    Foreign {
        /// The checkpoint, or the directory if it is its log.
        path: PathBuf,
    },
    /// The operator: the directory was written by a newer release.
    #[error("{path} has format version {found}, this release reads version {supported}: use a newer release",
        path = .path.display())]
    Version {
        /// The directory, or a checkpoint in it.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The version that this release knows.
        supported: u8,
    },
    /// The operator: an entry of the log is of a kind or a format that this release does not know.
    #[error("entry {index} is none that this release knows: use the release that wrote it")]
    UnknownEntry {
        /// Which entry.
        index: Index,
        /// What is unknown about it, if it is an op.
        #[source]
        source: Option<OpError>,
    },
    /// The operator: the log has lost writes that were acknowledged.
    #[error(
        "the log in {dir} has lost acknowledged writes ({}): restore the directory from a backup, or give up what is lost \
         and all that came after it (`DurableOptions::give_up_lost`)",
        list(.ranges),
        dir = .dir.display()
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// Which entries.
        ranges: Vec<Damage>,
    },
    /// The operator: the log ends before the checkpoint that was written from it. Files of it are missing, and perhaps
    /// writes that came after the checkpoint.
    #[error(
        "the log in {dir} ends with entry {log_last}, before checkpoint {checkpoint}: restore its files, or give up what \
         came after the checkpoint (`DurableOptions::give_up_lost`)",
        dir = .dir.display()
    )]
    LogEndsEarly {
        /// The directory.
        dir: PathBuf,
        /// The last entry of the log.
        log_last: Index,
        /// The last entry of the checkpoint.
        checkpoint: Index,
    },
    /// The operator: the log begins after the newest checkpoint that can be read.
    #[error(
        "the log in {dir} begins after entry {log_base}, but {}: restore a later checkpoint from a backup{}",
        checkpoint.map_or("there is no checkpoint".to_owned(), |index| format!("the newest sound checkpoint ends with entry {index}")),
        refused(.damaged),
        dir = .dir.display()
    )]
    Gap {
        /// The directory.
        dir: PathBuf,
        /// The entry before the first of the log.
        log_base: Index,
        /// The last entry of the newest sound checkpoint.
        checkpoint: Option<Index>,
        /// The checkpoints that are damaged.
        damaged: Vec<PathBuf>,
    },
    /// Nobody: writing a checkpoint panicked, which is a defect of this crate. It is tried again.
    #[error("writing a checkpoint panicked")]
    Panicked,
    /// The system: no thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(Arc<io::Error>),
}

impl DurableError {
    /// For `map_err`: names the file and the operation, and tells a full disk from a broken one.
    pub(super) fn checkpoint(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> DurableError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DurableError::DiskFull { path: path.to_owned() }
            }
            _ => DurableError::Checkpoint { action, path: path.to_owned(), source: Arc::new(source) },
        }
    }
}

/// Of opening, and of what was refused before it was written.
impl From<kv_wal::Error> for DurableError {
    fn from(error: kv_wal::Error) -> Self {
        match error {
            kv_wal::Error::DiskFull { path } => DurableError::DiskFull { path },
            kv_wal::Error::Poisoned => DurableError::Poisoned,
            kv_wal::Error::Closed => DurableError::Closed,
            error => DurableError::Log(error),
        }
    }
}

fn list(ranges: &[Damage]) -> String {
    ranges.iter().map(Damage::to_string).collect::<Vec<_>>().join("; ")
}

fn refused(damaged: &[PathBuf]) -> String {
    let names: Vec<_> = damaged.iter().map(|path| path.display().to_string()).collect();
    if names.is_empty() { String::new() } else { format!(" (damaged: {})", names.join(", ")) }
}
