//! What the log takes of the heap. A program of its own, since the counter replaces the allocator. It counts the
//! allocations of the calling thread, hence no thread that prepares segments.

use std::hint::black_box;
use std::ops::Range;

use allocation_counter::measure;
use bytes::BytesMut;
use kv_wal::record::HEADER_BYTES;
use kv_wal::{Entry, EntryId, Index, Kind, Log, Options, Term};
use tempfile::TempDir;

const PAYLOAD: [u8; 16] = [7; 16];

/// When a log is running, an append and its sync allocate nothing but what the index needs to grow: its offsets double
/// when they are full, so a thousand appends after a thousand others cost one or two allocations.
#[test]
fn an_append_with_its_sync_allocates_nothing() {
    let (mut log, _dir) = open(Options { segment_bytes: 16 << 20, ..options() });
    append_each(&mut log, &encode(1..1001));
    let entries = encode(1001..2001);
    let taken = measure(|| append_each(&mut log, &entries));
    assert_eq!(log.stats().rotations, 0, "a rotation makes a segment, which allocates");
    assert!(taken.count_total <= 2, "{taken:?}");
}

#[test]
fn a_get_allocates_nothing() {
    let (mut log, _dir) = open(options());
    append_in_batches(&mut log, 1..1001);
    let reader = log.reader();
    let taken = measure(|| {
        for index in 1..1001 {
            black_box(reader.get(Index::new(index)).expect("sound"));
        }
    });
    assert_eq!(taken.count_total, 0, "{taken:?}");
}

/// Four bytes a record, at most as many again that a doubling has left free, and what does not grow with the records.
#[test]
fn the_index_holds_at_most_16_bytes_a_record() {
    // So few that opening needs no thread: the counter would not see that.
    const RECORDS: u64 = 100_000;
    let options = || Options { segment_bytes: 1 << 20, ..options() };
    let (mut log, dir) = open(options());
    let appended = measure(|| append_in_batches(&mut log, 1..RECORDS + 1));
    let stats = log.stats();
    assert!(stats.rotations > 2, "more than one span");
    assert_eq!(stats.mapped_bytes, stats.segments << 20, "counted apart");
    let (counted, taken) = (stats.index_bytes as i64, appended.bytes_current);
    assert!(counted <= taken && taken < counted * 2, "{counted} of {taken} bytes are the index");
    log.close().expect("closed");
    let mut reopened = None;
    let opened = measure(|| reopened = Some(Log::open(dir.path(), options()).expect("log opens")));
    for (name, taken) in [("appended", appended), ("opened", opened)] {
        let bytes = taken.bytes_current / RECORDS as i64;
        assert!((4..=16).contains(&bytes), "{name}: {bytes} bytes a record, {taken:?}");
    }
}

fn options() -> Options {
    Options { segment_bytes: 4 << 20, prepare_ahead: false, ..Options::default() }
}

fn open(options: Options) -> (Log, TempDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (log, _) = Log::open(dir.path(), options).expect("log opens");
    (log, dir)
}

fn encode(indexes: Range<u64>) -> Vec<Entry> {
    let bytes = indexes.clone().count() * (HEADER_BYTES + PAYLOAD.len());
    let mut buffer = BytesMut::with_capacity(bytes);
    let id = |index| EntryId::new(Term::new(1), Index::new(index));
    indexes.map(|index| Entry::encode(&mut buffer, id(index), 0, Kind(1), &PAYLOAD)).collect()
}

fn append_each(log: &mut Log, entries: &[Entry]) {
    for entry in entries.chunks(1) {
        log.append(entry, None).expect("appended");
        log.sync().expect("synced");
    }
}

fn append_in_batches(log: &mut Log, indexes: Range<u64>) {
    for first in indexes.clone().step_by(1000) {
        log.append(&encode(first..indexes.end.min(first + 1000)), None).expect("appended");
        log.sync().expect("synced");
    }
}
