//! Where one thing ends and another begins: the last page of a segment, the last segment of a disk, the last opening.

use std::fs;
use std::sync::Arc;

use super::damage::{flip, history};
use super::{SMALL, View, entries, entry, id, open, segments};
use crate::format::{BATCHES_AT, INDEX_MAX, PAGE_BYTES, SECTOR_BYTES};
use crate::record::{Entry, Index};
use crate::testing::SimFs;
use crate::{Damage, Error, Log, LogId, Options, Report, Wal};

/// What was read stays what it was, whoever opens the log after that and whatever becomes of its files.
#[test]
fn what_was_read_outlives_the_log_that_is_opened_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=20), None).unwrap();
    log.sync().unwrap();
    let held = log.reader().read(Index::new(1)..Index::new(21), usize::MAX).unwrap();
    log.close().unwrap();
    let (mut log, _) = open(dir.path());
    for index in 21..=200 {
        log.append(&[entry(1, index, 5000)], None).unwrap();
        log.sync().unwrap();
        log.truncate_prefix(id(1, index - 1)).unwrap();
        log.sync().unwrap();
    }
    assert!(log.stats().rotations > 10);
    assert_eq!(held, entries(1, 1..=20));
}

/// While entries are lost, nobody knows what else is in a file: it is kept until they are repaired or given up.
#[test]
fn no_file_of_a_damaged_log_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let path = segments(dir.path()).remove(1);
    // The one large batch of this segment.
    flip(&path, BATCHES_AT + 20);
    let (mut log, recovery) = open(dir.path());
    let lost = Damage { first: Index::new(11), last: Some(Index::new(11)) };
    assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
    log.append(&[], Some(b"vote")).unwrap();
    log.truncate_prefix(id(2, 8)).unwrap();
    log.sync().unwrap();
    drop(log);
    let (mut log, _) = open(dir.path());
    assert!(path.exists() && segments(dir.path()).len() == 3);
    log.repair(&[entry(3, 11, 20)]).unwrap();
    log.truncate_prefix(id(3, 12)).unwrap();
    log.sync().unwrap();
    assert!(!path.exists(), "now nothing in it is of any use");
}

#[test]
fn a_log_without_a_name_is_not_given_another() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let name = open(dir.path()).0.id();
    for path in segments(dir.path()) {
        flip(&path, 77);
        flip(&path, PAGE_BYTES + 77);
    }
    let error = Log::open(dir.path(), SMALL).unwrap_err();
    assert!(matches!(&error, Error::Nameless { dir: named } if named == dir.path()), "{error}");
    let (log, recovery) = Log::open(dir.path(), Options { expect: Some(name), ..SMALL }).unwrap();
    assert!(recovery.is_damaged() && log.id() == name && name != LogId([0; 16]));
}

/// A blank header of a segment that was begun, and a blank one that was not.
#[test]
fn a_segment_whose_header_is_gone_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    for at in 0..3 {
        let damaged = super::copy_dir(dir.path());
        let path = segments(damaged.path()).remove(at);
        let mut bytes = fs::read(&path).unwrap();
        bytes[..BATCHES_AT].fill(0);
        fs::write(&path, bytes).unwrap();
        let (log, recovery) = open(damaged.path());
        assert!(recovery.is_damaged() && path.exists(), "segment {at}");
        drop(log);
        // Even with nothing in it: a later one was begun.
        let len = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0; len]).unwrap();
        let (_, recovery) = open(damaged.path());
        assert!(recovery.is_damaged() && path.exists(), "segment {at} of zeros");
    }
}

/// A file that was made longer or shorter is not written to.
#[test]
fn a_newest_segment_of_another_length_is_left_alone() {
    for bytes in [40 << 10, 100 << 10] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path());
        log.append(&entries(1, 1..=5), None).unwrap();
        log.close().unwrap();
        let path = segments(dir.path()).remove(0);
        fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        let (mut log, recovery) = open(dir.path());
        // What is missing of a shorter one comes after a page that was never written: nothing there was durable.
        assert_eq!((recovery.is_damaged(), log.last()), (false, id(1, 5)));
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes, "opening leaves it so");
        for index in 6..=40 {
            log.append(&[entry(1, index, 5000)], None).unwrap();
            log.sync().unwrap();
        }
        let view = View::of(&log);
        drop(log);
        let (log, recovery) = open(dir.path());
        assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
    }
}

