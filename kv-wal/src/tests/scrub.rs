//! Damage that nobody has read yet: found on the disk, repaired from what can still be read, and gone.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;

use super::damage::{batch, flip, history_of};
use super::model::{apply_all, step};
use super::{SMALL, View, entries, entry, id, open, segments};
use crate::format::{PAGE_BYTES, SECTOR_BYTES};
use crate::record::{Entry, Index};
use crate::testing::SimFs;
use crate::{Damage, Error, Log, Options, Report, Scrubbed, Wal, scan_with};

/// A whole pass, in steps of one batch.
fn pass(log: &Log) -> Scrubbed {
    let (mut scrubber, mut all) = (log.scrubber(), Scrubbed::default());
    loop {
        let step = scrubber.step(1).unwrap();
        all.bytes += step.bytes;
        all.flaws.extend(step.flaws);
        all.suspects.extend(step.suspects);
        all.is_state_suspect |= step.is_state_suspect;
        if step.finished {
            return all;
        }
    }
}

fn lost(first: u64, last: u64) -> Damage {
    Damage { first: Index::new(first), last: Some(Index::new(last)) }
}

/// Repairs suspects by what can be read.
fn heal(log: &mut Log) {
    for Damage { first, last } in log.reader().suspects() {
        let range = first..last.unwrap().next();
        let found: Vec<Entry> = log.reader().read(range, usize::MAX).unwrap();
        log.repair(&found).unwrap();
    }
    assert!(log.reader().suspects().is_empty());
}

#[test]
fn a_sound_log_is_read_from_end_to_end() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (log, _) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    let mut log = log;
    for index in 1..=40 {
        log.append(&[entry(1, index, 5000)], None).unwrap();
        log.sync().unwrap();
    }
    let scrubbed = pass(&log);
    assert_eq!((scrubbed.flaws, scrubbed.suspects), (vec![], vec![]));
    assert!(scrubbed.bytes >= log.stats().bytes_written, "{} of {:?}", scrubbed.bytes, log.stats());
    let scrubbed = log.scrubber().step(1 << 30).unwrap();
    assert!(scrubbed.finished, "one large step is a pass");
}

#[test]
fn what_the_next_opening_would_lose_is_suspect() {
    // Where a bit flips, what is found, and whether readers notice.
    let cases = [
        ("a header page", 77, 1, vec![], true),
        ("an entry of the fourth batch", batch(3) + SECTOR_BYTES + 53 + 40, 1, vec![lost(8, 8)], false),
        ("the header of the fourth batch", batch(3) + 20, 1, vec![lost(7, 8)], true),
        ("a batch that was overridden", batch(1) + 20, 1, vec![], true),
    ];
    for (what, at, flaws, suspects, readable) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(dir.path());
        let view = history_of(log);
        let (mut log, _) = open(dir.path());
        assert_eq!(pass(&log), Scrubbed { bytes: pass(&log).bytes, ..Scrubbed::default() }, "{what}: not yet");
        let path = &segments(dir.path())[0];
        flip(path, at);
        let scrubbed = pass(&log);
        assert_eq!(scrubbed.flaws.len(), flaws, "{what}");
        assert!(
            scrubbed
                .flaws
                .iter()
                .all(|flaw| flaw.path == *path && flaw.offset as usize / PAGE_BYTES == at / PAGE_BYTES)
        );
        assert_eq!((&scrubbed.suspects, log.reader().suspects()), (&suspects, suspects.clone()), "{what}");
        if !readable {
            let index = suspects[0].first;
            assert!(matches!(log.reader().get(index), Err(Error::Unreadable { .. })));
            log.repair(&view.entries[index.get() as usize - 1..][..1]).unwrap();
        }
        heal(&mut log);
        assert_eq!(View::of(&log), view, "{what}");
        drop(log);
        let (log, recovery) = open(dir.path());
        assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view), "{what}");
    }
}

/// A segment without a header is lost as a whole when it is opened; until then it can be read, and moved elsewhere.
#[test]
fn both_header_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let view = history_of(log);
    let (mut log, _) = open(dir.path());
    let path = &segments(dir.path())[0];
    flip(path, 77);
    flip(path, PAGE_BYTES + 77);
    let scrubbed = pass(&log);
    assert_eq!((scrubbed.flaws.len(), &scrubbed.suspects[..]), (2, &[lost(1, 10)][..]));
    heal(&mut log);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
}

#[test]
fn suspects_that_are_removed_are_of_no_account() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    history_of(log);
    let (mut log, _) = open(dir.path());
    flip(&segments(dir.path())[0], batch(3) + 20);
    assert_eq!(pass(&log).suspects, [lost(7, 8)]);
    log.truncate_prefix(id(2, 7)).unwrap();
    log.sync().unwrap();
    assert_eq!(log.reader().suspects(), [lost(8, 8)]);
    log.append(&entries(7, 8..=9), None).unwrap();
    log.sync().unwrap();
    assert_eq!((log.reader().suspects(), pass(&log).suspects), (vec![], vec![]), "overridden");
    assert!(matches!(log.repair(&entries(7, 8..=8)), Err(Error::NotLost { .. })));
}

#[test]
fn a_segment_may_go_while_it_is_verified() {
    let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
    let (mut log, _) = Log::open_with(Arc::new(fs), dir.path(), SMALL).unwrap();
    let mut scrubber = log.scrubber();
    for index in 1..=200 {
        log.append(&[entry(1, index, 5000)], None).unwrap();
        log.sync().unwrap();
        let scrubbed = scrubber.step(8000).unwrap();
        assert_eq!((scrubbed.flaws, scrubbed.suspects), (vec![], vec![]));
        if index % 7 == 0 {
            log.truncate_prefix(id(1, index - 3)).unwrap();
            log.sync().unwrap();
        }
    }
}

