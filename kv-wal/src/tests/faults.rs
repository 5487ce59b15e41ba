//! Files of others, full disks, failed syncs, two openings at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::damage::batch;
use super::{SMALL, View, entries, entry, id, open, segments};
use crate::format::{PAGE_BYTES, VERSION};
use crate::record::Index;
use crate::testing::SimFs;
use crate::{Damage, Error, Log, LogId, Options, Report};

fn open_error(dir: &Path, options: Options) -> Error {
    Log::open(dir, options).expect_err("must be refused")
}

#[test]
fn a_directory_is_opened_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let error = open_error(dir.path(), SMALL);
    assert!(matches!(&error, Error::Locked { path } if path.starts_with(dir.path())), "{error}");
    assert!(error.to_string().contains("stop it"), "says what to do: {error}");
    drop(log);
    open(dir.path());
}

#[test]
fn another_logs_segment_is_refused_and_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = open(dir.path()).0.id();
    let found = open(other.path()).0.id();
    let stray = dir.path().join("00000000000000ff.wal");
    fs::copy(&segments(other.path())[0], &stray).unwrap();
    // Under another name it cannot be placed at all, so this one needs its header's own number.
    fs::rename(&stray, dir.path().join("0000000000000001.wal")).unwrap();
    let error = open_error(dir.path(), Options { expect: Some(expected), ..SMALL });
    assert!(matches!(error, Error::ForeignSegment { found: f, expected: e, .. } if (f, e) == (found, expected)));
    let error = open_error(other.path(), Options { expect: Some(LogId([1; 16])), ..SMALL });
    assert!(matches!(error, Error::ForeignSegment { .. }));
    open(other.path());
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    crate::format::set_version(&mut bytes, VERSION + 1);
    fs::write(&path, bytes).unwrap();
    let error = open_error(dir.path(), SMALL);
    assert!(matches!(error, Error::Version { found, supported: VERSION, .. } if found == VERSION + 1), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for segment_bytes in [0, 4096, (64 << 10) + 1, 2 << 30] {
        let error = open_error(dir.path(), Options { segment_bytes, ..SMALL });
        assert!(matches!(error, Error::Options { option: "segment_bytes", .. }));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_until_the_log_is_opened_again() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    log.append(&entries(1, 1..=3), None).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    fs.fail_sync_after(0);
    log.append(&entries(1, 4..=5), Some(b"vote")).unwrap();
    assert!(matches!(log.sync(), Err(Error::Io { action: "sync", .. })));
    assert!(matches!(log.sync(), Err(Error::Poisoned)));
    assert!(matches!(log.append(&entries(1, 4..=5), None), Err(Error::Poisoned)));
    assert!(matches!(log.truncate_suffix(Index::new(2)), Err(Error::Poisoned)));
    assert!(matches!(log.truncate_prefix(id(1, 2)), Err(Error::Poisoned)));
    assert!(matches!(log.reset(id(1, 2)), Err(Error::Poisoned)));
    assert_eq!(log.reader().last(), view.last(), "readers never saw it");
    drop(log);
    // The cache still shows what the disk never got: it is found, and counts only because it is written again.
    let (log, recovery) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    assert_eq!((recovery.entries_rewritten, log.last()), (2, id(1, 5)));
    let view = View::of(&log);
    let (dir, fs) = {
        let dir = tempfile::tempdir().unwrap();
        let fs = fs.after_power_loss(7, dir.path());
        (dir, fs)
    };
    let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    assert_eq!(View::of(&log), view, "{recovery:?}");
}

#[test]
fn a_full_disk_refuses_an_append_before_it_is_accepted_and_the_log_goes_on() {
    for prepare_ahead in [false, true] {
        let options = Options { prepare_ahead, ..SMALL };
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
        let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
        fs.set_full(true);
        let mut view = View::empty();
        let error = loop {
            let next = entry(1, view.last().index.get() + 1, 5000);
            match log.append(std::slice::from_ref(&next), None) {
                Ok(()) => view.entries.push(next),
                Err(error) => break error,
            }
            assert!(view.entries.len() < 100, "a full disk must be noticed");
        };
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        log.sync().unwrap();
        assert_eq!(View::of(&log), view, "all that was accepted is durable");
        assert!(!dir.path().join("prepare.tmp").exists(), "and no room is wasted");
        fs.set_full(false);
        let next = entry(1, view.last().index.get() + 1, 5000);
        log.append(std::slice::from_ref(&next), None).unwrap();
        log.sync().unwrap();
        view.entries.push(next);
        assert_eq!(View::of(&log), view);
    }
}

#[test]
fn a_full_disk_is_met_on_opening() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    fs.set_full(true);
    let error = Log::open_with(Arc::new(fs), dir.path(), SMALL).expect_err("no room for a segment");
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}

