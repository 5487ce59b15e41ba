//! A replicated mutation and its bytes.
//!
//! An op is encoded once, by the node that accepts the command, travels as the payload of an entry, and is decoded by
//! every replica when it applies the entry. Decoding borrows: keys and values are slices of the entry.
//!
//! ```text
//! op        := version:u8 (1)  tag:u8  body
//! Put       := tag 1  flags:u8  bytes(key) bytes(value)       flags: bits 0-1 condition, bit 2 want previous
//! Delete    := tag 2  count:u32  count x bytes(key)
//! Increment := tag 3  bytes(key)  by:i64
//! Append    := tag 4  bytes(key) bytes(value)
//! PutMany   := tag 5  count:u32  count x (bytes(key) bytes(value))
//! Clear     := tag 6
//! bytes(x)  := length:u32  x
//! ```
//!
//! All integers are little-endian. Every op has exactly one encoding. A replica that cannot decode an op must refuse it
//! as all others do, so a new tag or version needs all replicas to know it before the first is proposed.

use thiserror::Error;

use crate::wire::Reader;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Most keys of one op.
pub const OP_KEYS_MAX: usize = 1 << 20;

/// Longest encoded op, in bytes: room for the largest value, and well below the largest entry.
pub const OP_BYTES_MAX: usize = 32 << 20;

const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < OP_BYTES_MAX);
const _: () = assert!(OP_BYTES_MAX < kv_wal::record::PAYLOAD_BYTES_MAX);

const FORMAT_VERSION: u8 = 1;

const TAG_PUT: u8 = 1;
const TAG_DELETE: u8 = 2;
const TAG_INCREMENT: u8 = 3;
const TAG_APPEND: u8 = 4;
const TAG_PUT_MANY: u8 = 5;
const TAG_CLEAR: u8 = 6;

const FLAG_WANT_PREVIOUS: u8 = 0b100;

/// When a put happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Whether or not the key is present.
    #[default]
    Always,
    /// Only if the key is absent.
    IfAbsent,
    /// Only if the key is present.
    IfPresent,
}

/// A mutation that all replicas apply. Borrows its keys and values.
///
/// ```
/// use kv_store::{Condition, Op};
///
/// let op = Op::Put { key: b"greeting", value: b"hello", condition: Condition::IfAbsent, want_previous: false };
/// let bytes = op.encode().unwrap();
/// assert_eq!(Op::decode(&bytes).unwrap(), op);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets a key (Redis: SET, with NX, XX, GET). Outcome `Done` or `NotDone`, or `Previous` if that was wanted.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value it gets.
        value: &'a [u8],
        /// When it gets it.
        condition: Condition,
        /// Whether to answer with the value before.
        want_previous: bool,
    },
    /// Removes keys (Redis: DEL). Outcome `Count` of those that were present.
    Delete {
        /// The keys. One that occurs twice counts once.
        keys: Vec<&'a [u8]>,
    },
    /// Adds to a decimal number (Redis: INCRBY); an absent key counts as 0. Outcome `Integer`, the new number, or
    /// `NotAnInteger` or `Overflow`, which change nothing.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What to add.
        by: i64,
    },
    /// Adds to the end of a value (Redis: APPEND); an absent key counts as empty. Outcome `Length`, the new length, or
    /// `TooLarge`, which changes nothing.
    Append {
        /// The key.
        key: &'a [u8],
        /// What to add.
        value: &'a [u8],
    },
    /// Sets keys, all or none (Redis: MSET). Of a key that occurs twice the later value wins. Outcome `Done`.
    PutMany {
        /// Keys and their values.
        pairs: Vec<(&'a [u8], &'a [u8])>,
    },
    /// Removes everything (Redis: FLUSHALL). Outcome `Done`.
    Clear,
}