#[test]
fn a_thread_finds_and_repairs_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), None).unwrap();
    log.close().unwrap();
    let (mut wal, _) = Wal::open(dir.path(), SMALL).unwrap();
    flip(&segments(dir.path())[0], batch(0) + 20);
    let (found, reports) = channel();
    wal.scrub_in_background(100 << 20, move |scrubbed| found.send(scrubbed.clone()).unwrap()).unwrap();
    let mut suspects = Vec::new();
    loop {
        let scrubbed = reports.recv_timeout(Duration::from_secs(60)).expect("a pass ends");
        suspects.extend(scrubbed.suspects);
        if scrubbed.finished {
            break;
        }
    }
    assert_eq!(suspects, [lost(1, 5)]);
    let readable = wal.reader().read(Index::new(1)..Index::new(6), usize::MAX).unwrap();
    let receipt = wal.handle().repair(readable).wait().unwrap();
    assert_eq!((receipt.first, receipt.last), (Index::new(1), Index::new(5)));
    assert!(wal.reader().suspects().is_empty());
    wal.close().unwrap();
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, log.last()), (Report::Clean, id(1, 5)));
}

/// What a pass names must be repaired where the damage is not: not in the segment whose header it is.
#[test]
fn both_header_pages_of_the_newest_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), Some(b"vote")).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    let path = &segments(dir.path())[0];
    flip(path, 77);
    flip(path, PAGE_BYTES + 77);
    let scrubbed = pass(&log);
    assert_eq!((&scrubbed.suspects[..], scrubbed.is_state_suspect), (&[lost(1, 5)][..], true));
    heal(&mut log);
    assert_eq!(pass(&log).flaws, []);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, View::of(&log)), (Report::Clean, view));
}

/// A log of votes alone is verified, too.
#[test]
fn the_newest_state() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&[], Some(b"one")).unwrap();
    log.sync().unwrap();
    log.append(&[], Some(b"two")).unwrap();
    log.sync().unwrap();
    flip(&segments(dir.path())[0], batch(0) + 20);
    let scrubbed = pass(&log);
    assert_eq!((scrubbed.flaws.len(), scrubbed.is_state_suspect), (1, false), "a newer one is there");
    flip(&segments(dir.path())[0], batch(1) + 20);
    assert!(pass(&log).is_state_suspect);
    log.append(&[], Some(b"two")).unwrap();
    log.sync().unwrap();
    assert!(!pass(&log).is_state_suspect);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, log.state().as_deref()), (Report::Clean, Some(&b"two"[..])));
}

proptest! {
    #![proptest_config(super::cases(150))]

    /// Any history, and a bit, a page or two pages that go bad under the page cache: found in time, they cost nothing.
    #[test]
    fn what_is_found_in_time_is_never_lost(
        steps in proptest::collection::vec(step(), 1..60),
        at in any::<u64>(),
        bad_bytes in prop_oneof![Just(1_usize), Just(PAGE_BYTES), Just(2 * PAGE_BYTES)],
        batch_bytes_max in prop_oneof![Just(0), Just(16 << 10)],
    ) {
        let (dir, fs) = (tempfile::tempdir().unwrap(), SimFs::new(1));
        let options = Options { batch_bytes_max, ..SMALL };
        let (mut log, _) = Log::open_with(Arc::new(fs.clone()), dir.path(), options).unwrap();
        let options = Options { expect: Some(log.id()), ..options };
        let view = apply_all(&steps, &mut log);
        let paths = segments(dir.path());
        let path = &paths[at as usize % paths.len()];
        let bytes = std::fs::read(path).unwrap();
        let written: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        prop_assume!(!written.is_empty());
        let start = written[(at >> 32) as usize % written.len()];
        let end = (written[written.len() - 1] + 1).next_multiple_of(PAGE_BYTES);
        fs.flip_on_disk(path, start..(start + bad_bytes).min(end));
        prop_assert_eq!(&View::of(&log), &view, "the cache hides it");
        let scrubbed = pass(&log);
        let suspects = log.reader().suspects();

        // All that would be lost has been named.
        let after = tempfile::tempdir().unwrap();
        let found = scan_with(&fs.after_power_loss(1, after.path()), after.path()).unwrap();
        for entry in &view.entries {
            let index = entry.index();
            let named = suspects.iter().any(|d| d.first <= index && d.last.is_some_and(|last| index <= last));
            let there = found.entry(index).is_ok_and(|found| found == *entry);
            prop_assert!(there || named, "{} is lost: {}, {:?}", index, found.recovery, suspects);
        }
        if let Report::Damaged { state_in_doubt: true, .. } = found.recovery.report {
            prop_assert!(scrubbed.is_state_suspect, "{}", found.recovery);
        }

        heal(&mut log);
        pass(&log);
        prop_assert_eq!(log.reader().suspects(), vec![], "what was repaired is elsewhere");
        // Whatever was in the last batch is in a later one.
        log.append(&[entry(99, view.last().index.get() + 1, 0)], Some(b"new")).unwrap();
        log.sync().unwrap();
        let view = View::of(&log);
        drop(log);
        let after = tempfile::tempdir().unwrap();
        let fs = fs.after_power_loss(1, after.path());
        let (log, recovery) = Log::open_with(Arc::new(fs), after.path(), options).unwrap();
        prop_assert_eq!(recovery.report, Report::Clean);
        prop_assert_eq!(View::of(&log), view);
    }
}
