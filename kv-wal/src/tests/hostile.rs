//! Files that somebody has made to hurt: every checksum matches, and what is under it does not.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use bytes::BytesMut;
use proptest::prelude::*;

use super::damage::history;
use super::{copy_dir, segments};
use crate::format::{PAGE_BYTES, SECTOR_BYTES};
use crate::record::{Entry, Kind};
use crate::testing::{exercise, reseal};

static PRISTINE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    dir
});

/// Makes changes of so many bytes, each at an offset of a segment, and all checksums match.
fn forge(dir: &Path, changes: &[(usize, usize, &[u8])]) {
    for (which, offset, change) in changes {
        let path = &segments(dir)[*which];
        let mut bytes = fs::read(path).unwrap();
        bytes[*offset..offset + change.len()].copy_from_slice(change);
        reseal(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// A base that goes back without a cut, and damage below the base: found by the property below, once in thousands of cases.
#[test]
fn a_base_that_goes_back() {
    const BATCH_BASE: usize = 2 * PAGE_BYTES + 80;
    const DAMAGE_COUNT: usize = 68;
    let dir = copy_dir(PRISTINE.path());
    forge(dir.path(), &[(0, BATCH_BASE, &[5]), (1, BATCH_BASE, &[7])]);
    exercise(dir.path());
    let dir = copy_dir(PRISTINE.path());
    let range = [1_u64, 3].map(u64::to_le_bytes).concat();
    let header = [(2, DAMAGE_COUNT, &[1][..]), (2, SECTOR_BYTES, &range[..]), (1, BATCH_BASE, &[7][..])];
    forge(dir.path(), &[&header[..], &[(2, 72 + 32, &[7][..])]].concat());
    exercise(dir.path());
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
            // Into the first half of a header, where the fields are, or into the first entry.
            let offset = page as usize * PAGE_BYTES + if at < 24 { at * 4 } else { SECTOR_BYTES + (at - 24) };
            let change = &value.to_le_bytes()[..1 << width];
            forge(dir.path(), &[(which as usize % paths.len(), offset, change)]);
        }
        exercise(dir.path());
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
        exercise(dir.path());
    }

    /// Bytes from a wire, entries among them with a byte changed: what decodes encodes to the same bytes.
    #[test]
    fn what_is_no_entry_is_none(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((0..240usize, any::<u8>()), 0..3),
    ) {
        let whole = Entry::encode(&mut BytesMut::new(), super::id(3, 7), 9, Kind(2), &payload);
        let mut bytes = BytesMut::from(&whole.frame()[..]);
        bytes.extend_from_slice(whole.frame());
        for (at, byte) in changes {
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
        }
        let mut rest = bytes.freeze();
        while let Ok(entry) = Entry::split_from(&mut rest) {
            let again =
                Entry::encode(&mut BytesMut::new(), entry.id(), entry.stamp_ms(), entry.kind(), &entry.payload());
            prop_assert_eq!(&again, &entry);
            prop_assert_eq!(entry, whole.clone());
        }
    }
}
