//! The one encoding of an entry, in the log and on the wire alike.
//!
//! An entry is encoded once, by the leader when it appends, and the same bytes are then in the leader's log, in an
//! AppendEntries frame and in the follower's log. The checksum is computed once and checked at every hop and on every
//! read long after.
//!
//! ```text
//!  0        4        8               16              24              32    33
//!  +--------+--------+---------------+---------------+---------------+-----+-------------------+
//!  | length | crc32c |     index     |     term      |   stamp, ms   |kind | payload           |
//!  +--------+--------+---------------+---------------+---------------+-----+-------------------+
//!     u32      u32          u64             u64             u64         u8    `length` bytes
//! ```
//!
//! All integers are little-endian. `length` counts the payload only. The checksum covers the four length bytes and
//! everything after the checksum field, so every byte of the frame is covered.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 33;

/// Largest payload that can be encoded, in bytes. Smaller limits are set by configuration.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Position of an entry in the log. The first entry has index 1; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u64);

/// A leader's period of office (Raft paper, section 5.1). 0 is before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

/// Names an entry: no two entries of a cluster share one (Log Matching, Raft paper, section 5.3).
///
/// Ordered as Raft compares logs: by term, then by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that wrote the entry.
    pub term: Term,
    /// Position in the log.
    pub index: Index,
}

/// What an entry is for. The log stores it and gives it no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Index {
    /// Before the first entry.
    pub const ZERO: Index = Index(0);

    /// The position with this number.
    pub const fn new(value: u64) -> Self {
        Index(value)
    }

    /// The number of this position.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    ///
    /// ```
    /// # use kv_wal::record::Index;
    /// assert_eq!(Index::ZERO.next(), Index::new(1));
    /// ```
    #[must_use]
    pub const fn next(self) -> Self {
        Index(self.0.saturating_add(1))
    }

    /// The position before this one; [`Index::ZERO`] stays where it is.
    #[must_use]
    pub const fn prev(self) -> Self {
        Index(self.0.saturating_sub(1))
    }

    /// The position `count` entries later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Index(self.0.saturating_add(count))
    }

    /// How many positions this one is after `earlier`; 0 if it is not.
    pub const fn since(self, earlier: Index) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Term {
    /// Before the first election.
    pub const ZERO: Term = Term(0);

    /// The term with this number.
    pub const fn new(value: u64) -> Self {
        Term(value)
    }

    /// The number of this term.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next term.
    #[must_use]
    pub const fn next(self) -> Self {
        Term(self.0.saturating_add(1))
    }
}

impl EntryId {
    /// Before the first entry of any log.
    pub const ZERO: EntryId = EntryId { term: Term::ZERO, index: Index::ZERO };

    /// The entry at `index` of term `term`.
    pub const fn new(term: Term, index: Index) -> Self {
        EntryId { term, index }
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// Why bytes are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the entry does.
    #[error("entry cut short: {present} of at least {needed} bytes")]
    Short {
        /// Bytes needed at least.
        needed: usize,
        /// Bytes present.
        present: usize,
    },
    /// The length field is above [`PAYLOAD_BYTES_MAX`].
    #[error("entry payload of {bytes} bytes is above the limit of {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// Bytes the length field claims.
        bytes: usize,
    },
    /// The checksum does not match the bytes.
    #[error("entry checksum is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// A sound entry, but another than the one that belongs there: the disk has mixed up sectors.
    #[error("entry {found} stands where {expected} belongs")]
    Misplaced {
        /// Index of the entry that was found.
        found: Index,
        /// Index of the one that belongs there.
        expected: Index,
    },
}

/// One encoded entry whose checksum has been verified (or just computed). Cloning costs a reference count.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use kv_wal::record::{Entry, EntryId, Index, Kind, Term};
///
/// let mut buffer = BytesMut::new();
/// let id = EntryId::new(Term::new(2), Index::new(7));
/// let entry = Entry::encode(&mut buffer, id, 1_700_000_000_000, Kind(1), b"payload");
/// assert_eq!(entry.id(), id);
///
/// let mut wire: Bytes = entry.frame().clone();
/// let again = Entry::split_from(&mut wire).unwrap();
/// assert_eq!(again.payload(), &b"payload"[..]);
/// assert!(wire.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    frame: Bytes,
}

