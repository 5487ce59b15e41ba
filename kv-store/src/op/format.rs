//! The bytes of an op. No other file knows them.
//!
//! ```text
//! op               := version:u8 (2)  body
//! body             := tag:u8  fields
//!
//! Put              := tag 1   flags:u8  bytes(key)  bytes(value)  [deadline:varint]  [bytes(value) | version]
//!                       flags: bits 0-2 condition: Always, IfAbsent, IfPresent, IfValue, IfVersion
//!                              bits 3-4 deadline: None, Keep, At    bit 5 want previous
//! Delete           := tag 2   count:varint  count x bytes(key)
//! Increment        := tag 3   bytes(key)  by:signed
//! Append           := tag 4   bytes(key)  bytes(value)
//! PutMany          := tag 5   condition:u8 (Always, IfNonePresent)  count:varint  count x (bytes(key) bytes(value))
//! Clear            := tag 6
//! Take             := tag 7   bytes(key)
//! DeleteRange      := tag 8   flags:u8  bytes(from)  [bytes(to)]                 flags: bit 0 has an end
//! IncrementDecimal := tag 9   bytes(key)  mantissa:signed  scale:u8
//! SetRange         := tag 10  bytes(key)  offset:varint  bytes(value)
//! SetDeadline      := tag 11  flags:u8  bytes(key)  [deadline:varint]
//!                       flags: bits 0-2 condition: Always, IfNone, IfAny, IfLater, IfEarlier
//!                              bit 3 has a deadline    bit 4 want value
//! Copy             := tag 12  flags:u8  bytes(from)  bytes(to)                   flags: bit 0 if absent, bit 1 remove source
//! Get              := tag 13  bytes(key)
//! Scan             := tag 14  flags:u8  bytes(from)  [bytes(to)]  limit:varint   flags: bit 0 has an end
//! SetMemoryLimit   := tag 15  flags:u8  [bytes:varint]                           flags: bit 0 has a limit
//! Transaction      := tag 16  failure:u8 (Undo, GoOn)  many(compare)  many(body)  many(body)
//!
//! compare          := target:u8 (Value, Version, Created, Present)  relation:u8 (Equal, NotEqual, Less, Greater)
//!                     bytes(key)  [bytes(value) | version | created:varint | nothing]
//! version          := index:varint  op:varint
//! many(x)          := count:varint  count x x
//! bytes(x)         := length:varint  x
//! ```
//!
//! Names in parentheses are numbered from 0. Numbers are as in `wire.rs`, so every op has exactly one encoding. A
//! replica that cannot decode an op must refuse it as all others do, so a new tag or version needs all replicas to know
//! it before the first is proposed.

use kv_wal::Index;

use super::Op;
use super::condition::{Compare, Condition, Deadline, DeadlineCondition, Failure, PutManyCondition, Relation, Target};
use super::limits::{self, OP_BYTES_MAX, OpError};
use crate::decimal::Decimal;
use crate::pair::Version;
use crate::wire::{Counter, Reader, Sink};

pub(super) const FORMAT_VERSION: u8 = 2;

pub(super) const TAG_PUT: u8 = 1;
pub(super) const TAG_DELETE: u8 = 2;
pub(super) const TAG_INCREMENT: u8 = 3;
pub(super) const TAG_APPEND: u8 = 4;
pub(super) const TAG_PUT_MANY: u8 = 5;
pub(super) const TAG_CLEAR: u8 = 6;
pub(super) const TAG_TAKE: u8 = 7;
pub(super) const TAG_DELETE_RANGE: u8 = 8;
pub(super) const TAG_INCREMENT_DECIMAL: u8 = 9;
pub(super) const TAG_SET_RANGE: u8 = 10;
pub(super) const TAG_SET_DEADLINE: u8 = 11;
pub(super) const TAG_COPY: u8 = 12;
pub(super) const TAG_GET: u8 = 13;
pub(super) const TAG_SCAN: u8 = 14;
pub(super) const TAG_SET_MEMORY_LIMIT: u8 = 15;
pub(super) const TAG_TRANSACTION: u8 = 16;

