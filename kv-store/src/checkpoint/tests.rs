use std::path::Path;

use kv_wal::{Index, Term};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::op::{Condition, Deadline, Op, PutManyCondition};
use crate::store::Store;

fn put(store: &mut Store, index: u64, key: &[u8], value: &[u8]) {
    put_until(store, index, key, value, Deadline::None);
}

fn put_until(store: &mut Store, index: u64, key: &[u8], value: &[u8], deadline: Deadline) {
    let op = Op::Put { key, value, condition: Condition::Always, deadline, want_previous: false };
    store.apply(Index::new(index), 1000, &op.encode().unwrap());
}

fn meta(blob: &[u8]) -> CheckpointMeta {
    CheckpointMeta { last: EntryId::new(Term::new(3), Index::new(99)), blob: Bytes::copy_from_slice(blob) }
}

fn bytes_of(store: &Store, meta: &CheckpointMeta) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&store.view(), meta, &mut bytes).unwrap();
    bytes
}

/// A few pairs, of which one was written again and one has expired, a clock, a limit, and a blob.
fn small() -> Vec<u8> {
    let mut store = Store::new([0x5A; 32]);
    put(&mut store, 1, b"", b"the empty key");
    put(&mut store, 2, b"key", b"first");
    put(&mut store, 3, b"key", b"second");
    let many = Op::PutMany { pairs: vec![(b"a", b"1"), (b"b", b"")], condition: PutManyCondition::Always };
    store.apply(Index::new(4), 1000, &many.encode().unwrap());
    put_until(&mut store, 5, b"late", b"still stored", Deadline::At(2000));
    store.apply(Index::new(6), 1000, &Op::SetMemoryLimit { bytes: Some(1 << 20) }.encode().unwrap());
    store.state.clock_ms = 2000;
    bytes_of(&store, &meta(b"blob of the caller"))
}

fn check_round_trip(store: &Store, meta: &CheckpointMeta) {
    let bytes = bytes_of(store, meta);
    let (again, meta_again) = read(&mut &bytes[..]).unwrap();
    assert_eq!(meta_again, *meta);
    assert!(again.stored().eq(store.stored()));
    assert_eq!(again.digest(), store.digest());
    assert_eq!(again.clock_ms(), store.clock_ms());
    assert_eq!(again.memory_limit_bytes(), store.memory_limit_bytes());
    assert_eq!(again.next_deadline_ms(), store.next_deadline_ms());
    again.invariants();
    assert_eq!(bytes_of(&again, meta), bytes, "the bytes do not depend on the shape of the tree");
}

