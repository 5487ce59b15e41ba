//! The bytes of an outcome. No other file knows them.
//!
//! ```text
//! outcome     := one | Transaction | Failed
//! one         := tag:u8  fields
//!
//! Done 0 | NotDone 1 | NotAnInteger 6 | Overflow 7 | TooLarge 8 | Invalid 9 | NotANumber 10 | NoSource 11 |
//! OutOfMemory 12                                           no fields
//! Previous    := tag 2   flags:u8  [bytes(value)]          flags: bit 0 done, bit 1 has a value
//! Count       := tag 3   count:varint
//! Integer     := tag 4   number:signed
//! Length      := tag 5   bytes:varint
//! Decimal     := tag 13  mantissa:signed  scale:u8
//! Value       := tag 14  flags:u8  [pair]                  flags: bit 0 has a pair
//! Pairs       := tag 15  count:varint  count x (bytes(key)  pair)
//!
//! Transaction := tag 16  held:u8 (0|1)  count:varint  count x one
//! Failed      := tag 17  op:varint  one
//!
//! pair        := flags:u8  index:varint  op:varint  created:varint  [deadline:varint]  bytes(value)
//!                                                          flags: bit 0 has a deadline
//! bytes(x)    := length:varint  x
//! ```
//!
//! Numbers are as in `wire.rs`, so every outcome has exactly one encoding. What stands in a transaction is no
//! transaction, so reading goes one step deep and no deeper.

use bytes::Bytes;
use kv_wal::Index;

use super::{Outcome, OutcomeError};
use crate::decimal::Decimal;
use crate::op::{OUTCOME_BYTES_MAX, TRANSACTION_OPS_MAX};
use crate::pair::{Pair, PairRef, Version};
use crate::wire::{Counter, Reader, Sink};

const TAG_DONE: u8 = 0;
const TAG_NOT_DONE: u8 = 1;
const TAG_PREVIOUS: u8 = 2;
const TAG_COUNT: u8 = 3;
const TAG_INTEGER: u8 = 4;
const TAG_LENGTH: u8 = 5;
const TAG_NOT_AN_INTEGER: u8 = 6;
const TAG_OVERFLOW: u8 = 7;
const TAG_TOO_LARGE: u8 = 8;
const TAG_INVALID: u8 = 9;
const TAG_NOT_A_NUMBER: u8 = 10;
const TAG_NO_SOURCE: u8 = 11;
const TAG_OUT_OF_MEMORY: u8 = 12;
const TAG_DECIMAL: u8 = 13;
const TAG_VALUE: u8 = 14;
const TAG_PAIRS: u8 = 15;
const TAG_TRANSACTION: u8 = 16;
const TAG_FAILED: u8 = 17;

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
        self.write(out);
    }

    /// How many bytes [`encode`](Outcome::encode) adds.
    pub fn encoded_bytes(&self) -> usize {
        let mut count = Counter::default();
        self.write(&mut count);
        count.0
    }

    /// The outcome with exactly these bytes; values in it share their memory.
    ///
    /// # Errors
    ///
    /// The bytes are no outcome.
    pub fn decode(bytes: &Bytes) -> Result<Outcome, OutcomeError> {
        let mut source = Source { reader: Reader::new(bytes), bytes };
        match source.outcome() {
            Some(outcome) if source.reader.remaining() == 0 => Ok(outcome),
            _ => Err(OutcomeError { bytes: bytes.len() }),
        }
    }

    fn write(&self, out: &mut impl Sink) {
        match self {
            Outcome::Done => out.u8(TAG_DONE),
            Outcome::NotDone => out.u8(TAG_NOT_DONE),
            Outcome::NotAnInteger => out.u8(TAG_NOT_AN_INTEGER),
            Outcome::Overflow => out.u8(TAG_OVERFLOW),
            Outcome::TooLarge => out.u8(TAG_TOO_LARGE),
            Outcome::Invalid => out.u8(TAG_INVALID),
            Outcome::NotANumber => out.u8(TAG_NOT_A_NUMBER),
            Outcome::NoSource => out.u8(TAG_NO_SOURCE),
            Outcome::OutOfMemory => out.u8(TAG_OUT_OF_MEMORY),
            Outcome::Previous { value, done } => {
                out.put(&[TAG_PREVIOUS, u8::from(*done) | u8::from(value.is_some()) << 1]);
                value.iter().for_each(|value| out.bytes(value));
            }
            Outcome::Count(count) => {
                out.u8(TAG_COUNT);
                out.varint(*count);
            }
            Outcome::Integer(number) => {
                out.u8(TAG_INTEGER);
                out.signed(*number);
            }
            Outcome::Length(bytes) => {
                out.u8(TAG_LENGTH);
                out.varint(*bytes);
            }
            Outcome::Decimal(number) => {
                out.u8(TAG_DECIMAL);
                number.write(out);
            }
            Outcome::Value(pair) => {
                out.put(&[TAG_VALUE, u8::from(pair.is_some())]);
                pair.iter().for_each(|pair| write_pair(out, &pair.as_ref()));
            }
            Outcome::Pairs(pairs) => {
                out.u8(TAG_PAIRS);
                out.varint(pairs.len() as u64);
                pairs.iter().for_each(|(key, pair)| write_item(out, key, &pair.as_ref()));
            }
            Outcome::Transaction { held, outcomes } => {
                out.put(&[TAG_TRANSACTION, u8::from(*held)]);
                out.varint(outcomes.len() as u64);
                outcomes.iter().for_each(|outcome| outcome.write(out));
            }
            Outcome::Failed { op, outcome } => {
                out.u8(TAG_FAILED);
                out.varint(u64::from(*op));
                outcome.write(out);
            }
        }
    }
}