impl<'a> Op<'a> {
    /// The bytes that replicas apply.
    ///
    /// # Errors
    ///
    /// The op is above a limit, or a transaction holds what it may not.
    pub fn encode(&self) -> Result<Vec<u8>, OpError> {
        self.check_limits()?;
        let mut count = Counter::default();
        self.write(&mut count);
        let bytes = 1 + count.0;
        if bytes > OP_BYTES_MAX {
            return Err(OpError::TooLong { bytes });
        }
        let mut out = Vec::with_capacity(bytes);
        out.push(FORMAT_VERSION);
        self.write(&mut out);
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
        let version = reader.u8().ok_or(OpError::Malformed)?;
        if version != FORMAT_VERSION {
            return Err(OpError::UnknownVersion { found: version });
        }
        let op = match reader.u8().ok_or(OpError::Malformed)? {
            TAG_SET_MEMORY_LIMIT => read_set_memory_limit(&mut reader)?,
            TAG_TRANSACTION => read_transaction(&mut reader)?,
            tag => read_simple(&mut reader, tag)?,
        };
        match reader.remaining() {
            0 => Ok(op),
            bytes => Err(OpError::Trailing { bytes }),
        }
    }

    pub(super) fn tag(&self) -> u8 {
        match self {
            Op::Put { .. } => TAG_PUT,
            Op::Delete { .. } => TAG_DELETE,
            Op::Increment { .. } => TAG_INCREMENT,
            Op::Append { .. } => TAG_APPEND,
            Op::PutMany { .. } => TAG_PUT_MANY,
            Op::Clear => TAG_CLEAR,
            Op::Take { .. } => TAG_TAKE,
            Op::DeleteRange { .. } => TAG_DELETE_RANGE,
            Op::IncrementDecimal { .. } => TAG_INCREMENT_DECIMAL,
            Op::SetRange { .. } => TAG_SET_RANGE,
            Op::SetDeadline { .. } => TAG_SET_DEADLINE,
            Op::Copy { .. } => TAG_COPY,
            Op::Get { .. } => TAG_GET,
            Op::Scan { .. } => TAG_SCAN,
            Op::SetMemoryLimit { .. } => TAG_SET_MEMORY_LIMIT,
            Op::Transaction { .. } => TAG_TRANSACTION,
        }
    }

    /// Tag and fields.
    fn write(&self, out: &mut impl Sink) {
        out.u8(self.tag());
        match self {
            Op::Put { key, value, condition, deadline, want_previous } => {
                write_put(out, key, value, *condition, *deadline, *want_previous);
            }
            Op::Delete { keys } => write_many(out, keys, |out, key| out.bytes(key)),
            Op::Take { key } | Op::Get { key } => out.bytes(key),
            Op::DeleteRange { from, to } => write_range(out, from, *to),
            Op::Increment { key, by } => {
                out.bytes(key);
                out.signed(*by);
            }
            Op::IncrementDecimal { key, by } => {
                out.bytes(key);
                by.write(out);
            }
            Op::Append { key, value } => {
                out.bytes(key);
                out.bytes(value);
            }
            Op::SetRange { key, offset, value } => {
                out.bytes(key);
                out.varint(*offset);
                out.bytes(value);
            }
            Op::PutMany { pairs, condition } => {
                out.u8(u8::from(*condition == PutManyCondition::IfNonePresent));
                write_many(out, pairs, |out, (key, value)| {
                    out.bytes(key);
                    out.bytes(value);
                });
            }
            Op::SetDeadline { key, deadline, condition, want_value } => {
                out.u8(*condition as u8 | flag(3, deadline.is_some()) | flag(4, *want_value));
                out.bytes(key);
                deadline.iter().for_each(|deadline_ms| out.varint(*deadline_ms));
            }
            Op::Copy { from, to, if_absent, remove_source } => {
                out.u8(flag(0, *if_absent) | flag(1, *remove_source));
                out.bytes(from);
                out.bytes(to);
            }
            Op::Scan { from, to, limit } => {
                write_range(out, from, *to);
                out.varint(u64::from(*limit));
            }
            Op::Clear => {}
            Op::SetMemoryLimit { bytes } => {
                out.u8(flag(0, bytes.is_some()));
                bytes.iter().for_each(|bytes| out.varint(*bytes));
            }
            Op::Transaction { conditions, then, otherwise, failure } => {
                out.u8(*failure as u8);
                write_many(out, conditions, |out, compare| write_compare(out, compare));
                write_many(out, then, |out, op| op.write(out));
                write_many(out, otherwise, |out, op| op.write(out));
            }
        }
    }
}

fn flag(bit: u8, is_set: bool) -> u8 {
    u8::from(is_set) << bit
}

fn write_many<S: Sink, T>(out: &mut S, many: &[T], write: impl Fn(&mut S, &T)) {
    out.varint(many.len() as u64);
    many.iter().for_each(|one| write(out, one));
}

