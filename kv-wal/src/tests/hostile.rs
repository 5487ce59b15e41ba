//! Files that somebody has made to hurt: every checksum matches, and what is under it does not.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::damage::history;
use super::{SMALL, copy_dir, entry, segments};
use crate::format::{PAGE_BYTES, SECTOR_BYTES};
use crate::record::Index;
use crate::testing::{SimFs, reseal};
use crate::{Log, scan};

static PRISTINE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    dir
});

/// Does with a log whatever one can do. Errors are fine, and so are wrong entries: nobody else vouches for these files.
fn use_it(dir: &Path) {
    if let Ok(scanned) = scan(dir) {
        let _ = scanned.entry(scanned.recovery.last.index);
        let _ = scanned.recovery.to_string();
    }
    let Ok((mut log, _)) = Log::open_with(Arc::new(SimFs::over(dir).unwrap()), dir, SMALL) else { return };
    let reader = log.reader();
    for index in [log.base().index, log.last().index, Index::new(5), Index::new(u64::MAX)] {
        let _ = (reader.get(index), reader.term(index));
        let _ = reader.read(index.prev()..index.plus(3), 1 << 20);
    }
    let _ = (reader.iter(Index::ZERO..Index::new(u64::MAX)).take(100).count(), reader.term_runs(), log.damage());
    let mut scrubber = log.scrubber();
    while !scrubber.step(1 << 20).unwrap().finished {}
    if let Some(damage) = log.damage().first() {
        let _ = log.repair(&[entry(1, damage.first.get().min(1 << 40), 10)]);
    }
    let _ = log.append(&[], Some(b"state"));
    let _ = log.sync();
    let _ = log.truncate_suffix(log.last().index.prev());
    let _ = log.truncate_prefix(log.last());
    let _ = log.reset(log.last());
    let _ = log.append(&[entry(1, log.last().index.get().saturating_add(1), 10)], None);
    let _ = log.sync();
    drop(log);
    drop(Log::open_with(Arc::new(SimFs::over(dir).unwrap()), dir, SMALL));
}

/// What is worth a try in place of eight bytes.
fn value() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 7, 255, 4096, 1 << 16, 1 << 30, 1 << 32, u64::MAX / 2, u64::MAX - 2, u64::MAX - 1, u64::MAX];
    prop_oneof![proptest::sample::select(edges.to_vec()), any::<u64>(), 0..40u64]
}

proptest! {
    #![proptest_config(super::cases(300))]

    /// Fields of headers and of entries are changed, and all checksums made to match.
    #[test]
    fn what_has_a_checksum_may_still_lie(
        changes in proptest::collection::vec((any::<u64>(), 0..8u64, 0..60usize, 0..4u8, value()), 1..6),
    ) {
        let dir = copy_dir(PRISTINE.path());
        for (which, page, at, width, value) in changes {
            let paths = segments(dir.path());
            let path = &paths[which as usize % paths.len()];
            let mut bytes = fs::read(path).unwrap();
            // Into the first half of a header, where the fields are, or into the first entry.
            let offset = page as usize * PAGE_BYTES + if at < 24 { at * 4 } else { SECTOR_BYTES + (at - 24) };
            let width = 1 << width;
            bytes[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
            reseal(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
        use_it(dir.path());
    }

    /// Files of nothing but noise, with and without a header that is right.
    #[test]
    fn noise_is_no_log(noise in proptest::collection::vec(any::<u8>(), 0..20_000), header in any::<bool>()) {
        let dir = copy_dir(PRISTINE.path());
        let path = segments(dir.path()).pop().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let start = if header { 2 * PAGE_BYTES } else { 0 };
        bytes[start..start + noise.len()].copy_from_slice(&noise);
        fs::write(&path, bytes).unwrap();
        use_it(dir.path());
    }
}