/// How many bytes a pair takes among those of a scan.
pub(crate) fn item_bytes(key: &[u8], pair: &PairRef<'_>) -> usize {
    let mut count = Counter::default();
    write_item(&mut count, key, pair);
    count.0
}

fn write_item(out: &mut impl Sink, key: &[u8], pair: &PairRef<'_>) {
    out.bytes(key);
    write_pair(out, pair);
}

fn write_pair(out: &mut impl Sink, pair: &PairRef<'_>) {
    out.u8(u8::from(pair.deadline_ms.is_some()));
    pair.version.write(out);
    out.varint(pair.created.get());
    pair.deadline_ms.iter().for_each(|deadline_ms| out.varint(*deadline_ms));
    out.bytes(pair.value);
}

/// Bytes that are being read, and whose memory the values share.
struct Source<'a> {
    reader: Reader<'a>,
    bytes: &'a Bytes,
}

impl Source<'_> {
    fn outcome(&mut self) -> Option<Outcome> {
        Some(match self.reader.u8()? {
            TAG_TRANSACTION => {
                let held = self.flags(1)? != 0;
                Outcome::Transaction { held, outcomes: self.many(TRANSACTION_OPS_MAX, Source::next_one)? }
            }
            TAG_FAILED => Outcome::Failed { op: self.reader.varint_u32()?, outcome: Box::new(self.next_one()?) },
            tag => self.one(tag)?,
        })
    }

    fn next_one(&mut self) -> Option<Outcome> {
        let tag = self.reader.u8()?;
        self.one(tag)
    }

    fn one(&mut self, tag: u8) -> Option<Outcome> {
        Some(match tag {
            TAG_DONE => Outcome::Done,
            TAG_NOT_DONE => Outcome::NotDone,
            TAG_NOT_AN_INTEGER => Outcome::NotAnInteger,
            TAG_OVERFLOW => Outcome::Overflow,
            TAG_TOO_LARGE => Outcome::TooLarge,
            TAG_INVALID => Outcome::Invalid,
            TAG_NOT_A_NUMBER => Outcome::NotANumber,
            TAG_NO_SOURCE => Outcome::NoSource,
            TAG_OUT_OF_MEMORY => Outcome::OutOfMemory,
            TAG_PREVIOUS => {
                let flags = self.flags(0b11)?;
                let value = if flags & 2 != 0 { Some(self.slice()?) } else { None };
                Outcome::Previous { value, done: flags & 1 != 0 }
            }
            TAG_COUNT => Outcome::Count(self.reader.varint()?),
            TAG_INTEGER => Outcome::Integer(self.reader.signed()?),
            TAG_LENGTH => Outcome::Length(self.reader.varint()?),
            TAG_DECIMAL => Outcome::Decimal(Decimal::read(&mut self.reader)?),
            TAG_VALUE => Outcome::Value(if self.flags(1)? != 0 { Some(self.pair()?) } else { None }),
            TAG_PAIRS => {
                Outcome::Pairs(self.many(OUTCOME_BYTES_MAX, |source| Some((source.slice()?, source.pair()?)))?)
            }
            _ => return None,
        })
    }

    fn pair(&mut self) -> Option<Pair> {
        let has_deadline = self.flags(1)? != 0;
        let version = Version::read(&mut self.reader)?;
        let created = Index::new(self.reader.varint()?);
        let deadline_ms = if has_deadline { Some(self.reader.varint()?) } else { None };
        Some(Pair { value: self.slice()?, version, created, deadline_ms })
    }

    fn slice(&mut self) -> Option<Bytes> {
        let count = usize::try_from(self.reader.varint()?).ok()?;
        Some(self.bytes.slice_ref(self.reader.bytes(count)?))
    }

    fn flags(&mut self, known: u8) -> Option<u8> {
        self.reader.u8().filter(|flags| flags & !known == 0)
    }

    /// A count and as many items. Takes memory as they arrive.
    fn many<T>(&mut self, count_max: usize, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.reader.varint().filter(|count| *count <= count_max as u64)?;
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn pair(deadline_ms: Option<u64>) -> Pair {
        let version = Version { index: Index::new(300), op: 2 };
        Pair { value: Bytes::from_static(b"v"), version, created: Index::new(5), deadline_ms }
    }

    fn decimal(text: &str) -> Outcome {
        Outcome::Decimal(Decimal::parse(text.as_bytes()).unwrap())
    }

    /// Every outcome with its bytes. Sessions keep outcomes in checkpoints: the bytes may not change.
    fn cases() -> Vec<(Outcome, &'static [u8])> {
        let value = Some(Bytes::from_static(b"value"));
        let key = Bytes::from_static(b"k");
        vec![
            (Outcome::Done, b"\x00"),
            (Outcome::NotDone, b"\x01"),
            (Outcome::Previous { value: None, done: true }, b"\x02\x01"),
            (Outcome::Previous { value: Some(Bytes::new()), done: false }, b"\x02\x02\x00"),
            (Outcome::Previous { value, done: true }, b"\x02\x03\x05value"),
            (Outcome::Count(300), b"\x03\xac\x02"),
            (Outcome::Integer(-3), b"\x04\x05"),
            (Outcome::Length(u64::MAX), b"\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            (Outcome::NotAnInteger, b"\x06"),
            (Outcome::Overflow, b"\x07"),
            (Outcome::TooLarge, b"\x08"),
            (Outcome::Invalid, b"\x09"),
            (Outcome::NotANumber, b"\x0a"),
            (Outcome::NoSource, b"\x0b"),
            (Outcome::OutOfMemory, b"\x0c"),
            (decimal("-0.5"), b"\x0d\x09\x01"),
            (Outcome::Value(None), b"\x0e\x00"),
            (Outcome::Value(Some(pair(None))), b"\x0e\x01\x00\xac\x02\x02\x05\x01v"),
            (Outcome::Pairs(vec![(key, pair(Some(9)))]), b"\x0f\x01\x01k\x01\xac\x02\x02\x05\x09\x01v"),
            (
                Outcome::Transaction { held: true, outcomes: vec![Outcome::Done, Outcome::Count(1)] },
                b"\x10\x01\x02\x00\x03\x01",
            ),
            (Outcome::Failed { op: 7, outcome: Box::new(Outcome::Overflow) }, b"\x11\x07\x07"),
        ]
    }

    #[test]
    fn golden_bytes() {
        for (outcome, bytes) in cases() {
            let mut out = Vec::new();
            outcome.encode(&mut out);
            assert_eq!(out, bytes, "{outcome:?}");
            assert_eq!(outcome.encoded_bytes(), bytes.len());
            assert_eq!(Outcome::decode(&Bytes::from_static(bytes)), Ok(outcome));
        }
    }

    #[test]
    fn every_cut_and_what_nests_is_refused() {
        for (outcome, bytes) in cases() {
            for cut in 0..bytes.len() {
                assert!(Outcome::decode(&Bytes::from_static(&bytes[..cut])).is_err(), "{outcome:?} cut at {cut}");
            }
        }
        let nested: [&[u8]; 4] =
            [b"\x10\x01\x01\x10\x01\x00", b"\x11\x00\x11\x00\x00", b"\x11\x00\x10\x01\x00", b"\x10\x02\x00"];
        for bytes in nested {
            assert!(Outcome::decode(&Bytes::from_static(bytes)).is_err());
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(tag in 0u8..19, body in vec(prop_oneof![0u8..20, any::<u8>()], 0..24)) {
            let bytes = Bytes::from([&[tag][..], &body].concat());
            if let Ok(outcome) = Outcome::decode(&bytes) {
                let mut again = Vec::new();
                outcome.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..]);
            }
        }
    }
}