/// The ranges of a damaged log are in the second sector of its headers: a crash between the two loses nothing.
#[test]
fn power_loss_while_a_damaged_log_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    flip(&segments(dir.path()).pop().unwrap(), BATCHES_AT + 20);
    for cut in 0.. {
        for seed in 0..6 {
            let copy = super::copy_dir(dir.path());
            let disk = SimFs::over(copy.path()).unwrap();
            disk.power_off_after(cut);
            let opened = Log::open_with(Arc::new(disk.clone()), copy.path(), SMALL);
            let done = opened.is_ok() && !disk.is_off();
            drop(opened);
            let after = tempfile::tempdir().unwrap();
            let disk = disk.after_power_loss(seed, after.path());
            let (mut log, recovery) = Log::open_with(Arc::new(disk), after.path(), SMALL).unwrap();
            let lost = Damage { first: Index::new(12), last: Some(Index::new(12)) };
            let expected = Report::Damaged { ranges: vec![lost], state_in_doubt: false };
            assert_eq!(recovery.report, expected, "cut {cut}, seed {seed}");
            log.repair(&view.entries[11..12]).unwrap();
            assert_eq!(View::of(&log).entries, view.entries, "cut {cut}, seed {seed}");
            if done && seed == 5 {
                return;
            }
        }
    }
}

/// Repairing is interrupted at each of its operations: in the end the entry is there, or it is still lost.
#[test]
fn power_loss_while_a_log_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    flip(&segments(dir.path())[1], BATCHES_AT + 20);
    for cut in 0.. {
        let copy = super::copy_dir(dir.path());
        let disk = SimFs::over(copy.path()).unwrap();
        let (mut log, _) = Log::open_with(Arc::new(disk.clone()), copy.path(), SMALL).unwrap();
        disk.power_off_after(cut);
        let repaired = log.repair(&view.entries[10..11]);
        let done = repaired.is_ok();
        drop(log);
        let after = tempfile::tempdir().unwrap();
        let disk = disk.after_power_loss(cut, after.path());
        let (mut log, recovery) = Log::open_with(Arc::new(disk), after.path(), SMALL).unwrap();
        if done {
            assert_eq!(recovery.report, Report::Clean, "cut {cut}");
        } else if recovery.is_damaged() {
            assert_eq!(log.damage(), [Damage { first: Index::new(11), last: Some(Index::new(11)) }], "cut {cut}");
            log.repair(&view.entries[10..11]).unwrap();
        }
        assert_eq!(View::of(&log), view, "cut {cut}");
        if done {
            return;
        }
    }
}

/// An append that needs a segment of its own, and a directory that fails at any moment of making it.
#[test]
fn a_directory_that_fails_costs_no_segment() {
    for prepare_ahead in [false, true] {
        for failing in 0..12 {
            let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
            let options = Options { prepare_ahead, ..SMALL };
            let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
            log.append(&[entry(1, 1, 40_000)], None).unwrap();
            log.sync().unwrap();
            fs.fail_name_after(failing);
            let _ = log.append(&[entry(1, 2, 200_000)], None);
            let _ = log.append(&[entry(1, log.last().index.get() + 1, 40_000)], None);
            fs.fail_name_after(1 << 40);
            for _ in 0..4 {
                log.append(&[entry(1, log.last().index.get() + 1, 40_000)], None).unwrap();
                log.sync().unwrap();
            }
            let view = View::of(&log);
            drop(log);
            let after = tempfile::tempdir().unwrap();
            let fs = fs.after_power_loss(failing, after.path());
            let (log, recovery) = Log::open_with(Arc::new(fs), after.path(), options).unwrap();
            assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view), "{failing}, ahead {prepare_ahead}");
        }
    }
}

/// However often it is opened and closed, and whatever votes it has taken, a log on a full disk can be truncated.
#[test]
fn a_full_disk_keeps_a_page_for_what_makes_room() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    fs.set_full(true);
    while log.append(&[entry(1, log.last().index.get() + 1, 5000)], None).is_ok() {
        log.sync().unwrap();
    }
    for _ in 0..20 {
        log.close().unwrap();
        log = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap().0;
    }
    let mut votes = 0;
    while log.append(&[], Some(&[votes])).is_ok() {
        log.sync().unwrap();
        votes += 1;
        assert!(votes < 100, "a full disk must be noticed");
    }
    assert!(votes >= 1, "closing has taken nothing that state needs");
    let base = id(1, log.last().index.get() - 1);
    log.truncate_prefix(base).unwrap();
    log.sync().unwrap();
    assert_eq!(log.base(), base);
    fs.set_full(false);
    log.append(&[entry(2, base.index.get() + 2, 5000)], None).unwrap();
    log.close().unwrap();
    let (log, recovery) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    assert_eq!((recovery.report, log.state().unwrap()[0]), (Report::Clean, votes - 1));
}