/// What makes room and what a vote needs go on where nothing can grow.
#[test]
fn a_full_disk_still_takes_state_and_is_truncated_and_goes_on() {
    for prepare_ahead in [false, true] {
        let options = Options { prepare_ahead, ..SMALL };
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
        let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
        fs.set_full(true);
        let mut index = 0;
        while log.append(&[entry(1, index + 1, 5000)], None).is_ok() {
            log.sync().unwrap();
            index += 1;
        }
        log.append(&[], Some(b"vote")).unwrap();
        log.sync().unwrap();
        drop(log);
        let (mut log, recovery) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
        assert_eq!(
            (recovery.last, log.state().as_deref()),
            (id(1, index), Some(&b"vote"[..])),
            "opened on a full disk"
        );
        assert!(matches!(log.append(&[entry(1, index + 1, 5000)], None), Err(Error::DiskFull { .. })));
        log.truncate_suffix(Index::new(index - 1)).unwrap();
        log.truncate_prefix(id(1, index - 2)).unwrap();
        log.sync().unwrap();
        fs.set_full(false);
        log.append(&[entry(2, index, 5000)], None).unwrap();
        log.sync().unwrap();
        assert_eq!((log.base(), log.last()), (id(1, index - 2), id(2, index)));
    }
}

#[test]
fn a_purged_segment_becomes_another_one_when_no_reader_holds_it() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    let mut held = Vec::new();
    for index in 1..=400 {
        log.append(&[entry(1, index, 5000)], None).unwrap();
        log.sync().unwrap();
        if index % 100 == 50 {
            held.extend(log.reader().read(Index::new(index)..Index::new(index + 1), usize::MAX).unwrap());
        }
        log.truncate_prefix(id(1, index - 1)).unwrap();
        log.sync().unwrap();
    }
    assert!(log.stats().rotations > 50 && fs.created() < 12, "{} files for {:?}", fs.created(), log.stats());
    for (held, index) in held.iter().zip([50, 150, 250, 350]) {
        assert_eq!(held, &entry(1, index, 5000), "what a reader holds is not written again");
    }
    drop(log);
    assert_eq!(Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap().0.last(), id(1, 400));
}

#[test]
fn one_unreadable_header_page_costs_nothing() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    for index in 1..=30 {
        log.append(&[entry(1, index, 5000)], Some(&[index as u8])).unwrap();
        log.sync().unwrap();
    }
    let view = View::of(&log);
    log.close().unwrap();
    for (at, path) in segments(dir.path()).iter().enumerate() {
        fs.spoil(path, if at % 2 == 0 { 700 } else { PAGE_BYTES + 700 });
    }
    let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
}

#[test]
fn a_page_that_cannot_be_read_is_damage_and_no_end() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    for index in 1..=5 {
        log.append(&[entry(1, index, 100)], None).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    fs.spoil(&segments(dir.path())[0], batch(2) + 100);
    let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    let lost = Damage { first: Index::new(3), last: Some(Index::new(3)) };
    assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
    assert_eq!(log.reader().read(Index::new(4)..Index::new(6), usize::MAX).unwrap().len(), 2);
}

/// A write that fails half way is as final as a sync that fails, and names neither a full disk nor success.
#[test]
fn a_failed_write_poisons() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    fs.fail_write_after(0);
    log.append(&entries(1, 1..=3), None).unwrap();
    assert!(matches!(log.sync(), Err(Error::Io { action: "write", .. })));
    assert!(matches!(log.append(&entries(1, 1..=3), None), Err(Error::Poisoned)));
}
