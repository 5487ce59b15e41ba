//! Damage of any kind, then repair from a true copy: in the end the log is what it was, and stays so.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::damage::{batch, flip, history};
use super::model::{apply_all, step};
use super::{SMALL, View, entries, entry, id, open, segments};
use crate::format::{BATCHES_AT, PAGE_BYTES, SECTOR_BYTES};
use crate::record::{Entry, Index};
use crate::testing::SimFs;
use crate::{Damage, Error, Log, Options, Report};

/// Mends a log by what `view` says it was.
fn mend(log: &mut Log, view: &View) {
    if log.base() != view.base && view.base.index > Index::ZERO && !log.damage().is_empty() {
        // What is lost has moved the base, too.
        let _ = log.truncate_prefix(view.base);
        if log.base() != view.base {
            log.reset(view.base).unwrap();
            log.append(&view.entries, None).unwrap();
        }
        log.sync().unwrap();
    }
    for round in 0.. {
        // What has no end first: it may have overridden what lies before it, lost or not.
        let damage = log.damage();
        let open = damage.last().filter(|damage| damage.last.is_none());
        let Some(damage) = open.or(damage.first()).copied() else { break };
        assert!(round < 100, "{:?} is not mended", log.damage());
        if view.base.index < log.base().index {
            // A reset to a lower base was lost.
            log.reset(view.base).unwrap();
            log.append(&view.entries, None).unwrap();
            log.sync().unwrap();
            continue;
        }
        if damage.last.is_none() {
            // What was lost may have overridden what is left.
            let reader = log.reader();
            let differs = |entry: &&Entry| reader.term(entry.index()).is_some_and(|term| term != entry.term());
            let overridden = view.entries.iter().find(differs).map(Entry::index);
            let end = overridden.unwrap_or(view.last().index.next());
            if end < damage.first {
                let is_lost =
                    |index: Index| log.damage().iter().any(|d| d.first <= index && d.last.is_none_or(|l| index <= l));
                let kept = (log.base().index.get()..end.get()).rev().map(Index::new).find(|&index| !is_lost(index));
                log.truncate_suffix(kept.unwrap()).unwrap();
                log.sync().unwrap();
                continue;
            }
        }
        let inside = |index: Index| damage.first <= index && damage.last.is_none_or(|last| index <= last);
        let lost: Vec<Entry> = view.entries.iter().filter(|entry| inside(entry.index())).cloned().collect();
        // In two parts, the later first where that is possible.
        let (one, other) = lost.split_at(lost.len() / 2);
        if damage.last.is_some() && !other.is_empty() {
            log.repair(other).unwrap();
            log.repair(one).unwrap();
        } else {
            log.repair(one).unwrap();
            log.repair(other).unwrap();
        }
        if damage.last.is_none_or(|last| last > view.last().index) {
            log.truncate_suffix(view.last().index).unwrap();
            log.sync().unwrap();
        }
    }
    let rest: Vec<Entry> = view.entries.iter().filter(|entry| entry.index() > log.last().index).cloned().collect();
    log.append(&rest, None).unwrap();
    log.sync().unwrap();
    if log.is_state_in_doubt() {
        log.append(&[], Some(view.state.as_deref().unwrap_or_default())).unwrap();
        log.sync().unwrap();
    }
}

/// Opens a log that may be damaged, mends it, and expects it to be `view`, also when it is opened again and used.
fn expect_mended(dir: &Path, view: &View, what: &str) -> Report {
    expect_log_mended(dir, SMALL, view, true, what)
}

fn expect_log_mended(dir: &Path, options: Options, view: &View, twice: bool, what: &str) -> Report {
    let open = || Log::open_with(Arc::new(SimFs::over(dir).unwrap()), dir, options).unwrap();
    let (mut log, recovery) = open();
    // Without mending, the next opening finds the same damage, though it is in other files now.
    if twice && recovery.is_damaged() {
        drop(log);
        let (again, second) = open();
        assert_eq!(second.report, recovery.report, "{what}");
        log = again;
    }
    mend(&mut log, view);
    let mut view = view.clone();
    // A state in doubt where there was none has been replaced by one.
    view.state = log.state();
    if view.base.index == Index::ZERO {
        // Its term means nothing, and is nothing that could be put back.
        view.base = log.base();
    }
    assert_eq!(View::of(&log), view, "{what}: {recovery:?}");
    let next = entry(99, view.last().index.get() + 1, 10);
    log.append(std::slice::from_ref(&next), None).unwrap();
    log.sync().unwrap();
    view.entries.push(next);
    drop(log);
    let (log, second) = open();
    assert_eq!(second.report, Report::Clean, "{what}: {recovery:?}");
    assert_eq!(View::of(&log), view, "{what}: {recovery:?}");
    recovery.report
}

#[test]
fn what_is_lost_in_the_middle_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    flip(&segments(dir.path())[0], batch(2) + 20);
    let report = expect_mended(dir.path(), &view, "the override");
    let lost = Damage { first: Index::new(4), last: Some(Index::new(6)) };
    assert_eq!(report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
}

/// One entry of a batch that a later one proves durable: its neighbours are kept.
#[test]
fn only_the_entry_that_is_damaged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), Some(b"vote")).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    log.close().unwrap();
    // 53 bytes an entry; the third one's payload.
    flip(&segments(dir.path())[0], batch(0) + SECTOR_BYTES + 2 * 53 + 40);
    let report = expect_mended(dir.path(), &view, "one of five");
    let lost = Damage { first: Index::new(3), last: Some(Index::new(3)) };
    assert_eq!(report, Report::Damaged { ranges: vec![lost], state_in_doubt: false });
}