fn write_put(
    out: &mut impl Sink,
    key: &[u8],
    value: &[u8],
    condition: Condition<'_>,
    deadline: Deadline,
    want_previous: bool,
) {
    let condition_bits = match condition {
        Condition::Always => 0,
        Condition::IfAbsent => 1,
        Condition::IfPresent => 2,
        Condition::IfValue(_) => 3,
        Condition::IfVersion(_) => 4,
    };
    let deadline_bits = match deadline {
        Deadline::None => 0,
        Deadline::Keep => 1,
        Deadline::At(_) => 2,
    };
    out.u8(condition_bits | deadline_bits << 3 | flag(5, want_previous));
    out.bytes(key);
    out.bytes(value);
    if let Deadline::At(deadline_ms) = deadline {
        out.varint(deadline_ms);
    }
    match condition {
        Condition::IfValue(value) => out.bytes(value),
        Condition::IfVersion(version) => version.write(out),
        Condition::Always | Condition::IfAbsent | Condition::IfPresent => {}
    }
}

fn write_range(out: &mut impl Sink, from: &[u8], to: Option<&[u8]>) {
    out.u8(flag(0, to.is_some()));
    out.bytes(from);
    to.iter().for_each(|to| out.bytes(to));
}

fn write_compare(out: &mut impl Sink, compare: &Compare<'_>) {
    out.u8(match compare.target {
        Target::Value(_) => 0,
        Target::Version(_) => 1,
        Target::Created(_) => 2,
        Target::Present => 3,
    });
    out.u8(compare.relation as u8);
    out.bytes(compare.key);
    match compare.target {
        Target::Value(value) => out.bytes(value),
        Target::Version(version) => version.write(out),
        Target::Created(index) => out.varint(index.get()),
        Target::Present => {}
    }
}

/// Reads the fields of an op that may stand in a transaction.
fn read_simple<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<Op<'a>, OpError> {
    Ok(match tag {
        TAG_PUT => read_put(reader)?,
        TAG_DELETE => Op::Delete { keys: read_many(reader, limits::check_key_count, read_key)? },
        TAG_TAKE => Op::Take { key: read_key(reader)? },
        TAG_DELETE_RANGE => {
            let (from, to) = read_range(reader)?;
            Op::DeleteRange { from, to }
        }
        TAG_INCREMENT => Op::Increment { key: read_key(reader)?, by: some(reader.signed())? },
        TAG_INCREMENT_DECIMAL => Op::IncrementDecimal { key: read_key(reader)?, by: some(Decimal::read(reader))? },
        TAG_APPEND => Op::Append { key: read_key(reader)?, value: read_value(reader)? },
        TAG_SET_RANGE => {
            Op::SetRange { key: read_key(reader)?, offset: some(reader.varint())?, value: read_value(reader)? }
        }
        TAG_PUT_MANY => read_put_many(reader)?,
        TAG_SET_DEADLINE => read_set_deadline(reader)?,
        TAG_COPY => {
            let flags = read_flags(reader, 0b11)?;
            let (from, to) = (read_key(reader)?, read_key(reader)?);
            Op::Copy { from, to, if_absent: flags & 1 != 0, remove_source: flags & 2 != 0 }
        }
        TAG_GET => Op::Get { key: read_key(reader)? },
        TAG_SCAN => {
            let (from, to) = read_range(reader)?;
            Op::Scan { from, to, limit: some(reader.varint_u32())? }
        }
        TAG_CLEAR => Op::Clear,
        found => return Err(OpError::UnknownTag { found }),
    })
}

fn read_put<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let flags = read_flags(reader, 0b0011_1111)?;
    let (key, value) = (read_key(reader)?, read_value(reader)?);
    let deadline = match flags >> 3 & 0b11 {
        0 => Deadline::None,
        1 => Deadline::Keep,
        2 => Deadline::At(some(reader.varint())?),
        _ => return Err(OpError::UnknownFlags { found: flags }),
    };
    let condition = match flags & 0b111 {
        0 => Condition::Always,
        1 => Condition::IfAbsent,
        2 => Condition::IfPresent,
        3 => Condition::IfValue(read_value(reader)?),
        4 => Condition::IfVersion(some(Version::read(reader))?),
        _ => return Err(OpError::UnknownFlags { found: flags }),
    };
    Ok(Op::Put { key, value, condition, deadline, want_previous: flags >> 5 != 0 })
}

