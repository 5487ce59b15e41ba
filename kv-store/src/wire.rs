//! Fields put at the end of bytes and taken from the front of a slice. Fixed ones are little-endian.
//!
//! A *varint* is a number in groups of seven bits, the lowest first, each byte but the last with its high bit set
//! (LEB128). Every number has exactly one: a last byte of zero, which adds nothing, is only the number 0, and bits above
//! the type are refused. A signed number is first folded, so that small ones of either sign are short: 0, -1, 1, -2
//! become 0, 1, 2, 3 (zigzag).

/// Takes bytes: a buffer, or a counter of how many there would be.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    fn varint(&mut self, number: u64) {
        self.varint128(u128::from(number));
    }

    fn signed(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    fn signed128(&mut self, number: i128) {
        self.varint128(((number << 1) ^ (number >> 127)).cast_unsigned());
    }

    fn varint128(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.u8(number as u8 | 0x80);
            number >>= 7;
        }
        self.u8(number as u8);
    }

    /// Length and bytes.
    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes and keeps none.
#[derive(Default)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}

/// What has not been read yet. `None` means that the slice is too short, or that a varint is not the one of its number.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        self.varint128()?.try_into().ok()
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let folded = self.varint()?;
        Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    pub(crate) fn signed128(&mut self) -> Option<i128> {
        let folded = self.varint128()?;
        Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    pub(crate) fn varint128(&mut self) -> Option<u128> {
        let mut number = 0u128;
        for shift in (0..u128::BITS).step_by(7) {
            let byte = self.u8()?;
            let group = u128::from(byte & 0x7F);
            if group << shift >> shift != group {
                return None;
            }
            number |= group << shift;
            match byte {
                0 if shift > 0 => return None,
                0..=0x7F => return Some(number),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint_of(bytes: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(bytes);
        reader.varint().filter(|_| reader.remaining() == 0)
    }

    #[test]
    fn a_number_has_one_varint() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7F]),
            (128, &[0x80, 1]),
            (300, &[0xAC, 2]),
            (u64::MAX, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
        ] {
            let mut out = Vec::new();
            out.varint(number);
            assert_eq!(out, bytes);
            assert_eq!(varint_of(bytes), Some(number));
        }
        let others: [&[u8]; 5] =
            [&[], &[0x80], &[0x80, 0], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2], &[0xFF; 40]];
        for bytes in others {
            assert_eq!(varint_of(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_survive(small in any::<i64>(), large in any::<i128>(), wide in any::<u128>()) {
            let (mut out, mut count) = (Vec::new(), Counter::default());
            out.signed(small);
            out.signed128(large);
            out.varint128(wide);
            count.signed(small);
            count.signed128(large);
            count.varint128(wide);
            prop_assert_eq!(out.len(), count.0);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.signed(), Some(small));
            prop_assert_eq!(reader.signed128(), Some(large));
            prop_assert_eq!(reader.varint128(), Some(wide));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut reader = Reader::new(&bytes);
            if let Some(number) = reader.varint128() {
                let mut again = Vec::new();
                again.varint128(number);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }
}
