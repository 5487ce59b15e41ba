//! A scan tells what opening would find, and leaves every byte as it is.

use std::fs;
use std::path::Path;

use super::damage::{batch, flip, history};
use super::{SMALL, View, copy_dir, open, segments};
use crate::format::{PAGE_BYTES, SECTOR_BYTES};
use crate::record::Index;
use crate::{Error, ScannedHeader, Verdict, scan};

fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        (path.clone(), fs::read(&path).unwrap(), modified)
    };
    paths.into_iter().map(read).collect()
}

/// Any damage: the scan changes nothing, and opening then finds what it said.
fn expect_told(dir: &Path, view: &View, what: &str) -> crate::Scan {
    let before = contents(dir);
    let scanned = scan(dir).unwrap();
    assert_eq!(contents(dir), before, "{what}: nothing is changed");
    for entry in &view.entries {
        match scanned.entry(entry.index()) {
            Ok(found) => assert_eq!(&found, entry, "{what}"),
            Err(Error::Damaged { .. }) => assert!(scanned.recovery.is_damaged(), "{what}"),
            Err(error) => assert!(entry.index() > scanned.recovery.last.index, "{what}: {error}"),
        }
    }
    let copy = copy_dir(dir);
    assert_eq!(open(copy.path()).1, scanned.recovery, "{what}");
    scanned
}

#[test]
fn a_scan_tells_what_opening_would_find() {
    let dir = tempfile::tempdir().unwrap();
    let view = history(dir.path());
    let sound = expect_told(dir.path(), &view, "sound");
    let batches = |scan: &crate::Scan| -> Vec<usize> { scan.segments.iter().map(|s| s.batches.len()).collect() };
    assert_eq!(batches(&sound), [6, 1, 2]);
    assert!(sound.segments.iter().flat_map(|s| &s.batches).all(|batch| batch.verdict == Verdict::Accept));
    let header = sound.segments[0].batches[2].header.as_ref().unwrap();
    assert_eq!((header.entries, header.first, header.cuts), (3, Index::new(4), true));
    assert_eq!(header.state.as_deref(), Some(&b"two"[..]));
    assert!(matches!(sound.segments[1].header, ScannedHeader::Sound { next_batch: 7, .. }));

    let damaged = copy_dir(dir.path());
    flip(&segments(damaged.path())[0], batch(2) + 20);
    flip(&segments(damaged.path())[0], batch(3) + SECTOR_BYTES + 40);
    let scanned = expect_told(damaged.path(), &view, "two batches damaged");
    let told: Vec<_> = scanned.segments[0].batches.iter().map(|b| (b.verdict, b.header.is_some())).collect();
    assert_eq!((told[2], told[3]), ((Verdict::Damaged, false), (Verdict::Damaged, true)));

    let torn = copy_dir(dir.path());
    let path = segments(torn.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[batch(1) + SECTOR_BYTES..].fill(0);
    fs::write(&path, bytes).unwrap();
    let scanned = expect_told(torn.path(), &view, "torn");
    assert_eq!(scanned.segments[2].batches[1].verdict, Verdict::Torn);

    let headless = copy_dir(dir.path());
    for path in segments(headless.path()) {
        flip(&path, 77);
        flip(&path, PAGE_BYTES + 77);
    }
    let scanned = scan(headless.path()).unwrap();
    assert!(scanned.id.is_none() && scanned.recovery.is_damaged());
    assert!(scanned.segments.iter().all(|segment| segment.header == ScannedHeader::Unreadable));
}

#[test]
fn segments_of_others_and_of_the_future_are_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let view = history(dir.path());
    let (log, _) = open(other.path());
    let foreign = log.id();
    drop(log);
    let stray = segments(other.path()).remove(0);
    let mut bytes = fs::read(&stray).unwrap();
    fs::rename(&segments(dir.path())[0], dir.path().join("moved")).unwrap();
    fs::write(dir.path().join("0000000000000001.wal"), &bytes).unwrap();
    let scanned = scan(dir.path()).unwrap();
    // The first that can be read names the log.
    assert_eq!(scanned.id, Some(foreign));
    assert!(matches!(scanned.segments[1].header, ScannedHeader::Foreign { .. }));
    assert!(matches!(crate::Log::open(dir.path(), SMALL), Err(Error::ForeignSegment { .. })));

    crate::format::set_version(&mut bytes, 99);
    fs::write(dir.path().join("0000000000000001.wal"), &bytes).unwrap();
    let scanned = scan(dir.path()).unwrap();
    assert_eq!(scanned.segments[0].header, ScannedHeader::Version { found: 99 });
    assert_eq!(scanned.entry(Index::new(11)).unwrap(), view.entries[10]);
    assert!(matches!(scan(&dir.path().join("none")), Err(Error::Io { .. })));
}

/// A log that is open can be looked at: its prepared segment is there too.
#[test]
fn an_open_log_can_be_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = crate::Log::open(dir.path(), crate::Options { prepare_ahead: true, ..SMALL }).unwrap();
    log.append(&super::entries(1, 1..=3), Some(b"vote")).unwrap();
    log.sync().unwrap();
    let scanned = scan(dir.path()).unwrap();
    assert_eq!((scanned.id, scanned.recovery.last), (Some(log.id()), log.last()));
    assert!(scanned.segments[1..].iter().all(|segment| segment.header == ScannedHeader::Blank));
}