/// Why bytes are not an op, or an op has no bytes. The proposer must act: no replica applies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpError {
    /// A key is above [`KEY_BYTES_MAX`].
    #[error("key of {bytes} bytes is above the limit of {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value is above [`VALUE_BYTES_MAX`].
    #[error("value of {bytes} bytes is above the limit of {VALUE_BYTES_MAX}")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The op has more than [`OP_KEYS_MAX`] keys.
    #[error("{count} keys in one op are above the limit of {OP_KEYS_MAX}")]
    TooManyKeys {
        /// How many.
        count: usize,
    },
    /// The encoded op is above [`OP_BYTES_MAX`].
    #[error("op of {bytes} bytes is above the limit of {OP_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The bytes end before the op does.
    #[error("op cut short")]
    Short,
    /// There are bytes after the end of the op.
    #[error("{bytes} bytes after the end of the op")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The first byte is a format version this build does not know.
    #[error("op of format version {found}, this build knows {FORMAT_VERSION}")]
    UnknownVersion {
        /// The version.
        found: u8,
    },
    /// The second byte is no op this build knows.
    #[error("op has unknown tag {found}")]
    UnknownTag {
        /// The tag.
        found: u8,
    },
    /// The flags of a put have no meaning.
    #[error("put has unknown flags {found:#010b}")]
    UnknownFlags {
        /// The flags.
        found: u8,
    },
}

impl<'a> Op<'a> {
    /// The bytes that replicas apply.
    ///
    /// # Errors
    ///
    /// The op is above a limit.
    pub fn encode(&self) -> Result<Vec<u8>, OpError> {
        self.check_limits()?;
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.push(FORMAT_VERSION);
        match self {
            Op::Put { key, value, condition, want_previous } => {
                out.extend([TAG_PUT, put_flags(*condition, *want_previous)]);
                write_bytes(&mut out, key);
                write_bytes(&mut out, value);
            }
            Op::Delete { keys } => {
                out.push(TAG_DELETE);
                out.extend((keys.len() as u32).to_le_bytes());
                keys.iter().for_each(|key| write_bytes(&mut out, key));
            }
            Op::Increment { key, by } => {
                out.push(TAG_INCREMENT);
                write_bytes(&mut out, key);
                out.extend(by.to_le_bytes());
            }
            Op::Append { key, value } => {
                out.push(TAG_APPEND);
                write_bytes(&mut out, key);
                write_bytes(&mut out, value);
            }
            Op::PutMany { pairs } => {
                out.push(TAG_PUT_MANY);
                out.extend((pairs.len() as u32).to_le_bytes());
                for (key, value) in pairs {
                    write_bytes(&mut out, key);
                    write_bytes(&mut out, value);
                }
            }
            Op::Clear => out.push(TAG_CLEAR),
        }
        Ok(out)
    }

