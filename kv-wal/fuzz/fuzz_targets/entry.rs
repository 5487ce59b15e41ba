//! Bytes from a wire: what decodes as an entry encodes to the same bytes, and nothing panics.

#![no_main]

use bytes::{Bytes, BytesMut};
use kv_wal::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = Bytes::copy_from_slice(data);
    while let Ok(entry) = Entry::split_from(&mut rest) {
        let (id, stamp_ms, kind, payload) = (entry.id(), entry.stamp_ms(), entry.kind(), entry.payload());
        assert_eq!(Entry::encode(&mut BytesMut::new(), id, stamp_ms, kind, &payload), entry);
    }
});
