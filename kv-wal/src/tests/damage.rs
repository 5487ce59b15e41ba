//! One byte flipped, a sector zeroed, a file gone: nothing acknowledged goes missing without a report, nothing damaged
//! is given out, nothing panics.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{SMALL, View, copy_dir, entries, entry, id, open, segments};
use crate::testing::SimFs;
use bytes::BytesMut;

use crate::format::{HEADER_PAGES, PAGE_BYTES, SECTOR_BYTES};
use crate::record::{Entry, Index, Kind};
use crate::{Damage, Error, Log, Options, Recovery, Report};

/// Three segments: one with an override among its batches and a truncation, two with ordinary appends.
pub(super) fn history(dir: &Path) -> View {
    history_of(open(dir).0)
}

pub(super) fn history_of(mut log: Log) -> View {
    let sync = |log: &mut Log| log.sync().map(drop).unwrap();
    log.append(&entries(1, 1..=5), Some(b"one")).unwrap();
    sync(&mut log);
    log.append(&entries(1, 6..=9), None).unwrap();
    sync(&mut log);
    log.append(&entries(2, 4..=6), Some(b"two")).unwrap();
    sync(&mut log);
    log.append(&entries(2, 7..=9), None).unwrap();
    sync(&mut log);
    log.truncate_suffix(Index::new(8)).unwrap();
    sync(&mut log);
    log.append(&entries(3, 9..=10), None).unwrap();
    sync(&mut log);
    // Needs a segment of its own.
    log.append(&[blank(3, 11, 45_000)], None).unwrap();
    sync(&mut log);
    log.append(&entries(3, 12..=12), Some(b"three")).unwrap();
    sync(&mut log);
    log.append(&entries(3, 13..=14), None).unwrap();
    sync(&mut log);
    View::of(&log)
}

/// An entry of zeros.
fn blank(term: u64, index: u64, payload_bytes: usize) -> Entry {
    Entry::encode(&mut BytesMut::new(), id(term, index), 0, Kind(1), &vec![0; payload_bytes])
}

/// Offset of a batch of the first segment: each of them takes one page.
pub(super) const fn batch(number: usize) -> usize {
    (HEADER_PAGES + number) * PAGE_BYTES
}

/// Opens a damaged log without syncs, which would be most of the time.
fn open_quick(dir: &Path) -> (Log, Recovery) {
    Log::open_with(Arc::new(SimFs::over(dir).unwrap()), dir, SMALL).unwrap()
}

/// Whatever was done to the files of `dir`: the log is as it was, or says which of its entries are not.
fn check(dir: &Path, view: &View, what: &str) -> Recovery {
    let (mut log, recovery) = open_quick(dir);
    let Report::Damaged { ranges, state_in_doubt } = &recovery.report else {
        assert_eq!(&View::of(&log), view, "{what}: {recovery:?}");
        return recovery;
    };
    let reader = log.reader();
    for expected in &view.entries {
        let index = expected.index();
        match reader.read(index..index.next(), usize::MAX) {
            Ok(found) => assert_eq!(&found[..], std::slice::from_ref(expected), "{what}: {recovery:?}"),
            Err(error) => {
                let reported = |d: &Damage| d.first <= index && d.last.is_none_or(|last| index <= last);
                assert!(matches!(error, Error::Damaged { .. }), "{what}: {error}");
                assert!(ranges.iter().any(reported), "{what}: {index} is gone and not in {ranges:?}");
            }
        }
    }
    assert!(*state_in_doubt || log.state() == view.state, "{what}: {recovery:?}");
    assert_eq!(&log.damage(), ranges, "{what}");
    let next = log.last().index.get() + 1;
    let append = log.append(&[entry(9, next, 0)], None);
    assert_eq!(matches!(append, Err(Error::Damaged { .. })), !ranges.is_empty(), "{what}");
    recovery
}

#[test]
pub(super) fn every_flipped_byte_is_harmless_or_reported() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    let damaged = copy_dir(dir.path());
    let (mut harmless, mut reported) = (0, 0);
    for path in segments(dir.path()) {
        let name = path.file_name().unwrap();
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| (last + 1).next_multiple_of(PAGE_BYTES));
        // Padding is all alike: every byte where something is written, some of the zeros, and a page beyond the end.
        let interesting = |at: &usize| bytes[*at] != 0 || at % SECTOR_BYTES < 8 || at.is_multiple_of(509);
        for at in (0..(end + PAGE_BYTES).min(bytes.len())).filter(interesting) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for old in segments(damaged.path()) {
                fs::remove_file(old).unwrap();
            }
            for copy in segments(dir.path()) {
                fs::copy(&copy, damaged.path().join(copy.file_name().unwrap())).unwrap();
            }
            fs::write(damaged.path().join(name), flipped).unwrap();
            let recovery = check(damaged.path(), &view, &format!("byte {at} of {name:?}"));
            *(if recovery.is_damaged() { &mut reported } else { &mut harmless }) += 1;
        }
    }
    assert!(reported > 500 && harmless > 500, "{reported} reported, {harmless} harmless");
}

#[test]
fn a_lost_override_takes_what_it_may_have_overridden_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    // The third batch, which overrode entries 4 to 9 by 4 to 6; the fourth begins at 7.
    flip(&segments(dir.path())[0], batch(2) + 20);
    let recovery = check(dir.path(), &view, "override");
    let lost = Damage { first: Index::new(4), last: Some(Index::new(6)) };
    assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
}