/// In one round of the writing thread, state is taken although entries before it were refused.
#[test]
fn a_vote_is_taken_beside_entries_that_a_full_disk_refuses() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
    fs.set_full(true);
    let wal = Wal::start(log, dir.path()).unwrap();
    let handle = wal.handle();
    let (refused, vote) = fs.while_stalled(|| {
        let refused: Vec<_> = (1..=30).map(|index| handle.append(vec![entry(1, index, 5000)], None)).collect();
        (refused, handle.append(Vec::new(), Some(bytes::Bytes::from_static(b"vote"))))
    });
    let results: Vec<_> = refused.into_iter().map(crate::Ticket::wait).collect();
    assert!(results.iter().any(|result| matches!(result, Err(Error::DiskFull { .. }))), "{results:?}");
    vote.wait().unwrap();
    wal.close().unwrap();
    fs.set_full(false);
    let (log, _) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    assert_eq!(log.state().as_deref(), Some(&b"vote"[..]));
}

#[test]
fn a_term_that_is_not_the_entrys_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(3, 1..=5), None).unwrap();
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::WrongTerm { .. })), "{result:?}");
    refused(log.truncate_prefix(id(2, 4)));
    log.sync().unwrap();
    refused(log.truncate_prefix(id(4, 4)));
    log.truncate_prefix(id(3, 4)).unwrap();
}

#[test]
fn what_is_lost_at_the_end_ends_an_iteration_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for index in 1..=4 {
        log.append(&entries(1, index..=index), None).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    flip(&segments(dir.path())[0], BATCHES_AT + 3 * PAGE_BYTES + 20);
    let (log, _) = open(dir.path());
    let items: Vec<Result<Entry, Error>> = log.reader().iter(Index::new(1)..Index::new(99)).collect();
    assert_eq!(items.len(), 4);
    assert!(matches!(items[3], Err(Error::Damaged { damage: Damage { last: None, .. } })));
}

#[test]
fn the_greatest_index() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let max = INDEX_MAX.get();
    assert!(matches!(log.reset(id(1, max + 1)), Err(Error::OutOfRange { .. })));
    log.reset(id(1, max - 2)).unwrap();
    log.append(&entries(1, max - 1..=max), None).unwrap();
    assert!(matches!(log.append(&entries(1, max + 1..=max + 1), None), Err(Error::OutOfRange { .. })));
    log.sync().unwrap();
    let view = View::of(&log);
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
    log.truncate_prefix(id(1, max)).unwrap();
    log.close().unwrap();
    assert_eq!(open(dir.path()).0.base(), id(1, max));
}

/// More lost ranges than a header holds: what is told more coarsely is never told too little, and can be mended.
#[test]
fn more_lost_ranges_than_a_header_holds() {
    mend_many_ranges(false);
    mend_many_ranges(true);
}

/// Repairs them in the opening that finds them, or in the next.
fn mend_many_ranges(twice: bool) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4 << 20, batch_bytes_max: 0, ..SMALL };
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    for index in 1..=600 {
        log.append(&entries(1, index..=index), None).unwrap();
    }
    log.close().unwrap();
    let path = segments(dir.path()).remove(0);
    for index in (1..600).step_by(2) {
        flip(&path, BATCHES_AT + index * PAGE_BYTES + SECTOR_BYTES + 40);
    }
    let (log, recovery) = Log::open(dir.path(), options).unwrap();
    let Report::Damaged { ranges, .. } = recovery.report else { panic!("{recovery:?}") };
    assert_eq!(ranges.len(), crate::format::DAMAGE_COUNT_MAX, "what a header holds of three hundred");
    assert_eq!(ranges, log.damage());
    let mut log = log;
    if twice {
        drop(log);
        log = Log::open(dir.path(), options).unwrap().0;
    }
    let told = log.damage();
    assert!(told.len() <= 300);
    for index in (2..=600).step_by(2) {
        assert!(told.iter().any(|d| d.first.get() <= index && d.last.unwrap().get() >= index), "{index}");
    }
    for Damage { first, last } in told {
        log.repair(&entries(1, first.get()..=last.unwrap().get())).unwrap();
    }
    drop(log);
    let (log, recovery) = Log::open(dir.path(), options).unwrap();
    assert_eq!((recovery.report, View::of(&log).entries), (Report::Clean, entries(1, 1..=600)));
}

