//! The bytes of a checkpoint. No other file knows them; `FORMAT.md` tells the same with the reasons.
//!
//! ```text
//! checkpoint := header  block(blob)*  block(pairs)*  footer
//!
//! header, 81 bytes
//!  0           8          12        16       24        32                64         72            80          81
//!  +-----------+----------+---------+--------+---------+-----------------+----------+-------------+-----------+
//!  | KVCKPT\r\n| version  | crc32c  |  term  |  index  |     secret      |  clock   |  limit      |  limited  |
//!  +-----------+----------+---------+--------+---------+-----------------+----------+-------------+-----------+
//!       8          u32        u32      u64       u64          32             u64         u64         u8 (0|1)
//!
//! block, 9 bytes and its body
//!  0      1          5         9
//!  +------+----------+---------+----------------+
//!  | kind |  length  | crc32c  |  body          |       kind: 1 a piece of the blob, 2 pairs
//!  +------+----------+---------+----------------+
//!     u8      u32        u32     `length` bytes
//!
//! pair, 36 bytes, key and value
//!  0           4             8         16     20         28         36
//!  +-----------+-------------+---------+------+----------+----------+-------+---------+
//!  | key bytes | value bytes |  index  |  op  |  created | deadline |  key  |  value  |
//!  +-----------+-------------+---------+------+----------+----------+-------+---------+
//!       u32          u32         u64     u32      u64        u64
//!
//! footer, 73 bytes, and nothing after it
//!  0          1         9          41           73
//!  +----------+---------+----------+------------+
//!  | kind: 3  |  count  |   sum    |   SHA-256  |       over header, blob, count and sum
//!  +----------+---------+----------+------------+
//!      u8         u64       32          32
//! ```
//!
//! All integers are little-endian. A crc32c covers all other bytes of its header or block. A deadline of 0 is none; a
//! limit that is not there is 0.

use kv_wal::{EntryId, Index, Term};
use sha2::{Digest as _, Sha256};

use super::{CheckpointError, Part};
use crate::digest::{RangeDigest, Secret, Sum};
use crate::op::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::pair::{PairRef, Version};
use crate::read_view::ReadView;
use crate::tree::Tree;
use crate::wire::Reader;

/// The format that this build writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 2;

/// Longest blob, in bytes.
pub const BLOB_BYTES_MAX: usize = 1 << 30;

/// A block is closed when its body has this many bytes.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// Longest body of a block: just not closed, and then the longest pair.
pub(super) const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + PAIR_HEADER_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX;

const _: () = assert!(BLOCK_BYTES_MAX <= u32::MAX as usize);

const MAGIC: [u8; 8] = *b"KVCKPT\r\n";

pub(super) const HEADER_BYTES: usize = 81;
pub(super) const BLOCK_HEADER_BYTES: usize = 9;
pub(super) const PAIR_HEADER_BYTES: usize = 36;
/// The footer after its kind and before its hash.
pub(super) const FOOTER_BODY_BYTES: usize = 40;

const KIND_BLOB: u8 = 1;
const KIND_PAIRS: u8 = 2;
const KIND_FOOTER: u8 = 3;

/// What comes after the header, told by the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blob,
    Pairs,
    Footer,
}

impl Kind {
    pub(super) fn byte(self) -> u8 {
        match self {
            Kind::Blob => KIND_BLOB,
            Kind::Pairs => KIND_PAIRS,
            Kind::Footer => KIND_FOOTER,
        }
    }

    pub(super) fn of_byte(byte: u8) -> Option<Kind> {
        match byte {
            KIND_BLOB => Some(Kind::Blob),
            KIND_PAIRS => Some(Kind::Pairs),
            KIND_FOOTER => Some(Kind::Footer),
            _ => None,
        }
    }
}

