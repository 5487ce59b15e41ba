//! What applying an op answers, and its bytes: an outcome travels back to the node that proposed, and sessions keep it
//! for a retry.
//!
//! ```text
//! outcome := tag:u8  body
//! Done 0 | NotDone 1 | NotAnInteger 6 | Overflow 7 | TooLarge 8 | Invalid 9      no body
//! Previous 2   done:u8 (0|1)  present:u8 (0|1)  value, to the end
//! Count 3 u64  | Integer 4 i64 | Length 5 u64
//! ```

use bytes::Bytes;
use thiserror::Error;

use crate::wire::Reader;

/// What applying an op answers. Part of the replicated state machine: the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write happened.
    Done,
    /// The condition did not hold; nothing changed.
    NotDone,
    /// Answer to a put that wanted the value before.
    Previous {
        /// The value before, if there was one.
        value: Option<Bytes>,
        /// Whether the condition held and the write happened.
        done: bool,
    },
    /// How many keys a delete removed.
    Count(u64),
    /// The number after an increment.
    Integer(i64),
    /// The length of the value after an append, in bytes.
    Length(u64),
    /// The value to increment is not a decimal 64-bit integer; nothing changed.
    NotAnInteger,
    /// The increment would leave the range of 64-bit integers; nothing changed.
    Overflow,
    /// The value would grow above [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX); nothing changed.
    TooLarge,
    /// The command is no op that this build knows; nothing changed.
    Invalid,
}

/// Bytes that are no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{bytes} bytes are no outcome of this format")]
pub struct OutcomeError {
    /// How many bytes there were.
    pub bytes: usize,
}

impl Outcome {
    /// Adds the bytes of the outcome to `out`.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use kv_store::Outcome;
    ///
    /// let outcome = Outcome::Previous { value: Some(Bytes::from_static(b"before")), done: true };
    /// let mut bytes = Vec::new();
    /// outcome.encode(&mut bytes);
    /// assert_eq!(Outcome::decode(&bytes.into()).unwrap(), outcome);
    /// ```
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Outcome::Done => out.push(0),
            Outcome::NotDone => out.push(1),
            Outcome::Previous { value, done } => {
                out.extend([2, u8::from(*done), u8::from(value.is_some())]);
                out.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            Outcome::Count(count) => encode_number(out, 3, *count),
            Outcome::Integer(number) => encode_number(out, 4, number.cast_unsigned()),
            Outcome::Length(bytes) => encode_number(out, 5, *bytes),
            Outcome::NotAnInteger => out.push(6),
            Outcome::Overflow => out.push(7),
            Outcome::TooLarge => out.push(8),
            Outcome::Invalid => out.push(9),
        }
    }

    /// The outcome with exactly these bytes; a value in it shares their memory.
    ///
    /// # Errors
    ///
    /// The bytes are no outcome.
    pub fn decode(bytes: &Bytes) -> Result<Outcome, OutcomeError> {
        let mut reader = Reader::new(bytes);
        match read(&mut reader, bytes) {
            Some(outcome) if reader.remaining() == 0 => Ok(outcome),
            _ => Err(OutcomeError { bytes: bytes.len() }),
        }
    }
}

fn encode_number(out: &mut Vec<u8>, tag: u8, number: u64) {
    out.push(tag);
    out.extend(number.to_le_bytes());
}

fn read(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Outcome> {
    Some(match reader.u8()? {
        0 => Outcome::Done,
        1 => Outcome::NotDone,
        2 => {
            let done = read_bool(reader)?;
            let present = read_bool(reader)?;
            let value = if present { Some(bytes.slice_ref(reader.bytes(reader.remaining())?)) } else { None };
            Outcome::Previous { value, done }
        }
        3 => Outcome::Count(reader.u64()?),
        4 => Outcome::Integer(reader.i64()?),
        5 => Outcome::Length(reader.u64()?),
        6 => Outcome::NotAnInteger,
        7 => Outcome::Overflow,
        8 => Outcome::TooLarge,
        9 => Outcome::Invalid,
        _ => return None,
    })
}

fn read_bool(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcomes() -> Vec<Outcome> {
        let value = Some(Bytes::from_static(b"value"));
        vec![
            Outcome::Done,
            Outcome::NotDone,
            Outcome::Previous { value: None, done: true },
            Outcome::Previous { value: Some(Bytes::new()), done: false },
            Outcome::Previous { value, done: true },
            Outcome::Count(3),
            Outcome::Integer(-3),
            Outcome::Length(u64::MAX),
            Outcome::NotAnInteger,
            Outcome::Overflow,
            Outcome::TooLarge,
            Outcome::Invalid,
        ]
    }

    #[test]
    fn every_outcome_survives_its_bytes() {
        for outcome in outcomes() {
            let mut bytes = Vec::new();
            outcome.encode(&mut bytes);
            assert_eq!(Outcome::decode(&bytes.into()), Ok(outcome));
        }
    }

    /// Sessions keep outcomes in checkpoints: the bytes may not change.
    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        outcomes().iter().for_each(|outcome| outcome.encode(&mut bytes));
        let expected = b"\x00\x01\x02\x01\x00\x02\x00\x01\x02\x01\x01value\x03\x03\0\0\0\0\0\0\0\
            \x04\xfd\xff\xff\xff\xff\xff\xff\xff\x05\xff\xff\xff\xff\xff\xff\xff\xff\x06\x07\x08\x09";
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0u8..12, 0..14)) {
            let bytes = Bytes::from(bytes);
            if let Ok(outcome) = Outcome::decode(&bytes) {
                let mut again = Vec::new();
                outcome.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..]);
            }
        }
    }
}