fn read_put_many<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let condition = match read_flags(reader, 1)? {
        0 => PutManyCondition::Always,
        _ => PutManyCondition::IfNonePresent,
    };
    let pairs = read_many(reader, limits::check_key_count, |r| Ok((read_key(r)?, read_value(r)?)))?;
    Ok(Op::PutMany { pairs, condition })
}

fn read_set_deadline<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let flags = read_flags(reader, 0b0001_1111)?;
    let condition = match flags & 0b111 {
        0 => DeadlineCondition::Always,
        1 => DeadlineCondition::IfNone,
        2 => DeadlineCondition::IfAny,
        3 => DeadlineCondition::IfLater,
        4 => DeadlineCondition::IfEarlier,
        _ => return Err(OpError::UnknownFlags { found: flags }),
    };
    let key = read_key(reader)?;
    let deadline = if flags & 0b1000 != 0 { Some(some(reader.varint())?) } else { None };
    Ok(Op::SetDeadline { key, deadline, condition, want_value: flags >> 4 != 0 })
}

fn read_set_memory_limit<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let bytes = if read_flags(reader, 1)? != 0 { Some(some(reader.varint())?) } else { None };
    Ok(Op::SetMemoryLimit { bytes })
}

fn read_transaction<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    let failure = match read_flags(reader, 1)? {
        0 => Failure::Undo,
        _ => Failure::GoOn,
    };
    let conditions = read_many(reader, limits::check_condition_count, read_compare)?;
    let mut keys = 0;
    let mut read_op = |reader: &mut Reader<'a>| {
        let op = read_op_in_transaction(reader)?;
        keys += op.listed_keys();
        limits::check_key_count(keys)?;
        Ok(op)
    };
    let then = read_many(reader, limits::check_op_count, &mut read_op)?;
    let check_rest = |count: usize| limits::check_op_count(then.len().saturating_add(count));
    let otherwise = read_many(reader, check_rest, &mut read_op)?;
    Ok(Op::Transaction { conditions, then, otherwise, failure })
}

fn read_op_in_transaction<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, OpError> {
    match some(reader.u8())? {
        tag @ (TAG_TRANSACTION | TAG_SET_MEMORY_LIMIT) => Err(OpError::NotInTransaction { tag }),
        tag => read_simple(reader, tag),
    }
}

fn read_compare<'a>(reader: &mut Reader<'a>) -> Result<Compare<'a>, OpError> {
    let target = read_flags(reader, 0b11)?;
    let relation = match read_flags(reader, 0b11)? {
        0 => Relation::Equal,
        1 => Relation::NotEqual,
        2 => Relation::Less,
        _ => Relation::Greater,
    };
    let key = read_key(reader)?;
    let target = match target {
        0 => Target::Value(read_value(reader)?),
        1 => Target::Version(some(Version::read(reader))?),
        2 => Target::Created(Index::new(some(reader.varint())?)),
        _ => Target::Present,
    };
    Ok(Compare { key, target, relation })
}

fn read_flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, OpError> {
    let flags = some(reader.u8())?;
    if flags & !known == 0 { Ok(flags) } else { Err(OpError::UnknownFlags { found: flags }) }
}

fn read_range<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), OpError> {
    let has_end = read_flags(reader, 1)? != 0;
    let from = read_key(reader)?;
    Ok((from, if has_end { Some(read_key(reader)?) } else { None }))
}

fn read_key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], OpError> {
    read_bytes(reader, limits::check_key)
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], OpError> {
    read_bytes(reader, limits::check_value)
}

fn read_bytes<'a>(reader: &mut Reader<'a>, check: fn(usize) -> Result<(), OpError>) -> Result<&'a [u8], OpError> {
    let bytes = read_count(reader)?;
    check(bytes)?;
    some(reader.bytes(bytes))
}

/// Reads a count and as many items, each of which has at least one byte.
fn read_many<'a, T>(
    reader: &mut Reader<'a>,
    check: impl Fn(usize) -> Result<(), OpError>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, OpError>,
) -> Result<Vec<T>, OpError> {
    let count = read_count(reader)?;
    check(count)?;
    if reader.remaining() < count {
        return Err(OpError::Malformed);
    }
    (0..count).map(|_| read(reader)).collect()
}

fn read_count(reader: &mut Reader<'_>) -> Result<usize, OpError> {
    Ok(usize::try_from(some(reader.varint())?).unwrap_or(usize::MAX))
}

fn some<T>(read: Option<T>) -> Result<T, OpError> {
    read.ok_or(OpError::Malformed)
}