    /// The op with these bytes.
    ///
    /// # Errors
    ///
    /// The bytes are not exactly one op within the limits, in a format that this build knows.
    pub fn decode(bytes: &'a [u8]) -> Result<Op<'a>, OpError> {
        if bytes.len() > OP_BYTES_MAX {
            return Err(OpError::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8().ok_or(OpError::Short)?;
        if version != FORMAT_VERSION {
            return Err(OpError::UnknownVersion { found: version });
        }
        let op = match reader.u8().ok_or(OpError::Short)? {
            TAG_PUT => read_put(&mut reader)?,
            TAG_DELETE => Op::Delete { keys: read_many(&mut reader, read_key)? },
            TAG_INCREMENT => Op::Increment { key: read_key(&mut reader)?, by: reader.i64().ok_or(OpError::Short)? },
            TAG_APPEND => Op::Append { key: read_key(&mut reader)?, value: read_value(&mut reader)? },
            TAG_PUT_MANY => Op::PutMany { pairs: read_many(&mut reader, |r| Ok((read_key(r)?, read_value(r)?)))? },
            TAG_CLEAR => Op::Clear,
            found => return Err(OpError::UnknownTag { found }),
        };
        match reader.remaining() {
            0 => Ok(op),
            bytes => Err(OpError::Trailing { bytes }),
        }
    }

    fn check_limits(&self) -> Result<(), OpError> {
        match self {
            Op::Put { key, value, .. } | Op::Append { key, value } => {
                check_key_bytes(key.len())?;
                check_value_bytes(value.len())?;
            }
            Op::Delete { keys } => {
                check_key_count(keys.len())?;
                keys.iter().try_for_each(|key| check_key_bytes(key.len()))?;
            }
            Op::Increment { key, .. } => check_key_bytes(key.len())?,
            Op::PutMany { pairs } => {
                check_key_count(pairs.len())?;
                for (key, value) in pairs {
                    check_key_bytes(key.len())?;
                    check_value_bytes(value.len())?;
                }
            }
            Op::Clear => {}
        }
        let bytes = self.encoded_bytes();
        if bytes > OP_BYTES_MAX { Err(OpError::TooLong { bytes }) } else { Ok(()) }
    }

    fn encoded_bytes(&self) -> usize {
        2 + match self {
            Op::Put { key, value, .. } => 1 + 4 + key.len() + 4 + value.len(),
            Op::Delete { keys } => 4 + keys.iter().map(|key| 4 + key.len()).sum::<usize>(),
            Op::Increment { key, .. } => 4 + key.len() + 8,
            Op::Append { key, value } => 4 + key.len() + 4 + value.len(),
            Op::PutMany { pairs } => 4 + pairs.iter().map(|(key, value)| 8 + key.len() + value.len()).sum::<usize>(),
            Op::Clear => 0,
        }
    }
}

fn put_flags(condition: Condition, want_previous: bool) -> u8 {
    let condition = match condition {
        Condition::Always => 0,
        Condition::IfAbsent => 1,
        Condition::IfPresent => 2,
    };
    if want_previous { condition | FLAG_WANT_PREVIOUS } else { condition }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn read_put<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let flags = reader.u8().ok_or(OpError::Short)?;
    let condition = match flags & !FLAG_WANT_PREVIOUS {
        0 => Condition::Always,
        1 => Condition::IfAbsent,
        2 => Condition::IfPresent,
        _ => return Err(OpError::UnknownFlags { found: flags }),
    };
    let want_previous = flags & FLAG_WANT_PREVIOUS != 0;
    Ok(Op::Put { key: read_key(reader)?, value: read_value(reader)?, condition, want_previous })
}

fn read_key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], OpError> {
    let bytes = reader.u32().ok_or(OpError::Short)? as usize;
    check_key_bytes(bytes)?;
    reader.bytes(bytes).ok_or(OpError::Short)
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], OpError> {
    let bytes = reader.u32().ok_or(OpError::Short)? as usize;
    check_value_bytes(bytes)?;
    reader.bytes(bytes).ok_or(OpError::Short)
}

/// Reads a count and as many items. Takes memory only for as many as the bytes present can hold.
fn read_many<'a, T>(
    reader: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, OpError>,
) -> Result<Vec<T>, OpError> {
    let count = reader.u32().ok_or(OpError::Short)? as usize;
    check_key_count(count)?;
    if reader.remaining() < count * 4 {
        return Err(OpError::Short);
    }
    (0..count).map(|_| read(reader)).collect()
}

fn check_key_bytes(bytes: usize) -> Result<(), OpError> {
    if bytes > KEY_BYTES_MAX { Err(OpError::KeyTooLong { bytes }) } else { Ok(()) }
}

fn check_value_bytes(bytes: usize) -> Result<(), OpError> {
    if bytes > VALUE_BYTES_MAX { Err(OpError::ValueTooLong { bytes }) } else { Ok(()) }
}

fn check_key_count(count: usize) -> Result<(), OpError> {
    if count > OP_KEYS_MAX { Err(OpError::TooManyKeys { count }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
