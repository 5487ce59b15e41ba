//! The last write of a log, stopped at every sector: what was durable is there, and the rest is there or cut, without a
//! report of damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::{SMALL, View, copy_dir, entries, entry, open, segments};
use crate::format::SECTOR_BYTES;
use crate::record::Index;
use crate::testing::SimFs;
use crate::{Log, Options};

/// A log before and after its last sync, which wrote three batches.
struct LastWrite {
    before: tempfile::TempDir,
    segment: PathBuf,
    after: Vec<u8>,
    /// Sectors in which they differ.
    sectors: Vec<usize>,
    /// What may be found: nothing of the last sync, one batch of it, two, all.
    views: Vec<View>,
}

impl LastWrite {
    fn new() -> LastWrite {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path(), Options { batch_bytes_max: 0, ..SMALL }).unwrap();
        log.append(&entries(1, 1..=5), Some(b"old")).unwrap();
        log.sync().unwrap();
        let mut views = vec![View::of(&log)];
        let before = copy_dir(dir.path());
        let changes = [vec![entry(2, 4, 1500), entry(2, 5, 3000)], vec![entry(2, 6, 0)], vec![entry(2, 7, 5000)]];
        for (change, state) in changes.iter().zip([b"aaa", b"bbb", b"ccc"]) {
            log.append(change, Some(state)).unwrap();
            let mut view = views.last().unwrap().clone();
            view.entries.retain(|entry| entry.index() < change[0].index());
            view.entries.extend_from_slice(change);
            view.state = Some(bytes::Bytes::from_static(state));
            views.push(view);
        }
        log.sync().unwrap();
        assert_eq!(&View::of(&log), views.last().unwrap());
        drop(log);
        let segment = segments(dir.path()).pop().unwrap();
        let (old, after) =
            (fs::read(before.path().join(segment.file_name().unwrap())).unwrap(), fs::read(&segment).unwrap());
        let pairs = old.chunks(SECTOR_BYTES).zip(after.chunks(SECTOR_BYTES)).enumerate();
        let sectors = pairs.filter(|(_, (old, new))| old != new).map(|(sector, _)| sector).collect();
        LastWrite { before, segment, after, sectors, views }
    }

    /// Opens the log as it is when only the sectors that `reached` says were written. Gives the number of batches found.
    fn stop(&self, reached: impl Fn(usize) -> bool) -> usize {
        let dir = copy_dir(self.before.path());
        self.write(dir.path(), &reached);
        let (log, recovery) = open(dir.path());
        assert!(!recovery.is_damaged(), "{recovery:?}");
        let view = View::of(&log);
        let found = self.views.iter().position(|possible| *possible == view).expect("a prefix of the batches");
        drop(log);
        // And it is still there the next time.
        assert_eq!(View::of(&open(dir.path()).0), view);
        found
    }

    fn write(&self, dir: &Path, reached: impl Fn(usize) -> bool) {
        let path = dir.join(self.segment.file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        for (_, &sector) in self.sectors.iter().enumerate().filter(|(at, _)| reached(*at)) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            bytes[range.clone()].copy_from_slice(&self.after[range]);
        }
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_write_stopped_after_any_sector_leaves_whole_batches() {
    let write = LastWrite::new();
    let count = write.sectors.len();
    let found: Vec<usize> = (0..=count).map(|stop| write.stop(|at| at < stop)).collect();
    assert!(found.is_sorted(), "more written, more found: {found:?}");
    assert_eq!((found[0], found[count]), (0, 3));
    assert!(found.contains(&1) && found.contains(&2));
}

#[test]
pub(super) fn a_write_that_misses_any_one_sector_is_cut_there() {
    let write = LastWrite::new();
    for missing in 0..write.sectors.len() {
        assert!(write.stop(|at| at != missing) < 3, "sector {missing}");
    }
}

/// Not as disks do it (A1), but as a copy that was cut short: what the sync covered is never lost without a word, and what
/// is not whole is never accepted.
#[test]
fn a_last_batch_cut_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    log.append(&entries(1, 1..=5), Some(b"old")).unwrap();
    log.sync().unwrap();
    let before = View::of(&log);
    log.append(&entries(1, 6..=8), Some(b"new")).unwrap();
    log.sync().unwrap();
    let after = View::of(&log);
    drop(log);
    let path = segments(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let (mut torn, mut damaged) = (0, 0);
    for cut in super::damage::batch(1)..end {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        let is_whole = bytes == whole;
        fs::write(&path, bytes).unwrap();
        let disk = SimFs::over(dir.path()).unwrap();
        let (log, recovery) = Log::open_with(Arc::new(disk), dir.path(), SMALL).unwrap();
        if is_whole {
            assert_eq!(View::of(&log), after, "cut {cut} took zeros only");
            continue;
        }
        *(if recovery.is_damaged() { &mut damaged } else { &mut torn }) += 1;
        assert_eq!(log.reader().read(Index::new(1)..Index::new(9), usize::MAX).unwrap(), before.entries, "cut {cut}");
        // Of a batch that counts as acknowledged, the header alone has the state.
        assert!([&before.state, &after.state].contains(&&log.state()), "cut {cut}");
        drop(log);
        for stray in segments(dir.path()).split_off(1) {
            fs::remove_file(stray).unwrap();
        }
    }
    assert!(torn > 8 && damaged > 300, "{torn} torn, {damaged} damaged");
}

proptest! {
    #![proptest_config(super::cases(40))]

    #[test]
    fn a_write_of_which_any_sectors_arrived_is_cut_to_whole_batches(reached in any::<u64>()) {
        LastWrite::new().stop(|at| reached >> (at % 64) & 1 == 1);
    }
}