/// A checksum repaired after damage, so that the checks behind it are met.
fn with_block_checksum_repaired(mut bytes: Vec<u8>, block: usize) -> Vec<u8> {
    let body = u32::from_le_bytes(bytes[block + 1..block + 5].try_into().unwrap()) as usize;
    let kind = format::Kind::of_byte(bytes[block]).unwrap();
    let crc = format::block_checksum(kind, &bytes[block + 9..block + 9 + body]);
    bytes[block + 5..block + 9].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// `KV_UPDATE_GOLDEN=1` rewrites the file; do so only together with a new format version.
#[test]
fn golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/checkpoint-v2.kvckpt");
    if std::env::var_os("KV_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, small()).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(small(), golden);
    let (store, meta_read) = read(&mut &golden[..]).unwrap();
    assert_eq!(meta_read, meta(b"blob of the caller"));
    assert_eq!(store.get(b"key").unwrap().value, b"second");
    assert_eq!(store.get(b"key").unwrap().created, Index::new(2));
    assert_eq!(store.get(b"late"), None);
    assert_eq!((store.clock_ms(), store.next_deadline_ms()), (2000, Some(2000)));
    assert_eq!(store.memory_limit_bytes(), Some(1 << 20));
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = small();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&mut &bad[..]).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_refused_as_one() {
    let good = small();
    for cut in 0..good.len() {
        let error = read(&mut &good[..cut]).unwrap_err();
        let CheckpointError::Io(error) = error else { panic!("cut at {cut}: {error}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(read(&mut &longer[..]), Err(CheckpointError::Trailing)));
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    for version in [1, 3] {
        let mut other = small();
        other[8] = version;
        let error = read(&mut &other[..]).unwrap_err();
        assert!(matches!(error, CheckpointError::Malformed { part: Part::Header }), "all but the version is ours");
        other[20] ^= 1;
        let error = read(&mut &other[..]).unwrap_err();
        assert!(matches!(error, CheckpointError::UnknownVersion { found } if found == u32::from(version)));
    }
    let other = read(&mut &[b'x'; 100][..]);
    assert!(matches!(other, Err(CheckpointError::NotACheckpoint { found: [b'x', ..] })));
}

/// Damage that a checksum over it cannot show: the writer itself was wrong.
#[test]
fn checksums_that_match_are_not_enough() {
    let good = small();
    let blob_block = format::HEADER_BYTES;
    let pairs_block = blob_block + format::BLOCK_HEADER_BYTES + b"blob of the caller".len();
    let first_key_bytes = pairs_block + format::BLOCK_HEADER_BYTES;

    let mut blob_after_pairs = good[..blob_block].to_vec();
    blob_after_pairs.extend(&good[pairs_block..good.len() - 73]);
    blob_after_pairs.extend(&good[blob_block..pairs_block]);
    let part = Part::Block(1);
    assert!(matches!(read(&mut &blob_after_pairs[..]), Err(CheckpointError::Malformed { part: p }) if p == part));

    let mut huge_key = good.clone();
    huge_key[first_key_bytes + 3] = 1;
    let huge_key = with_block_checksum_repaired(huge_key, pairs_block);
    assert!(matches!(read(&mut &huge_key[..]), Err(CheckpointError::Malformed { part: p }) if p == part));

    // The third key, "b", becomes one before or the same as the second.
    let third = first_key_bytes + 3 * format::PAIR_HEADER_BYTES + b"the empty key".len() + b"a1".len();
    for key in [b'A', b'a'] {
        let mut unsorted = good.clone();
        unsorted[third] = key;
        let unsorted = with_block_checksum_repaired(unsorted, pairs_block);
        assert!(matches!(read(&mut &unsorted[..]), Err(CheckpointError::Order { part: p }) if p == part));
    }

    let mut huge_block = good.clone();
    huge_block[pairs_block + 4] = 0xFF;
    assert!(matches!(read(&mut &huge_block[..]), Err(CheckpointError::Malformed { part: p }) if p == part));
}

/// A limit of which the header says two things, under a checksum that fits.
#[test]
fn a_limit_is_there_or_is_zero() {
    for (limited, limit) in [(2, 5), (2, 0), (0, 5)] {
        let mut bytes = small();
        bytes[72..80].copy_from_slice(&u64::to_le_bytes(limit));
        bytes[80] = limited;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..format::HEADER_BYTES]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(read(&mut &bytes[..]), Err(CheckpointError::Malformed { part: Part::Header })));
    }
}

/// A footer that does not fit the pairs, under a hash that fits the footer.
#[test]
fn the_footer_is_checked_against_the_pairs() {
    let with_footer_changed = |at: usize| {
        let mut bytes = small();
        let footer = bytes.len() - 73;
        bytes[footer + at] ^= 1;
        let hash = bytes.len() - 32;
        let (header, body) = (*bytes.first_chunk().unwrap(), bytes[footer + 1..hash].try_into().unwrap());
        bytes[hash..].copy_from_slice(&format::hash(&header, b"blob of the caller", &body));
        read(&mut &bytes[..]).unwrap_err()
    };
    assert!(matches!(with_footer_changed(1), CheckpointError::Count { found: 4, computed: 5 }));
    assert!(matches!(with_footer_changed(9), CheckpointError::Sum));
}

/// Each of them has a checksum that fits.
#[test]
fn blocks_that_are_dropped_doubled_or_exchanged_are_found() {
    let mut store = Store::new([2; 32]);
    for number in 0..2000u64 {
        put(&mut store, number + 1, &number.to_be_bytes(), &[0; 100]);
    }
    let mut good = Vec::new();
    let blob: Vec<u8> = (0..3 * format::BLOCK_BYTES).map(|at| (at / format::BLOCK_BYTES) as u8).collect();
    write(&store.view(), &meta(&blob), &mut good).unwrap();
    let mut blocks = Vec::new();
    let mut at = format::HEADER_BYTES;
    while good[at] != format::Kind::Footer.byte() {
        let length = u32::from_le_bytes(good[at + 1..at + 5].try_into().unwrap()) as usize;
        blocks.push(&good[at..at + format::BLOCK_HEADER_BYTES + length]);
        at += format::BLOCK_HEADER_BYTES + length;
    }
    assert!(blocks.len() > 6, "three of the blob, some of pairs");
    let made_of = |blocks: &[&[u8]]| [&good[..format::HEADER_BYTES], &blocks.concat(), &good[at..]].concat();
    assert!(read(&mut &made_of(&blocks)[..]).is_ok());
    for number in 0..blocks.len() {
        let mut dropped = blocks.clone();
        dropped.remove(number);
        let mut doubled = blocks.clone();
        doubled.insert(number, blocks[number]);
        let mut exchanged = blocks.clone();
        exchanged.swap(number, (number + 1) % blocks.len());
        for wrong in [dropped, doubled, exchanged] {
            assert!(read(&mut &made_of(&wrong)[..]).is_err(), "block {number}");
        }
    }
}

#[test]
fn empty_and_large_states_survive() {
    let empty = Store::new([1; 32]);
    check_round_trip(&empty, &CheckpointMeta::default());
    // More than one block of the blob, pairs larger than a block, and the longest key.
    let mut large = Store::new([2; 32]);
    put(&mut large, 1, &vec![b'k'; crate::KEY_BYTES_MAX], &vec![b'v'; 3 * format::BLOCK_BYTES]);
    for number in 0..2000u64 {
        put(&mut large, number, &number.to_be_bytes(), &[0; 100]);
    }
    check_round_trip(&large, &meta(&vec![b'b'; 2 * format::BLOCK_BYTES + 1]));
}

/// A reader that gives a byte at a time, as a socket may.
struct Trickle<'a>(&'a [u8]);

impl io::Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(1);
        self.0.read(&mut out[..count])
    }
}