impl Entry {
    /// Encodes one entry at the end of `buffer` and splits it off. The memory is shared by all entries encoded into one
    /// buffer, so a batch with enough capacity reserved costs one allocation.
    ///
    /// # Panics
    ///
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`], or `buffer` is not empty.
    pub fn encode(buffer: &mut BytesMut, id: EntryId, stamp_ms: u64, kind: Kind, payload: &[u8]) -> Entry {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload above the limit of the encoding");
        assert!(buffer.is_empty(), "entries are split off as they are encoded");
        buffer.reserve(HEADER_BYTES + payload.len());
        buffer.put_u32_le(payload.len() as u32);
        buffer.put_u32_le(0);
        buffer.put_u64_le(id.index.get());
        buffer.put_u64_le(id.term.get());
        buffer.put_u64_le(stamp_ms);
        buffer.put_u8(kind.0);
        buffer.put_slice(payload);
        let crc = checksum(buffer);
        buffer[4..8].copy_from_slice(&crc.to_le_bytes());
        Entry { frame: buffer.split().freeze() }
    }

    /// Splits the first entry off `bytes`, verified. On error `bytes` is unchanged.
    ///
    /// # Errors
    ///
    /// The bytes are cut short, claim an impossible length, or do not match their checksum.
    pub fn split_from(bytes: &mut Bytes) -> Result<Entry, DecodeError> {
        let frame_bytes = Self::verify_first(bytes)?;
        Ok(Entry { frame: bytes.split_to(frame_bytes) })
    }

    /// The first entry of `bytes`, verified, if it is the one that belongs there.
    #[cfg(feature = "file")]
    pub(crate) fn expect_first(mut bytes: Bytes, expected: Index) -> Result<Entry, DecodeError> {
        let frame_bytes = Self::verify_first(&bytes)?;
        bytes.truncate(frame_bytes);
        let entry = Entry { frame: bytes };
        let found = entry.index();
        if found == expected { Ok(entry) } else { Err(DecodeError::Misplaced { found, expected }) }
    }

    /// Verifies the first entry of `bytes` and gives the length of its frame, without taking it.
    ///
    /// # Errors
    ///
    /// As for [`Entry::split_from`].
    pub fn verify_first(bytes: &[u8]) -> Result<usize, DecodeError> {
        let frame_bytes = Self::frame_bytes_of(bytes)?;
        let found = read_u32(bytes, 4);
        let computed = checksum(&bytes[..frame_bytes]);
        if found != computed {
            return Err(DecodeError::Checksum { found, computed });
        }
        Ok(frame_bytes)
    }

    /// Length of the first frame in `bytes` as its header claims it, checked only to be present in full.
    ///
    /// # Errors
    ///
    /// The bytes are cut short or claim an impossible length.
    pub fn frame_bytes_of(bytes: &[u8]) -> Result<usize, DecodeError> {
        if bytes.len() < HEADER_BYTES {
            return Err(DecodeError::Short { needed: HEADER_BYTES, present: bytes.len() });
        }
        let payload_bytes = read_u32(bytes, 0) as usize;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(DecodeError::TooLong { bytes: payload_bytes });
        }
        let frame_bytes = HEADER_BYTES + payload_bytes;
        if bytes.len() < frame_bytes {
            return Err(DecodeError::Short { needed: frame_bytes, present: bytes.len() });
        }
        Ok(frame_bytes)
    }

    /// The whole encoded entry.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Term and index.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term(), index: self.index() }
    }

    /// Position in the log.
    pub fn index(&self) -> Index {
        Index(read_u64(&self.frame, 8))
    }

    /// Term of the leader that wrote it.
    pub fn term(&self) -> Term {
        Term(read_u64(&self.frame, 16))
    }

    /// The leader's time stamp, in milliseconds since the Unix epoch.
    pub fn stamp_ms(&self) -> u64 {
        read_u64(&self.frame, 24)
    }

    /// What the entry is for.
    pub fn kind(&self) -> Kind {
        Kind(self.frame[32])
    }

    /// What the entry carries, sharing the memory of the frame.
    pub fn payload(&self) -> Bytes {
        self.frame.slice(HEADER_BYTES..)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("id", &format_args!("{}", self.id()))
            .field("kind", &self.kind().0)
            .field("payload_bytes", &(self.frame.len() - HEADER_BYTES))
            .finish()
    }
}

/// Covers the length and everything after the checksum field.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..])
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(payload: &[u8]) -> Entry {
        Entry::encode(&mut BytesMut::new(), EntryId::new(Term(3), Index(9)), 77, Kind(1), payload)
    }

    /// The bytes of the format. If this fails, the format changed: that needs a new version of log and wire.
    #[test]
    fn golden_bytes() {
        let expected = [
            2u8, 0, 0, 0, 27, 235, 109, 58, 9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 1,
            b'h', b'i',
        ];
        assert_eq!(entry(b"hi").frame()[..], expected[..]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = entry(b"some payload").frame().to_vec();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut bytes = Bytes::from(damaged);
            assert!(Entry::split_from(&mut bytes).is_err(), "bit {bit}");
            assert_eq!(bytes.len(), frame.len(), "untouched on error");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let frame = entry(b"some payload").frame().clone();
        for cut in 0..frame.len() {
            let result = Entry::split_from(&mut frame.slice(..cut));
            assert!(matches!(result, Err(DecodeError::Short { .. })), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::split_from(&mut Bytes::from(bytes));
        }

        #[test]
        fn round_trip(index in any::<u64>(), term in any::<u64>(), stamp in any::<u64>(), kind in any::<u8>(),
                      payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let id = EntryId::new(Term(term), Index(index));
            let entry = Entry::encode(&mut BytesMut::new(), id, stamp, Kind(kind), &payload);
            let mut wire = entry.frame().clone();
            let again = Entry::split_from(&mut wire).unwrap();
            prop_assert_eq!(again.id(), id);
            prop_assert_eq!(again.stamp_ms(), stamp);
            prop_assert_eq!(again.kind(), Kind(kind));
            prop_assert_eq!(&again.payload()[..], &payload[..]);
        }
    }
}