pub(super) fn header(last: EntryId, view: &ReadView) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&last.term.get().to_le_bytes());
    header[24..32].copy_from_slice(&last.index.get().to_le_bytes());
    header[32..64].copy_from_slice(view.secret().bytes());
    header[64..72].copy_from_slice(&view.clock_ms.to_le_bytes());
    header[72..80].copy_from_slice(&view.memory_limit_bytes.unwrap_or(0).to_le_bytes());
    header[80] = u8::from(view.memory_limit_bytes.is_some());
    let crc = header_checksum(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The last entry, and the state without its pairs. Looks at the version before the checksum: another version may have
/// its checksum elsewhere.
pub(super) fn read_header(header: &[u8; HEADER_BYTES]) -> Result<(EntryId, ReadView), CheckpointError> {
    let fields = HeaderFields::read(&mut Reader::new(header)).expect("the header is as long as its fields");
    if fields.magic != MAGIC {
        return Err(CheckpointError::NotACheckpoint { found: fields.magic });
    }
    if fields.version != FORMAT_VERSION {
        return Err(match header_checksum(&with_our_version(header)) {
            // All of it is ours but the version: that is damage, and not another format.
            crc if crc == fields.crc => CheckpointError::Malformed { part: Part::Header },
            _ => CheckpointError::UnknownVersion { found: fields.version },
        });
    }
    check(Part::Header, fields.crc, header_checksum(header))?;
    let memory_limit_bytes = match (fields.limited, fields.limit_bytes) {
        (0, 0) => None,
        (1, bytes) => Some(bytes),
        _ => return Err(CheckpointError::Malformed { part: Part::Header }),
    };
    let secret = Secret::new(fields.secret);
    let empty = ReadView { tree: Tree::new(Some(secret)), clock_ms: fields.clock_ms, memory_limit_bytes };
    Ok((EntryId::new(Term::new(fields.term), Index::new(fields.index)), empty))
}

fn with_our_version(header: &[u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let mut ours = *header;
    ours[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    ours
}

struct HeaderFields {
    magic: [u8; 8],
    version: u32,
    crc: u32,
    term: u64,
    index: u64,
    secret: [u8; 32],
    clock_ms: u64,
    limit_bytes: u64,
    limited: u8,
}

impl HeaderFields {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(HeaderFields {
            magic: reader.array()?,
            version: reader.u32()?,
            crc: reader.u32()?,
            term: reader.u64()?,
            index: reader.u64()?,
            secret: reader.array()?,
            clock_ms: reader.u64()?,
            limit_bytes: reader.u64()?,
            limited: reader.u8()?,
        })
    }
}

/// Kind, length and checksum of a block.
pub(super) fn block_header(kind: Kind, body: &[u8]) -> [u8; BLOCK_HEADER_BYTES] {
    let length = (body.len() as u32).to_le_bytes();
    let crc = block_checksum(kind, body).to_le_bytes();
    let mut header = [kind.byte(); BLOCK_HEADER_BYTES];
    header[1..5].copy_from_slice(&length);
    header[5..9].copy_from_slice(&crc);
    header
}

/// Compares a checksum that was read with the one over the bytes.
pub(super) fn check(part: Part, found: u32, computed: u32) -> Result<(), CheckpointError> {
    if found == computed { Ok(()) } else { Err(CheckpointError::Checksum { part, found, computed }) }
}

pub(super) fn block_checksum(kind: Kind, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&[kind.byte()]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &(body.len() as u32).to_le_bytes()), body)
}

fn header_checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..])
}

pub(super) fn write_pair(body: &mut Vec<u8>, key: &[u8], pair: &PairRef<'_>) {
    body.extend((key.len() as u32).to_le_bytes());
    body.extend((pair.value.len() as u32).to_le_bytes());
    body.extend(pair.version.index.get().to_le_bytes());
    body.extend(pair.version.op.to_le_bytes());
    body.extend(pair.created.get().to_le_bytes());
    body.extend(pair.deadline_ms.unwrap_or(0).to_le_bytes());
    body.extend_from_slice(key);
    body.extend_from_slice(pair.value);
}

/// A pair and its key; `None` if there is none within the limits.
pub(super) fn read_pair<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], PairRef<'a>)> {
    let key_bytes = reader.u32()? as usize;
    let value_bytes = reader.u32()? as usize;
    if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
        return None;
    }
    let version = Version { index: Index::new(reader.u64()?), op: reader.u32()? };
    let created = Index::new(reader.u64()?);
    let deadline_ms = Some(reader.u64()?).filter(|deadline_ms| *deadline_ms > 0);
    let key = reader.bytes(key_bytes)?;
    let value = reader.bytes(value_bytes)?;
    Some((key, PairRef::new(value, version, created, deadline_ms)))
}

pub(super) fn footer_body(total: &RangeDigest) -> [u8; FOOTER_BODY_BYTES] {
    let mut body = [0; FOOTER_BODY_BYTES];
    body[..8].copy_from_slice(&total.count.to_le_bytes());
    body[8..].copy_from_slice(&total.sum.to_bytes());
    body
}

/// Binds header, blob, count and sum together. What the pairs are is in the sum: it is made of a SHA-256 of each of them.
pub(super) fn hash(header: &[u8; HEADER_BYTES], blob: &[u8], footer: &[u8; FOOTER_BODY_BYTES]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(blob).chain_update(footer).finalize().into()
}

/// Compares the count and the sum of a footer with those of the pairs that were read.
pub(super) fn check_footer(body: &[u8; FOOTER_BODY_BYTES], total: &RangeDigest) -> Result<(), CheckpointError> {
    let (count, sum) = body.split_first_chunk::<8>().expect("longer than a count");
    let found = u64::from_le_bytes(*count);
    if found != total.count {
        return Err(CheckpointError::Count { found, computed: total.count });
    }
    let sum = Sum::from_bytes(sum.try_into().expect("the rest is the sum"));
    if sum == total.sum { Ok(()) } else { Err(CheckpointError::Sum) }
}