/// A bad sector in a segment that was made ahead does not make the one before it a sealed one.
#[test]
fn a_bad_segment_that_was_never_begun_proves_nothing() {
    for (bad, seed) in [(20_000, 3), (BATCHES_AT + 20, 5), (PAGE_BYTES, 8), (0, 9)] {
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(seed));
        let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
        log.append(&entries(1, 1..=3), None).unwrap();
        log.sync().unwrap();
        log.append(&entries(1, 4..=6), None).unwrap();
        fs.fail_sync_after(0);
        assert!(log.sync().is_err());
        drop(log);
        let prepared = dir.path().join("0000000000000002.wal");
        let file = crate::fs::Fs::create(&fs, &prepared).unwrap();
        file.write_at(&vec![0; 64 << 10], 0).unwrap();
        file.sync().unwrap();
        crate::fs::Fs::sync_dir(&fs, dir.path()).unwrap();
        fs.spoil(&prepared, bad);
        let (log, recovery) = Log::open_with(Arc::new(fs.clone()), dir.path(), SMALL).unwrap();
        assert_eq!((recovery.entries_rewritten, log.last()), (3, id(1, 6)), "the cache shows them: written again");
        let view = View::of(&log);
        drop(log);
        let after = tempfile::tempdir().unwrap();
        let fs = fs.after_power_loss(seed, after.path());
        let (log, recovery) = Log::open_with(Arc::new(fs), after.path(), SMALL).unwrap();
        assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
    }
}

/// A torn batch is the only proof that a damaged one before it was durable: it is erased when that is known elsewhere.
#[test]
fn an_opening_that_stops_has_not_lost_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), None).unwrap();
    log.sync().unwrap();
    log.append(&[entry(1, 6, 3000)], None).unwrap();
    log.sync().unwrap();
    drop(log);
    let path = segments(dir.path()).remove(0);
    flip(&path, BATCHES_AT + SECTOR_BYTES + 2 * 53 + 40);
    let mut bytes = fs::read(&path).unwrap();
    bytes[BATCHES_AT + PAGE_BYTES + 2 * SECTOR_BYTES..].fill(0);
    fs::write(&path, bytes).unwrap();
    let lost = Damage { first: Index::new(3), last: Some(Index::new(3)) };
    for cut in 0..30 {
        let copy = super::copy_dir(dir.path());
        let disk = SimFs::over(copy.path()).unwrap();
        if cut == 29 {
            disk.set_full(true);
        } else {
            disk.power_off_after(cut);
        }
        let _ = Log::open_with(Arc::new(disk.clone()), copy.path(), SMALL);
        let after = tempfile::tempdir().unwrap();
        let disk = disk.after_power_loss(cut, after.path());
        let (_, recovery) = Log::open_with(Arc::new(disk), after.path(), SMALL).unwrap();
        assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: false }, "cut {cut}");
    }
}

/// What an opening has cut stays cut, though it was stopped before it could erase it, and though the header that would
/// say so is lost long after that.
#[test]
fn what_was_cut_is_erased_by_the_next_opening_at_the_latest() {
    let options = Options { batch_bytes_max: 0, ..SMALL };
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), options).unwrap();
    log.append(&entries(1, 1..=5), None).unwrap();
    log.sync().unwrap();
    for index in 6..=8 {
        log.append(&[entry(1, index, 100)], None).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    let path = segments(dir.path()).remove(0);
    flip(&path, BATCHES_AT + SECTOR_BYTES + 2 * 53 + 40);
    let mut bytes = fs::read(&path).unwrap();
    // The first of three batches of one sync is torn: its entry has not arrived.
    bytes[BATCHES_AT + PAGE_BYTES + SECTOR_BYTES..BATCHES_AT + 2 * PAGE_BYTES].fill(0);
    fs::write(&path, bytes).unwrap();
    let mut stopped = 0;
    for cut in 0..30 {
        let copy = super::copy_dir(dir.path());
        let disk = SimFs::over(copy.path()).unwrap();
        disk.power_off_after(cut);
        stopped += u64::from(Log::open_with(Arc::new(disk.clone()), copy.path(), options).is_err());
        let after = tempfile::tempdir().unwrap();
        let disk = disk.after_power_loss(cut, after.path());
        let (mut log, _) = Log::open_with(Arc::new(disk), after.path(), options).unwrap();
        log.repair(&entries(1, 3..=3)).unwrap();
        for index in 6..=40 {
            log.append(&[entry(2, index, 5000)], None).unwrap();
            log.sync().unwrap();
        }
        let view = View::of(&log);
        log.close().unwrap();
        for lost in 1..segments(after.path()).len() {
            let copy = super::copy_dir(after.path());
            let path = &segments(copy.path())[lost];
            flip(path, 77);
            flip(path, PAGE_BYTES + 77);
            let (log, _) = Log::open_with(Arc::new(SimFs::over(copy.path()).unwrap()), copy.path(), options).unwrap();
            for entry in &view.entries {
                let found = log.reader().get(entry.index());
                assert!(found.is_err() || found.as_ref().is_ok_and(|found| found == entry), "cut {cut}: {found:?}");
            }
        }
    }
    assert!(stopped > 5);
}

