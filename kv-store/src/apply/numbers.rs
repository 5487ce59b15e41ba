//! Numbers, which are stored as their decimal text.

use super::{Applying, Draft};
use crate::decimal::{Decimal, DecimalError};
use crate::outcome::Outcome;

/// Longest decimal text of an `i64`.
const INTEGER_BYTES_MAX: usize = 20;

impl Applying<'_> {
    pub(super) fn increment(&mut self, key: &[u8], by: i64) -> Outcome {
        let present = self.live(key);
        let Some(number) = present.map_or(Some(0), |pair| parse_integer(pair.value)) else {
            return Outcome::NotAnInteger;
        };
        let Some(number) = number.checked_add(by) else { return Outcome::Overflow };
        let draft = Draft::over(present, number.to_string().into_bytes());
        self.write_and(key, draft, Outcome::Integer(number))
    }

    pub(super) fn increment_decimal(&mut self, key: &[u8], by: Decimal) -> Outcome {
        let present = self.live(key);
        let number = match present.map_or(Ok(Decimal::default()), |pair| Decimal::parse(pair.value)) {
            Ok(number) => number,
            Err(DecimalError::NotANumber) => return Outcome::NotANumber,
            Err(DecimalError::OutOfRange) => return Outcome::Overflow,
        };
        let Some(number) = number.checked_add(by) else { return Outcome::Overflow };
        let draft = Draft::over(present, number.to_string().into_bytes());
        self.write_and(key, draft, Outcome::Decimal(number))
    }
}

/// The number that `text` is the one decimal notation of: no sign but a minus, no leading zero, no space, as Redis.
fn parse_integer(text: &[u8]) -> Option<i64> {
    if text.len() > INTEGER_BYTES_MAX {
        return None;
    }
    let number: i64 = str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_decimal_notation_is_an_integer() {
        for text in ["0", "-1", "42", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_integer(text.as_bytes()), Some(text.parse().unwrap()), "{text}");
        }
        let others =
            ["", " 1", "1 ", "+1", "-0", "00", "01", "-01", "1.0", "1e3", "0x1", "-", "9223372036854775808", "\u{661}"];
        for text in others {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_integer(b"\xff"), None);
    }
}