#[test]
fn a_trickle_is_read_like_a_flood() {
    let bytes = small();
    assert_eq!(read(&mut Trickle(&bytes)).unwrap().0.len(), 5);
}

proptest! {
    #[test]
    fn every_state_survives(
        pairs in btree_map(vec(any::<u8>(), 0..6), (vec(any::<u8>(), 0..50), any::<u64>(), 0u64..4000), 0..100),
        blob in vec(any::<u8>(), 0..100),
        clock_ms in 1000u64..4000,
        limit in proptest::option::of(any::<u64>()),
    ) {
        let mut store = Store::new([4; 32]);
        for (key, (value, index, deadline_ms)) in &pairs {
            let deadline = if deadline_ms % 2 == 0 { Deadline::None } else { Deadline::At(*deadline_ms) };
            put_until(&mut store, *index, key, value, deadline);
        }
        store.apply(Index::new(1), clock_ms, &Op::SetMemoryLimit { bytes: limit }.encode().unwrap());
        check_round_trip(&store, &meta(&blob));
    }

    #[test]
    fn arbitrary_bytes_after_a_good_header_never_panic(rest in vec(0u8..6, 0..200)) {
        let bytes = [&small()[..format::HEADER_BYTES], &rest].concat();
        prop_assert!(read(&mut &bytes[..]).is_err());
    }
}
