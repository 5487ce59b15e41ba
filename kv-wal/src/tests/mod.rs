//! Tests of the whole log, on real files, on files with damage, and on a disk that loses power.

mod damage;
mod faults;
mod golden;
mod hostile;
mod limits;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod power;
mod repair;
mod scan;
mod scrub;
mod torn;
mod wal;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::record::{Entry, EntryId, Index, Kind, Term};
use crate::{Error, Log, Options, Recovery};

pub(crate) const SMALL: Options =
    Options { segment_bytes: 64 << 10, batch_bytes_max: 16 << 10, expect: None, prepare_ahead: false };

/// So many random cases; `KV_TEST_FACTOR` times as many for a long run.
fn cases(count: u32) -> proptest::test_runner::Config {
    let factor = std::env::var("KV_TEST_FACTOR").ok().and_then(|factor| factor.parse::<u32>().ok()).unwrap_or(1);
    proptest::test_runner::Config::with_cases(count * factor)
}

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term::new(term), Index::new(index))
}

/// An entry whose payload tells where it belongs.
pub(crate) fn entry(term: u64, index: u64, payload_bytes: usize) -> Entry {
    let mut payload = format!("{index}@{term} ").into_bytes();
    payload.resize(payload_bytes.max(payload.len()), b'.');
    Entry::encode(&mut BytesMut::new(), id(term, index), index.wrapping_mul(10), Kind(1), &payload)
}

pub(crate) fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, 20)).collect()
}

pub(crate) fn open(dir: &Path) -> (Log, Recovery) {
    Log::open(dir, SMALL).unwrap()
}

/// What anybody can see of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) base: EntryId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) state: Option<Bytes>,
}

impl View {
    pub(crate) fn empty() -> View {
        View { base: EntryId::ZERO, entries: Vec::new(), state: None }
    }

    pub(crate) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, Entry::id)
    }

    /// Of a log with nothing staged; checks on the way that all ways to ask give the same answers.
    pub(crate) fn of(log: &Log) -> View {
        let reader = log.reader();
        let (base, last) = (log.base(), log.last());
        assert_eq!((reader.base(), reader.last()), (base, last));
        let all = base.index.next()..last.index.next();
        let entries = if all.is_empty() { Vec::new() } else { reader.read(all, usize::MAX).unwrap() };
        assert_eq!(entries.len() as u64, last.index.since(base.index));
        let mut runs: Vec<EntryId> = Vec::new();
        for entry in &entries {
            assert_eq!(reader.term(entry.index()), Some(entry.term()));
            if runs.last().is_none_or(|run| run.term != entry.term()) {
                runs.push(entry.id());
            }
        }
        assert_eq!(reader.term_runs(), runs);
        assert_eq!(reader.term(base.index), Some(base.term));
        assert_eq!(reader.term(last.index.next()), None);
        // Copies: what is done to the files is not to be seen here.
        let copy = |entry: &Entry| Entry::split_from(&mut Bytes::copy_from_slice(entry.frame())).unwrap();
        View { base, entries: entries.iter().map(copy).collect(), state: log.state() }
    }
}

pub(crate) fn copy_dir(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for path in segments(from) {
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// The segment files, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    paths
}

#[test]
fn an_empty_directory_becomes_an_empty_log_with_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a/b");
    let (log, recovery) = open(&nested);
    assert_eq!(recovery.report, crate::Report::Clean);
    assert_eq!(View::of(&log), View::empty());
    let name = log.id();
    drop(log);
    assert_eq!(open(&nested).0.id(), name);
}

#[test]
fn state_survives_the_purge_of_the_segment_it_was_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=1), Some(b"vote")).unwrap();
    for index in 2..=200 {
        log.append(&[entry(1, index, 3000)], None).unwrap();
        log.sync().unwrap();
    }
    let before = segments(dir.path()).len();
    log.truncate_prefix(id(1, 150)).unwrap();
    assert_eq!(log.base(), id(1, 150), "logically at once");
    assert_eq!(segments(dir.path()).len(), before, "unlinked only when durable");
    log.sync().unwrap();
    assert!(segments(dir.path()).len() <= before - 8, "two thirds of the segments");
    let view = View::of(&log);
    drop(log);
    assert_eq!(View::of(&open(dir.path()).0), view);
    assert_eq!(view.state.as_deref(), Some(&b"vote"[..]));
}

#[test]
fn what_was_read_outlives_purge_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=50), None).unwrap();
    log.sync().unwrap();
    let read = log.reader().read(Index::new(1)..Index::new(51), usize::MAX).unwrap();
    log.reset(id(5, 900)).unwrap();
    log.append(&entries(5, 901..=902), None).unwrap();
    log.sync().unwrap();
    assert_eq!(View::of(&log).entries, entries(5, 901..=902));
    log.close().unwrap();
    drop(dir);
    assert_eq!(read, entries(1, 1..=50));
}