#[test]
fn damage_that_was_overridden_or_truncated_is_of_no_account() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    // The second batch brought 6 to 9, all of which the third overrode.
    flip(&segments(dir.path())[0], batch(1) + 20);
    assert!(!check(dir.path(), &view, "overridden").is_damaged());
    // The first brought 1 to 5, of which 1 to 3 are left.
    flip(&segments(dir.path())[0], batch(0) + 20);
    let pristine = tempfile::tempdir().unwrap();
    history(pristine.path());
    let (mut log, _) = open(pristine.path());
    log.truncate_prefix(id(1, 3)).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    drop(log);
    flip(&segments(pristine.path())[0], batch(0) + 20);
    assert!(!check(pristine.path(), &view, "truncated").is_damaged());
}

#[test]
fn zeros_where_a_durable_batch_was_are_damage_and_no_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    for (number, sectors) in [(1, 0..1), (3, 1..2), (3, 0..8), (5, 0..2)] {
        let damaged = copy_dir(dir.path());
        let path = &segments(damaged.path())[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[batch(number)..][sectors.start * SECTOR_BYTES..sectors.end * SECTOR_BYTES].fill(0);
        fs::write(path, bytes).unwrap();
        let recovery = check(damaged.path(), &view, "zeroed");
        assert_eq!(recovery.is_damaged(), number != 1, "the second batch is overridden; {recovery:?}");
    }
}

/// Three batches of one sync, none of which says that another is durable: only the next segment does.
#[test]
fn a_later_segment_proves_durable_what_its_own_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), Options { batch_bytes_max: 0, ..SMALL }).unwrap();
    for index in 1..=3 {
        log.append(&[entry(1, index, 100)], None).unwrap();
    }
    log.append(&[entry(1, 4, 47_000)], None).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    drop(log);
    assert_eq!(segments(dir.path()).len(), 2);
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[batch(1)..][..SECTOR_BYTES].fill(0);
    fs::write(path, bytes).unwrap();
    let lost = Damage { first: Index::new(2), last: Some(Index::new(2)) };
    let recovery = check(dir.path(), &view, "one of three");
    assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
}

#[test]
fn a_missing_or_shortened_segment_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    let damaged = copy_dir(dir.path());
    fs::remove_file(&segments(damaged.path())[0]).unwrap();
    assert!(check(damaged.path(), &view, "removed").is_damaged());
    for bytes in [0, 100, PAGE_BYTES, 3 * PAGE_BYTES + 17] {
        let damaged = copy_dir(dir.path());
        let path = &segments(damaged.path())[0];
        fs::File::options().write(true).open(path).unwrap().set_len(bytes as u64).unwrap();
        assert!(check(damaged.path(), &view, "shortened").is_damaged(), "{bytes} bytes");
        let damaged = copy_dir(dir.path());
        let path = segments(damaged.path()).pop().unwrap();
        fs::File::options().write(true).open(path).unwrap().set_len(bytes as u64).unwrap();
        assert!(check(damaged.path(), &view, "newest shortened").is_damaged(), "{bytes} bytes");
    }
}

/// A segment begun by a recovery, and its header lost: what that recovery had cut is not found again.
#[test]
pub(super) fn what_was_cut_stays_cut_whatever_is_lost_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), Options { batch_bytes_max: 0, ..SMALL }).unwrap();
    log.append(&entries(1, 1..=9), None).unwrap();
    log.sync().unwrap();
    // Of one sync, the second of two batches has arrived, which overrides, and the first has not.
    log.append(&entries(1, 10..=12), None).unwrap();
    log.append(&entries(2, 5..=6), None).unwrap();
    log.sync().unwrap();
    drop(log);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[batch(1)..][..PAGE_BYTES].fill(0);
    fs::write(&path, bytes).unwrap();
    let (mut log, recovery) = open(dir.path());
    assert_eq!((recovery.torn_bytes(), log.last()), (2 * PAGE_BYTES as u64, id(1, 9)));
    // It takes the place of the first of them; the second must not follow it.
    log.append(&entries(3, 10..=10), None).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    drop(log);
    let (mut log, recovery) = open(dir.path());
    assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
    for index in 11..=40 {
        log.append(&[entry(3, index, 5000)], None).unwrap();
        log.sync().unwrap();
    }
    let view = View::of(&log);
    log.close().unwrap();
    let paths = segments(dir.path());
    assert!(paths.len() > 3);
    for lost in 0..paths.len() {
        let damaged = copy_dir(dir.path());
        let path = &segments(damaged.path())[lost];
        let mut bytes = fs::read(path).unwrap();
        bytes[..HEADER_PAGES * PAGE_BYTES].fill(0xdb);
        fs::write(path, bytes).unwrap();
        assert!(check(damaged.path(), &view, &format!("header of segment {lost}")).is_damaged());
    }
    assert_eq!(View::of(&open(dir.path()).0), view);
}

/// Found on reading, long after opening: the entry is refused, its neighbours are not.
#[test]
fn damage_after_opening_is_found_by_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=3), None).unwrap();
    log.sync().unwrap();
    flip(&segments(dir.path())[0], batch(0) + SECTOR_BYTES + 53 + 40);
    let reader = log.reader();
    let read = |from, to| reader.read(Index::new(from)..Index::new(to), usize::MAX);
    assert_eq!(read(1, 4).unwrap(), entries(1, 1..=1), "ends before the damage");
    assert!(matches!(read(2, 4), Err(Error::Unreadable { index, .. }) if index == Index::new(2)));
    assert_eq!(read(3, 4).unwrap(), entries(1, 3..=3));
}

pub(super) fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}
