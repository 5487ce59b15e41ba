//! A segment file of any bytes, as it is and with all its checksums made to match: opening, reading, scrubbing, repairing
//! and writing it does not panic.

#![no_main]

use std::fs;

use kv_wal::testing::{exercise, reseal};
use libfuzzer_sys::fuzz_target;

/// Where a segment header has the number that the file's name must tell.
const SEQ_AT: usize = 32;

fuzz_target!(|data: &[u8]| {
    let seq = data.get(SEQ_AT..SEQ_AT + 8).map_or(1, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let mut sealed = data.to_vec();
    reseal(&mut sealed);
    for bytes in [data, &sealed] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(format!("{seq:016x}.wal")), bytes).expect("room for a file");
        exercise(dir.path());
    }
});