#[test]
fn a_read_stops_at_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for index in 1..=20 {
        log.append(&[entry(1, index, 67)], None).unwrap();
        log.sync().unwrap();
    }
    log.truncate_prefix(id(1, 5)).unwrap();
    log.sync().unwrap();
    let reader = log.reader();
    let read = |from, to, bytes_max| reader.read(Index::new(from)..Index::new(to), bytes_max);
    assert_eq!(read(6, 21, 0).unwrap().len(), 1, "at least one");
    assert_eq!(read(6, 21, 399).unwrap().len(), 3);
    assert_eq!(read(6, 21, 400).unwrap().len(), 4);
    assert_eq!(read(6, 8, 4000).unwrap().len(), 2);
    assert_eq!(read(15, 900, 4000).unwrap().len(), 6, "ends with the log");
    assert!(read(9, 9, 4000).unwrap().is_empty());
    assert!(matches!(read(5, 8, 4000), Err(Error::Truncated { .. })));
    assert!(matches!(read(21, 22, 4000), Err(Error::OutOfRange { .. })));
}

#[test]
fn readers_see_only_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=3), None).unwrap();
    assert_eq!((log.last(), log.reader().last()), (id(1, 3), EntryId::ZERO));
    assert_eq!(log.sync().unwrap().last(), Index::new(3));
    assert_eq!(log.reader().last(), id(1, 3));
}

#[test]
fn what_is_written_and_not_synced_is_seen_by_nobody_and_can_be_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=3), None).unwrap();
    log.write().unwrap();
    log.append(&entries(1, 4..=6), None).unwrap();
    log.write().unwrap();
    assert_eq!((log.stats().batches_written, log.stats().syncs), (2, 0));
    assert_eq!((log.last(), log.reader().last()), (id(1, 6), EntryId::ZERO));
    log.truncate_suffix(Index::new(2)).unwrap();
    log.append(&entries(2, 3..=4), None).unwrap();
    assert_eq!(log.sync().unwrap().last(), Index::new(4));
    assert_eq!((log.stats().batches_written, log.stats().syncs), (3, 1), "cut and entries are one batch");
    let view = View::of(&log);
    assert_eq!((view.last(), view.entries.len()), (id(2, 4), 4));
    drop(log);
    assert_eq!(View::of(&open(dir.path()).0), view);
}

#[test]
fn one_entry_is_read_like_a_range_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=9), None).unwrap();
    log.truncate_prefix(id(1, 2)).unwrap();
    log.sync().unwrap();
    let reader = log.reader();
    let one = |index| reader.read(Index::new(index)..Index::new(index + 1), 0);
    for index in 0..12 {
        match (reader.get(Index::new(index)), one(index)) {
            (Ok(entry), Ok(range)) => assert_eq!(range, [entry]),
            (Err(one), Err(range)) => assert_eq!(one.to_string(), range.to_string()),
            (one, range) => panic!("{one:?} is not {range:?}"),
        }
    }
    assert_eq!(reader.get(Index::new(3)).unwrap(), entry(1, 3, 20));
}

#[test]
fn appends_that_do_not_fit_the_log_are_refused_and_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=9), None).unwrap();
    log.truncate_prefix(id(1, 4)).unwrap();
    let gap = [entry(1, 10, 0), entry(1, 12, 0)];
    assert!(matches!(log.append(&entries(1, 11..=11), None), Err(Error::NotConsecutive { .. })));
    assert!(matches!(log.append(&gap, None), Err(Error::NotConsecutive { .. })));
    assert!(matches!(log.append(&entries(1, 4..=4), None), Err(Error::Truncated { .. })));
    assert!(matches!(log.append(&[], Some(&[0; crate::STATE_BYTES_MAX + 1])), Err(Error::TooLarge { .. })));
    assert!(matches!(log.truncate_suffix(Index::new(3)), Err(Error::OutOfRange { .. })));
    assert!(matches!(log.truncate_prefix(id(1, 10)), Err(Error::OutOfRange { .. })));
    log.append(&[], Some(&[7; crate::STATE_BYTES_MAX])).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    assert_eq!((view.base, view.entries.len(), view.state.unwrap().len()), (id(1, 4), 5, crate::STATE_BYTES_MAX));
}

#[test]
fn an_append_larger_than_a_segment_gets_a_segment_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for ahead in [false, true] {
        let (mut log, _) = Log::open(dir.path(), Options { prepare_ahead: ahead, ..SMALL }).unwrap();
        let next = log.last().index.get() + 1;
        let large = [entry(1, next, 10), entry(1, next + 1, 3 << 20), entry(1, next + 2, 10)];
        log.append(&large, None).unwrap();
        log.sync().unwrap();
        let view = View::of(&log);
        drop(log);
        let (log, recovery) = open(dir.path());
        assert_eq!(recovery.entries_rewritten, 3, "nothing later marks it durable");
        assert_eq!(View::of(&log), view);
        log.close().unwrap();
    }
}

#[test]
fn opening_again_and_again_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=3), None).unwrap();
    log.sync().unwrap();
    drop(log);
    for _ in 0..3 {
        let (log, recovery) = open(dir.path());
        assert_eq!((recovery.entries_rewritten, recovery.entries_recovered), (3, 3), "nothing later marks them");
        drop(log);
        assert_eq!(segments(dir.path()).len(), 1);
    }
    open(dir.path()).0.close().unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.entries_rewritten, recovery.entries_recovered), (0, 3));
    drop(log);
    assert_eq!(segments(dir.path()).len(), 1);
}
