//! What the benches of the log share.

use bytes::BytesMut;
use kv_wal::record::HEADER_BYTES;
use kv_wal::{Entry, EntryId, Index, Kind, Log, Options, Term};
use tempfile::TempDir;

pub(crate) const TERM: Term = Term::new(1);
pub(crate) const KIND: Kind = Kind(1);

/// What is old is dropped after so many bytes of batches.
const KEPT_BYTES: u64 = 256 << 20;

/// What is appended at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) entries: u64,
    pub(crate) payload_bytes: usize,
}

/// Appends to a log in a directory of its own, and allocates nothing to do so.
pub(crate) struct Appender {
    pub(crate) log: Log,
    payload: Vec<u8>,
    entries_each: u64,
    buffer: BytesMut,
    entries: Vec<Entry>,
    /// Bytes of batches written when what was old was dropped.
    dropped_at: u64,
    dir: TempDir,
}

impl Appender {
    pub(crate) fn open(shape: Shape, options: Options) -> Appender {
        let dir = scratch();
        let (log, _) = Log::open(dir.path(), options).expect("log opens");
        Appender {
            log,
            payload: vec![7; shape.payload_bytes],
            entries_each: shape.entries,
            buffer: BytesMut::new(),
            entries: Vec::new(),
            dropped_at: 0,
            dir,
        }
    }

    pub(crate) fn append(&mut self) {
        let next = self.log.last().index.next();
        let ids = (0..self.entries_each).map(|at| EntryId::new(TERM, next.plus(at)));
        self.buffer.reserve(self.entries_each as usize * (HEADER_BYTES + self.payload.len()));
        self.entries.extend(ids.map(|id| Entry::encode(&mut self.buffer, id, 0, KIND, &self.payload)));
        self.log.append(&self.entries, None).expect("appended");
        // The last of them gives the buffer back.
        self.entries.clear();
    }

    /// Drops what is old along with it, now and then.
    pub(crate) fn sync(&mut self) {
        let written = self.log.stats().bytes_written;
        if written - self.dropped_at >= KEPT_BYTES {
            self.dropped_at = written;
            self.log.truncate_prefix(self.log.last()).expect("staged");
        }
        self.log.sync().expect("synced");
    }
}

/// Writes a log of so many appends, and closes it.
pub(crate) fn fill(shape: Shape, appends: u64) -> TempDir {
    let mut appender = Appender::open(shape, options());
    for _ in 0..appends {
        appender.append();
        appender.log.sync().expect("synced");
    }
    appender.log.close().expect("closed");
    appender.dir
}

/// Bytes that the log writes for one append, as it counts them itself.
pub(crate) fn batch_bytes(shape: Shape) -> u64 {
    let mut appender = Appender::open(shape, Options { segment_bytes: 1 << 20, ..options() });
    appender.append();
    appender.sync();
    appender.log.stats().bytes_written
}

/// The index range of everything in a log of so many entries.
pub(crate) fn all(entries: u64) -> std::ops::Range<Index> {
    Index::new(1)..Index::new(entries + 1)
}

pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory")
}

pub(crate) fn options() -> Options {
    Options { segment_bytes: full_or_brief(64 << 20, 4 << 20), ..Options::default() }
}

/// The environment variable `KV_BENCH_BRIEF` asks for a run that only shows that the benches work.
pub(crate) fn full_or_brief<T>(full: T, brief: T) -> T {
    if std::env::var_os("KV_BENCH_BRIEF").is_some() { brief } else { full }
}
