//! What can go wrong, and who must act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::record::{DecodeError, Index, Term};

/// Names one log for ever: drawn at random when its directory is first opened, and stored in every segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 16]);

/// A range of entries that were written, were perhaps acknowledged, and cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First index lost.
    pub first: Index,
    /// Last index lost. `None` if nothing after the damage tells where it ends: then the lost batch may also have
    /// overridden entries before `first`.
    pub last: Option<Index>,
}

/// Why the log did not do what was asked. Cheap to clone, since one failed sync answers many waiters.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// The disk: an operation failed. If it was a write or a sync, the log is poisoned.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk: no room for another segment. Nothing was accepted and the log goes on; free space and try again.
    #[error("no room for another segment beside {path}: free space and try again", path = .path.display())]
    DiskFull {
        /// The segment that could not be made.
        path: PathBuf,
    },
    /// The operator: another process (or another `Log` of this one) has the directory open.
    #[error("{path} is locked: another process uses this log; stop it, or choose another directory", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The operator: the log was written by a newer release.
    #[error(
        "{path} has format version {found}, this release reads up to {supported}: use a newer release",
        path = .path.display()
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this release knows.
        supported: u32,
    },
    /// The operator: a segment of another log lies in the directory.
    #[error("{path} belongs to log {found}, not to {expected}: move it away", path = .path.display())]
    ForeignSegment {
        /// The segment.
        path: PathBuf,
        /// The log it belongs to.
        found: LogId,
        /// The log that was opened.
        expected: LogId,
    },
    /// The operator: there are segments, and none has a header that can be read, so nobody knows which log they are of.
    #[error(
        "no segment in {dir} has a readable header: restore one, name the log (`Options::expect`), or move the files away",
        dir = .dir.display()
    )]
    Nameless {
        /// The directory.
        dir: PathBuf,
    },
    /// The caller: an option is out of its range.
    #[error("option {option} is {value}, but must be {allowed}")]
    Options {
        /// Name of the option.
        option: &'static str,
        /// The value given.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A repair: entries that may have been acknowledged are unreadable. The log takes no entries until they are repaired
    /// or truncated.
    #[error("log is damaged: {damage}")]
    Damaged {
        /// The first damage.
        damage: Damage,
    },
    /// The caller: a repair of an entry that is not lost.
    #[error("entry {index} is not lost: only lost entries are repaired")]
    NotLost {
        /// Which entry.
        index: Index,
    },
    /// A repair: an entry was sound when the log was opened, and is not any more.
    #[error("entry {index} is unreadable")]
    Unreadable {
        /// Which entry.
        index: Index,
        /// What is wrong with its bytes.
        #[source]
        source: DecodeError,
    },
    /// The caller: the entry was removed by a prefix truncation or a reset.
    #[error("entry {index} was truncated: the log starts after {base}")]
    Truncated {
        /// Which entry.
        index: Index,
        /// Index before the first entry that is left.
        base: Index,
    },
    /// The caller: the index is outside the log.
    #[error("index {index} is outside the log, which holds the entries after {base} up to {last}")]
    OutOfRange {
        /// Which index.
        index: Index,
        /// Index before the first entry.
        base: Index,
        /// The last entry.
        last: Index,
    },
    /// The caller: an entry is named by another term than it has.
    #[error("entry {index} has term {found}, not {given}")]
    WrongTerm {
        /// Which entry.
        index: Index,
        /// Its term in the log.
        found: Term,
        /// The term given.
        given: Term,
    },
    /// The caller: appended entries are not consecutive, or do not follow the log.
    #[error("entry {found} where {expected} is due")]
    NotConsecutive {
        /// The index that would have fitted.
        expected: Index,
        /// The index given.
        found: Index,
    },
    /// The caller: the state blob or one append is above its limit.
    #[error("{what} of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
        /// The most that is taken.
        bytes_max: usize,
    },
    /// The disk: a write or a sync failed earlier. What it covered may or may not be on disk, and trying again would lie
    /// (the kernel drops dirty pages after a failed sync). Close the log and open it again.
    #[error("log is poisoned by an earlier failed write or sync: close it and open it again")]
    Poisoned,
    /// The caller: too much waits for the writer already. Wait for a ticket, then try again.
    #[error("{queued_bytes} bytes wait for the disk already")]
    Busy {
        /// Bytes in the queue.
        queued_bytes: usize,
    },
    /// The log was closed before this was written.
    #[error("log is closed")]
    Closed,
}

impl Error {
    /// For `map_err`: names the file and the operation.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// For `map_err` of making a segment: tells a full disk from a broken one. Elsewhere a full disk is an error like any
    /// other: where there are zeros already, writing needs no room.
    pub(crate) fn preparing(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path: path.to_owned() },
            _ => Error::io("prepare", path)(source),
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) if last == self.first => write!(f, "entry {} is lost", self.first),
            Some(last) => write!(f, "entries {} to {last} are lost", self.first),
            None => write!(f, "what was written after entry {} is lost, its end unknown", self.first.prev()),
        }
    }
}