#[test]
fn a_lost_end_is_repaired_as_far_as_it_is_known_and_the_rest_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for index in 1..=4 {
        log.append(&[entry(1, index, 9)], Some(&[index as u8])).unwrap();
        log.sync().unwrap();
    }
    let view = View::of(&log);
    drop(log);
    let path = segments(dir.path()).remove(0);
    flip(&path, batch(2) + 20);
    flip(&path, batch(3) + 20);
    let (mut log, recovery) = open(dir.path());
    let lost = Damage { first: Index::new(3), last: None };
    assert_eq!(recovery.report, Report::Damaged { ranges: vec![lost], state_in_doubt: true });
    assert_eq!((log.last(), log.state().unwrap()[0]), (id(1, 2), 2));
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Damaged { .. })), "{result:?}");
    refused(log.append(&entries(1, 3..=3), None));
    refused(log.append(&entries(1, 2..=2), None));
    assert!(matches!(log.repair(&entries(1, 2..=2)), Err(Error::NotLost { .. })));
    assert!(matches!(log.repair(&entries(1, 4..=4)), Err(Error::NotConsecutive { .. })));
    log.append(&[], Some(b"vote")).unwrap();
    assert!(!log.is_state_in_doubt());
    log.repair(&view.entries[2..3]).unwrap();
    assert_eq!((log.last(), log.damage()), (id(1, 3), vec![Damage { first: Index::new(4), last: None }]));
    drop(log);
    let (mut log, recovery) = open(dir.path());
    let rest = vec![Damage { first: Index::new(4), last: None }];
    assert_eq!(recovery.report, Report::Damaged { ranges: rest, state_in_doubt: false });
    log.truncate_suffix(Index::new(3)).unwrap();
    log.append(&entries(7, 4..=5), None).unwrap();
    log.sync().unwrap();
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((recovery.report, log.last()), (Report::Clean, id(7, 5)));
    assert_eq!(log.state().as_deref(), Some(&b"vote"[..]));
}

/// A purge drops the files that a repair has made superfluous, and not the repair.
#[test]
fn a_repair_survives_the_purge_of_what_it_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    for index in 1..=60 {
        log.append(&[entry(1, index, 5000)], None).unwrap();
        log.sync().unwrap();
    }
    let view = View::of(&log);
    log.close().unwrap();
    let paths = segments(dir.path());
    flip(&paths[1], BATCHES_AT + 20);
    let (mut log, _) = open(dir.path());
    mend(&mut log, &view);
    let base = view.entries[9].id();
    log.truncate_prefix(base).unwrap();
    log.sync().unwrap();
    let view = View { base, entries: view.entries[10..].to_vec(), state: None };
    assert_eq!(View::of(&log), view);
    drop(log);
    assert_eq!(View::of(&open(dir.path()).0), view);
}

/// Found while the log is open, by a read: repaired the same way.
#[test]
fn what_has_become_unreadable_is_repaired_while_the_log_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), None).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    flip(&segments(dir.path())[0], batch(0) + SECTOR_BYTES + 53 + 40);
    assert!(matches!(log.reader().read(Index::new(2)..Index::new(3), 0), Err(Error::Unreadable { .. })));
    log.repair(&view.entries[1..2]).unwrap();
    assert_eq!(View::of(&log), view);
    log.append(&entries(2, 6..=7), None).unwrap();
    log.sync().unwrap();
    let view = View::of(&log);
    drop(log);
    let (log, recovery) = open(dir.path());
    assert_eq!((View::of(&log), recovery.report), (view, Report::Clean));
}

proptest! {
    #![proptest_config(super::cases(200))]

    /// Any history, then any few flipped bytes, zeroed sectors, unreadable pages and lost segments.
    #[test]
    fn any_damage_can_be_mended(
        steps in proptest::collection::vec(step(), 1..60),
        faults in proptest::collection::vec((0..5u8, any::<u64>(), any::<u64>()), 1..4),
        batch_bytes_max in prop_oneof![Just(0), Just(16 << 10)],
        twice in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { batch_bytes_max, ..SMALL };
        let fs = Arc::new(SimFs::new(1));
        let (mut log, _) = Log::open_with(fs.clone(), dir.path(), options).unwrap();
        let view = apply_all(&steps, &mut log);
        let name = log.id();
        drop(log);
        for (kind, which, at) in &faults {
            let paths = segments(dir.path());
            let which = *which as usize % paths.len();
            let path = &paths[which];
            let mut bytes = fs::read(path).unwrap();
            let Some(end) = bytes.iter().rposition(|&byte| byte != 0) else { continue };
            if *kind == 2 && which + 1 == paths.len() {
                // A sector of the last sync that turns into zeros passes for one that was never written (A5).
                continue;
            }
            let at = *at as usize % (end + 1);
            match kind {
                0 | 1 => bytes[at] ^= 0x20,
                2 => bytes[at / SECTOR_BYTES * SECTOR_BYTES..][..SECTOR_BYTES].fill(0),
                3 => bytes[at / PAGE_BYTES * PAGE_BYTES..][..PAGE_BYTES].fill(0xdb),
                _ => bytes.truncate(at / PAGE_BYTES * PAGE_BYTES),
            }
            fs::write(path, bytes).unwrap();
        }
        // Where no header is left, only the owner knows which log this was.
        expect_log_mended(dir.path(), Options { expect: Some(name), ..SMALL }, &view, twice, "faults");
    }
}