/// A sector that cannot be read costs the batch it is in, wherever batches lie, and none beside it.
#[test]
fn an_unreadable_sector_costs_no_neighbour() {
    let options = Options { segment_bytes: 4 << 20, batch_bytes_max: 0, ..SMALL };
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(disk.clone()), dir.path(), options).unwrap();
    for index in 1..=200 {
        log.append(&[entry(1, index, 9000)], Some(&[index as u8])).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    let path = segments(dir.path()).remove(0);
    for index in [40, 99, 100, 151, 199] {
        for sector in [0, 7, 8, 17, 23] {
            let disk = SimFs::over(dir.path()).unwrap();
            disk.spoil(&path, BATCHES_AT + (index - 1) * 3 * PAGE_BYTES + sector * SECTOR_BYTES);
            let scanned = crate::scan_with(&disk, dir.path()).unwrap();
            let Report::Damaged { ranges, state_in_doubt } = scanned.recovery.report else {
                panic!("{index}, {sector}")
            };
            let lost = Index::new(index as u64);
            assert_eq!(
                (ranges, state_in_doubt),
                (vec![Damage { first: lost, last: Some(lost) }], false),
                "{index}, {sector}"
            );
        }
    }
}

/// Files of any length, down to the last byte of the newest: it opens, whatever is lost.
#[test]
fn a_newest_segment_that_ends_anywhere_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    let name = log.id();
    log.append(&entries(1, 1..=5), Some(b"vote")).unwrap();
    log.close().unwrap();
    for bytes in (0..BATCHES_AT + 3 * PAGE_BYTES).step_by(SECTOR_BYTES / 2) {
        let copy = super::copy_dir(dir.path());
        let path = segments(copy.path()).remove(0);
        fs::File::options().write(true).open(&path).unwrap().set_len(bytes as u64).unwrap();
        let expect = Options { expect: Some(name), ..SMALL };
        let (log, recovery) = Log::open(copy.path(), expect).unwrap();
        assert!(recovery.is_damaged() || log.last() == id(1, 5), "{bytes} bytes");
    }
}

/// A name that no log gets to is not counted on from.
#[test]
fn a_stray_file_of_the_greatest_number_is_none_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["fffffffffffffffe.wal", "ffffffffffffffff.wal", "8000000000000000.wal"] {
        fs::write(dir.path().join(name), vec![0; 64 << 10]).unwrap();
    }
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=3), None).unwrap();
    log.close().unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, log.last()), (Report::Clean, id(1, 3)));
}

/// What is reported lost is given out by no way of reading.
#[test]
fn what_counts_as_lost_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=2), None).unwrap();
    log.sync().unwrap();
    log.append(&entries(1, 3..=6), None).unwrap();
    log.sync().unwrap();
    drop(log);
    flip(&segments(dir.path())[0], BATCHES_AT + PAGE_BYTES + SECTOR_BYTES + 40);
    for _ in 0..3 {
        let (log, recovery) = open(dir.path());
        assert_eq!(log.damage(), [Damage { first: Index::new(3), last: Some(Index::new(6)) }]);
        assert_eq!(recovery.entries_recovered, 2);
        let reader = log.reader();
        assert_eq!(reader.read(Index::new(1)..Index::new(7), usize::MAX).unwrap(), entries(1, 1..=2));
        assert!((3..7).all(|index| reader.term(Index::new(index)).is_none()));
        assert_eq!(reader.iter(Index::new(1)..Index::new(7)).filter(Result::is_ok).count(), 2);
    }
}

/// Tickets for what may never come are bounded like any other request, and given up with their owners.
#[test]
fn waiting_for_ever_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(dir.path(), SMALL).unwrap();
    let handle = wal.handle();
    let never = Index::new(u64::MAX);
    let mut waiting = Vec::new();
    let busy = loop {
        let mut ticket = Box::pin(handle.durable(never));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::future::Future::poll(ticket.as_mut(), &mut context) {
            std::task::Poll::Ready(result) => break result,
            std::task::Poll::Pending => waiting.push(ticket),
        }
    };
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?} after {}", waiting.len());
    drop(waiting);
    // Whoever comes next has them cleared away, though it may be refused itself.
    let written = || handle.append(Vec::new(), Some(bytes::Bytes::from_static(b"x"))).wait();
    while written().is_err() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
