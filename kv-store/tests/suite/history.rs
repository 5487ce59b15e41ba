//! A fixed history has fixed hashes. If one of these numbers changes, replicas of different builds diverge, and a
//! restored checkpoint no longer agrees with the cluster: that needs a new feature level, not new numbers here.

use std::path::Path;

use kv_store::{CheckpointMeta, Index, Store, checkpoint};

use crate::commands::{Numbers, Place, command, stamp_ms};

const ENTRIES: u64 = 6000;
const KEYS: u64 = 500;

/// The states, hashed, and a checksum over all outcomes so far, every so many entries.
const EVERY: u64 = 250;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The next entry of the history, whose commands depend on nothing but the numbers.
fn entry(numbers: &mut Numbers, index: u64, clock_ms: &mut u64) -> (u64, Vec<u8>) {
    let stamp_ms = stamp_ms(numbers, *clock_ms);
    *clock_ms = stamp_ms.max(*clock_ms);
    (stamp_ms, command(numbers, Place { index, clock_ms: *clock_ms, keys: KEYS, memory_bytes: 30_000 }))
}

/// One line for every so many entries.
fn transcript() -> String {
    let (mut store, mut numbers, mut clock_ms) = (Store::new([0x42; 32]), Numbers(42), 0);
    let mut lines = String::from("index stored state outcomes\n");
    let mut outcomes = Vec::new();
    for index in 1..=ENTRIES {
        let (stamp_ms, command) = entry(&mut numbers, index, &mut clock_ms);
        store.apply(Index::new(index), stamp_ms, &command).encode(&mut outcomes);
        if index % EVERY == 0 {
            let (state, crc) = (hex(&store.digest()), crc32c::crc32c(&outcomes));
            lines += &format!("{index} {} {state} {crc:08x}\n", store.len());
        }
    }
    assert_eq!(store.audit(), store.range_digest(b"", None));
    lines
}

/// `KV_UPDATE_GOLDEN=1` rewrites the file; do so only together with a new format version.
#[test]
fn a_fixed_history_has_fixed_hashes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/history-v2.txt");
    let transcript = transcript();
    if std::env::var_os("KV_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &transcript).expect("writable");
    }
    let golden = std::fs::read_to_string(&path).expect("readable");
    for (found, expected) in transcript.lines().zip(golden.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(transcript.len(), golden.len());
}

#[test]
fn the_secret_does_not_show_in_the_empty_state() {
    assert_eq!(Store::new([1; 32]).digest(), Store::new([2; 32]).digest());
}

/// A replica that takes a checkpoint on the way ends where one ends that replays everything.
#[test]
fn a_restored_replica_goes_on_like_the_others() {
    let (mut numbers, mut clock_ms) = (Numbers(7), 0);
    let (mut replayed, mut restored) = (Store::new([5; 32]), Store::new([5; 32]));
    let mut most = 0;
    for index in 1..=ENTRIES {
        let (stamp_ms, command) = entry(&mut numbers, index, &mut clock_ms);
        let outcome = replayed.apply(Index::new(index), stamp_ms, &command);
        assert_eq!(restored.apply(Index::new(index), stamp_ms, &command), outcome);
        most = most.max(replayed.len());
        if index % 500 == 0 {
            let mut bytes = Vec::new();
            checkpoint::write(&restored.view(), &CheckpointMeta::default(), &mut bytes).expect("memory");
            restored = checkpoint::read(&mut &bytes[..]).expect("undamaged").0;
        }
    }
    assert!(most > 200, "a history of some size: {most}");
    assert_eq!(restored.digest(), replayed.digest());
    assert!(restored.stored().eq(replayed.stored()));
}
