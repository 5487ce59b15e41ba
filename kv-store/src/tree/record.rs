//! A pair as it lies in a leaf.
//!
//! ```text
//! record := flags:u8  index  [created]  [op:u32]  [deadline:u64]  key length  key  value, to the end
//! flags  := bits 0-2: bytes of `index` and `created`, less one   bit 3: created is there, and is not the index of the version
//!           bit 4: op is there, and is not 0   bit 5: deadline is there
//! ```
//!
//! All integers are little-endian; the length of the key is one byte, or 255 and a u32. Records are in memory only: no other
//! file, and no other version, ever sees one.

use kv_wal::Index;

use crate::pair::{PairRef, Version};

const WIDTH: u8 = 0b111;
const HAS_CREATED: u8 = 1 << 3;
const HAS_OP: u8 = 1 << 4;
const HAS_DEADLINE: u8 = 1 << 5;

/// In place of a key length that is in the four bytes after it.
const LONG_KEY: u8 = u8::MAX;

/// How a record is laid out.
struct Layout {
    flags: u8,
    /// Bytes of an index.
    width: usize,
    /// Where the length of the key is.
    key_length_at: usize,
}

impl Layout {
    fn of_flags(flags: u8) -> Layout {
        let width = usize::from(flags & WIDTH) + 1;
        let if_set = |flag: u8, bytes: usize| if flags & flag == 0 { 0 } else { bytes };
        let optional = if_set(HAS_CREATED, width) + if_set(HAS_OP, 4) + if_set(HAS_DEADLINE, 8);
        Layout { flags, width, key_length_at: 1 + width + optional }
    }

    fn of(pair: &PairRef<'_>) -> Layout {
        let greatest = pair.version.index.get().max(pair.created.get());
        let width = (u64::BITS - (greatest | 1).leading_zeros()).div_ceil(8) as u8;
        let if_so = |holds: bool, flag: u8| if holds { flag } else { 0 };
        let created = if_so(pair.created != pair.version.index, HAS_CREATED);
        let op = if_so(pair.version.op != 0, HAS_OP);
        let deadline = if_so(pair.deadline_ms.is_some(), HAS_DEADLINE);
        Layout::of_flags((width - 1) | created | op | deadline)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The length of the record of a pair.
pub(super) fn bytes(key: &[u8], pair: &PairRef<'_>) -> usize {
    let length_bytes = if key.len() < usize::from(LONG_KEY) { 1 } else { 5 };
    Layout::of(pair).key_length_at + length_bytes + key.len() + pair.value.len()
}

/// Writes the record of a pair into `out`, which is as long as [`bytes`] says.
pub(super) fn write(key: &[u8], pair: &PairRef<'_>, out: &mut [u8]) {
    let layout = Layout::of(pair);
    let mut rest = out;
    let mut put = |bytes: &[u8]| {
        let (place, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        rest = after;
    };
    put(&[layout.flags]);
    put(&pair.version.index.get().to_le_bytes()[..layout.width]);
    if layout.has(HAS_CREATED) {
        put(&pair.created.get().to_le_bytes()[..layout.width]);
    }
    if layout.has(HAS_OP) {
        put(&pair.version.op.to_le_bytes());
    }
    if let Some(deadline_ms) = pair.deadline_ms {
        put(&deadline_ms.to_le_bytes());
    }
    if key.len() < usize::from(LONG_KEY) {
        put(&[key.len() as u8]);
    } else {
        put(&[LONG_KEY]);
        put(&(key.len() as u32).to_le_bytes());
    }
    put(key);
    put(pair.value);
    assert!(rest.is_empty(), "a record is as long as it was said to be");
}

/// Key and value of a record.
fn key_and_value<'a>(record: &'a [u8], layout: &Layout) -> (&'a [u8], &'a [u8]) {
    let (length, rest) = record[layout.key_length_at..].split_first().expect("a record has a key length");
    if *length != LONG_KEY {
        return rest.split_at(usize::from(*length));
    }
    let (length, rest) = rest.split_first_chunk::<4>().expect("a long key has a long length");
    rest.split_at(u32::from_le_bytes(*length) as usize)
}

/// The key of a record.
pub(super) fn key(record: &[u8]) -> &[u8] {
    key_and_value(record, &Layout::of_flags(record[0])).0
}

/// The number in the first `bytes` bytes. Nearly always there are eight, to be taken at once.
fn number(fields: &[u8], bytes: usize) -> u64 {
    let all = match fields.first_chunk::<8>() {
        Some(eight) => *eight,
        None => {
            let mut eight = [0; 8];
            eight[..bytes].copy_from_slice(&fields[..bytes]);
            eight
        }
    };
    u64::from_le_bytes(all) & u64::MAX >> (u64::BITS as usize - bytes * 8)
}

/// What a record says.
pub(super) fn read(record: &[u8]) -> (&[u8], PairRef<'_>) {
    let layout = Layout::of_flags(record[0]);
    let mut at = 1;
    let mut number = |bytes: usize| {
        let number = number(&record[at..], bytes);
        at += bytes;
        number
    };
    let index = Index::new(number(layout.width));
    let created = if layout.has(HAS_CREATED) { Index::new(number(layout.width)) } else { index };
    let op = if layout.has(HAS_OP) { number(4) as u32 } else { 0 };
    let deadline_ms = layout.has(HAS_DEADLINE).then(|| number(8));
    let (key, value) = key_and_value(record, &layout);
    (key, PairRef::new(value, Version { index, op }, created, deadline_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key_bytes in prop_oneof![0usize..4, 250usize..260, Just(70_000)],
            value in proptest::collection::vec(any::<u8>(), 0..9),
            numbers in proptest::array::uniform2(prop_oneof![Just(0u64), any::<u64>(), (0u32..64).prop_map(|bit| 1 << bit)]),
            is_new in any::<bool>(),
            op in prop_oneof![Just(0), any::<u32>()],
            deadline_ms in proptest::option::of(any::<u64>()),
        ) {
            let key = vec![7; key_bytes];
            let [index, created] = numbers.map(Index::new);
            let created = if is_new { index } else { created };
            let pair = PairRef::new(&value, Version { index, op }, created, deadline_ms);
            let mut record = vec![0xaa; bytes(&key, &pair)];
            write(&key, &pair, &mut record);
            prop_assert_eq!(super::key(&record), &key[..]);
            prop_assert_eq!(read(&record), (&key[..], pair));
        }
    }

    /// What most pairs are.
    #[test]
    fn a_record_is_short() {
        let index = Index::new(3_000_000_000);
        let pair = PairRef::new(b"", Version { index, op: 0 }, index, None);
        assert_eq!(bytes(b"", &pair), 6);
        let again = PairRef::new(b"", pair.version, Index::new(5), None);
        assert_eq!(bytes(b"", &again), 10);
    }
}
