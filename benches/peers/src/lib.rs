//! Our log and the engines that others would use in its place, behind one trait, so that one loop measures all of them.
//!
//! What makes it fair:
//!
//! - An append counts when it is durable: each engine is told to sync, and has returned.
//! - Logs have segments of [`SEGMENT_BYTES`], prepared as well as the engine can prepare them, and drop what is old
//!   after as many bytes. Compression is off, and payloads do not compress.
//! - An engine is used as its documentation says, with whatever it offers for appenders that come at once.

pub mod cores;
pub mod fjall;
pub mod floor;
pub mod kv_wal;
pub mod maps;
pub mod nodes;
pub mod okaywal;
pub mod raft_engine;
pub mod redb;

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tempfile::TempDir;

/// Bytes of a segment of each log.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// What is old is dropped after so many bytes, counted by [`Odometer`].
pub const TRUNCATE_BYTES: u64 = 4 * SEGMENT_BYTES;
/// Most threads that append at once.
pub const APPENDERS_MAX: usize = 64;
/// Bytes of a page of the page cache.
pub const PAGE_BYTES: usize = 4096;
/// Payloads of a log to be recovered are written in batches of about this size.
const BATCH_BYTES: u64 = 1 << 20;

/// An engine that keeps what it is given.
pub trait Rival: Send + Sync {
    /// Returns when `payload` is durable. `appender` tells the threads that append at once apart: 0, 1 and so on, below
    /// [`APPENDERS_MAX`].
    fn append_synced(&self, appender: usize, payload: &Bytes);
}

/// An engine by its name.
#[derive(Clone, Copy)]
pub struct Engine {
    /// As it is called in a figure.
    pub name: &'static str,
    /// Begins in an empty directory.
    pub start: fn(&Path, Shape) -> Box<dyn Rival>,
}

/// What will be appended.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Threads that append at once.
    pub appenders: usize,
}

/// A log by its name, for recovery.
#[derive(Clone, Copy)]
pub struct Recovered {
    /// As it is called in a figure.
    pub name: &'static str,
    /// Writes a log into an empty directory, and closes it.
    pub fill: fn(&Path, Content),
    /// Opens the log that was filled with this.
    pub open: fn(&Path, Content, Depth) -> Opened,
}

/// What a log to be recovered holds.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Number of payloads.
    pub payloads: u64,
}

/// How far a log is read at recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Until it takes appends.
    Open,
    /// Until every payload has been given to the caller, as a state machine wants it.
    ReadAll,
}

/// A log that has been opened. Closed when dropped.
pub struct Opened {
    /// Bytes of the payloads found: counted by index at [`Depth::Open`] where the log does not give out the payloads.
    pub payload_bytes: u64,
    _log: Box<dyn Any>,
}

/// Tells when it is time to drop what is old.
#[derive(Debug, Default)]
pub struct Odometer {
    bytes: AtomicU64,
}

/// Engines that one thread appends to. Ours without its thread.
pub const ALONE: [Engine; 6] = [
    Engine { name: "kv-wal", start: kv_wal::start_log },
    RAFT_ENGINE,
    OKAYWAL,
    REDB,
    FJALL,
    Engine { name: "floor_pwrite_fdatasync", start: floor::start },
];
/// Engines that many threads append to. Ours with its thread, which gathers.
pub const TOGETHER: [Engine; 5] =
    [Engine { name: "kv-wal", start: kv_wal::start_wal }, RAFT_ENGINE, OKAYWAL, REDB, FJALL];
/// Logs that are opened again.
pub const LOGS: [Recovered; 3] = [
    Recovered { name: "kv-wal", fill: kv_wal::fill, open: kv_wal::open },
    Recovered { name: "raft-engine", fill: raft_engine::fill, open: raft_engine::open },
    Recovered { name: "okaywal", fill: okaywal::fill, open: okaywal::open },
];

const RAFT_ENGINE: Engine = Engine { name: "raft-engine", start: raft_engine::start };
const OKAYWAL: Engine = Engine { name: "okaywal", start: okaywal::start };
const REDB: Engine = Engine { name: "redb", start: redb::start };
const FJALL: Engine = Engine { name: "fjall", start: fjall::start };

impl Engine {
    /// Begins in an empty directory, when whatever wrote before is done.
    pub fn start_settled(&self, dir: &Path, shape: Shape) -> Box<dyn Rival> {
        let rival = (self.start)(dir, shape);
        settle(dir);
        rival
    }
}

impl Content {
    /// So many payloads of a size as make up `bytes`.
    pub fn of(payload_bytes: usize, bytes: u64) -> Content {
        Content { payload_bytes, payloads: bytes.div_ceil(payload_bytes as u64) }
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> u64 {
        self.payload_bytes as u64 * self.payloads
    }

    /// The numbers of the payloads, from 1, cut into batches.
    fn batches(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let (end, step) = (self.payloads + 1, self.batch_payloads());
        (1..end).step_by(step as usize).map(move |first| first..end.min(first + step))
    }

    fn batch_payloads(&self) -> u64 {
        (BATCH_BYTES / self.payload_bytes as u64).max(1)
    }
}

impl Odometer {
    /// Counts one append. True for one of every so many that make up [`TRUNCATE_BYTES`]. An append counts as whole pages:
    /// no engine writes less at a sync.
    fn is_full(&self, payload_bytes: usize) -> bool {
        let bytes = payload_bytes.next_multiple_of(PAGE_BYTES) as u64;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        before / TRUNCATE_BYTES != (before + bytes) / TRUNCATE_BYTES
    }
}

/// Bytes that do not compress, the same each time.
pub fn payload(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

/// A directory of its own, removed when dropped: in that which the environment variable `PEERS_DIR` names, or else in
/// `default`.
pub fn scratch(default: &str) -> TempDir {
    let parent = std::env::var_os("PEERS_DIR").map_or_else(|| PathBuf::from(default), PathBuf::from);
    tempfile::tempdir_in(parent).expect("a directory to work in")
}

/// Waits until the file system of `dir` has nothing left to write: what is measured next does not pay for it.
pub fn settle(dir: &Path) {
    let dir = File::open(dir).expect("the directory opens");
    rustix::fs::syncfs(dir).expect("file system synced");
}

/// Writes `byte` to the first [`SEGMENT_BYTES`] of a file, so many bytes a call.
///
/// # Errors
///
/// As the system says.
pub fn fill(file: &File, byte: u8, call_bytes: usize) -> io::Result<()> {
    let bytes = vec![byte; call_bytes];
    (0..SEGMENT_BYTES).step_by(call_bytes).try_for_each(|offset| file.write_all_at(&bytes, offset))
}
