//! raft-engine: many Raft groups in one log, written by whichever appender comes first, for all that wait.
//!
//! Each appender has a group of its own, since the entries of a group are written in order, by one. Segments are
//! prepared with zeros and recycled. That holds from the second segment on, so the first is used up before anything is
//! measured.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use raft_proto::eraftpb;

use crate::{Content, Depth, Odometer, Opened, Rival, SEGMENT_BYTES, Shape, TRUNCATE_BYTES, payload};

struct RaftEngine {
    engine: Engine,
    groups: Vec<Mutex<Group>>,
    odometer: Odometer,
}

struct Group {
    last: u64,
    batch: LogBatch,
}

/// How raft-engine sees an entry.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

/// A log with a group for each appender.
pub fn start(dir: &Path, shape: Shape) -> Box<dyn Rival> {
    let config = Config { prefill_for_recycle: true, ..config(dir, TRUNCATE_BYTES) };
    let engine = Engine::open(config).expect("engine opens");
    let group = || Mutex::new(Group { last: 0, batch: LogBatch::default() });
    let groups = (0..shape.appenders).map(|_| group()).collect();
    let rival = RaftEngine { engine, groups, odometer: Odometer::default() };
    rival.use_up_first_segment();
    Box::new(rival)
}

/// Writes a log to be recovered: one group.
pub fn fill(dir: &Path, content: Content) {
    let engine = Engine::open(config(dir, keep_all(content))).expect("engine opens");
    let payload = payload(content.payload_bytes);
    let mut batch = LogBatch::default();
    for indexes in content.batches() {
        let entries: Vec<_> = indexes.map(|index| entry(index, &payload)).collect();
        batch.add_entries::<Entries>(group_of(0), &entries).expect("encoded");
        engine.write(&mut batch, false).expect("written");
    }
    engine.sync().expect("synced");
}

/// Opens it. That reads and verifies the index of each batch and skips the payloads, whose checksums are verified when
/// they are read.
pub fn open(dir: &Path, content: Content, depth: Depth) -> Opened {
    let engine = Engine::open(config(dir, keep_all(content))).expect("engine opens");
    let last = engine.last_index(group_of(0)).expect("a group");
    let payload_bytes = match depth {
        Depth::Open => last * content.payload_bytes as u64,
        Depth::ReadAll => content.batches().map(|indexes| read(&engine, indexes.start, indexes.end)).sum(),
    };
    Opened { payload_bytes, _log: Box::new(engine) }
}

fn read(engine: &Engine, first: u64, end: u64) -> u64 {
    let mut entries = Vec::new();
    engine.fetch_entries_to::<Entries>(group_of(0), first, end, None, &mut entries).expect("read");
    entries.iter().map(|entry| entry.data.len() as u64).sum()
}

impl RaftEngine {
    fn append(&self, appender: usize, payload: &Bytes, sync: bool) {
        let Group { last, batch } = &mut *self.groups[appender].lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        batch.add_entries::<Entries>(group_of(appender), &[entry(*last, payload)]).expect("encoded");
        self.engine.write(batch, sync).expect("written");
    }

    /// All groups, so that no segment is kept for the sake of one.
    fn truncate(&self) {
        for group in (0..self.groups.len()).map(group_of) {
            if let Some(last) = self.engine.last_index(group) {
                self.engine.compact_to(group, last);
            }
        }
        self.engine.purge_expired_files().expect("purged");
    }

    fn use_up_first_segment(&self) {
        let payload = payload(1 << 20);
        for _ in 0..=SEGMENT_BYTES / payload.len() as u64 {
            self.append(0, &payload, false);
        }
        self.truncate();
        self.engine.sync().expect("synced");
    }
}

impl Rival for RaftEngine {
    fn append_synced(&self, appender: usize, payload: &Bytes) {
        self.append(appender, payload, true);
        if self.odometer.is_full(payload.len()) {
            self.truncate();
        }
    }
}

fn config(dir: &Path, purge_bytes: u64) -> Config {
    Config {
        dir: dir.to_str().expect("a path that is text").to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(SEGMENT_BYTES),
        purge_threshold: ReadableSize(purge_bytes),
        ..Config::default()
    }
}

fn keep_all(content: Content) -> u64 {
    2 * content.bytes() + TRUNCATE_BYTES
}

/// 0 is no group.
fn group_of(appender: usize) -> u64 {
    appender as u64 + 1
}

fn entry(index: u64, payload: &Bytes) -> eraftpb::Entry {
    eraftpb::Entry { term: 1, index, data: payload.clone(), ..eraftpb::Entry::default() }
}
