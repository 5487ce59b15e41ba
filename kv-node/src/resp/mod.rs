//! The Redis serialization protocol, versions 2 and 3: what clients send and what they are answered.
//!
//! A request is an array of bulk strings, or one line of words. A reply is a [`Frame`], written in the version the
//! client asked for.

mod codec;
mod frame;
mod inline;

pub use codec::{
    ARGUMENTS_COUNT_MAX, BULK_BYTES_MAX, LINE_BYTES_MAX, ProtocolError, REQUEST_BYTES_MAX, RequestDecoder, RequestError,
};
pub use frame::{Frame, Protocol, ReplyEncoder};

/// Reads a decimal integer as Redis does: no sign but a minus, no leading zeros, no blanks, nothing after it.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_integer;
    use proptest::prelude::*;

    #[test]
    fn only_canonical_integers_are_read() {
        for text in ["", "-", "+1", "01", "-0", "00", " 1", "1 ", "1.0", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_integer(b"0"), Some(0));
        assert_eq!(parse_integer(b"-9223372036854775808"), Some(i64::MIN));
    }

    proptest! {
        #[test]
        fn every_integer_is_read_back(value in any::<i64>()) {
            prop_assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }
    }
}
