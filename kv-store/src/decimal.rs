//! Exact decimal numbers: a whole number of units of a power of ten. No floating point, whose last digit depends on the
//! machine and the library, so that replicas could differ.

use std::fmt;

use thiserror::Error;

use crate::wire::{Reader, Sink};

/// Most digits after the point.
pub const DECIMAL_SCALE_MAX: u8 = 30;

/// Longest text that is looked at, in bytes.
pub const DECIMAL_TEXT_BYTES_MAX: usize = 256;

/// A decimal number: `mantissa` divided by ten to the power of `scale`, exactly. Of all ways to write a number it is the
/// one with the smallest scale, so equal numbers are equal in every byte.
///
/// ```
/// use kv_store::Decimal;
///
/// let sum = Decimal::parse(b"0.1").unwrap().checked_add(Decimal::parse(b"2e-1").unwrap());
/// assert_eq!(sum.unwrap().to_string(), "0.3");
/// assert_eq!(Decimal::parse(b"-5.00e3").unwrap().to_string(), "-5000");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    mantissa: i128,
    scale: u8,
}

/// Why a text gives no decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecimalError {
    /// It is not written as one, or is above [`DECIMAL_TEXT_BYTES_MAX`].
    #[error("not a decimal number")]
    NotANumber,
    /// It has more than 38 digits, or more than [`DECIMAL_SCALE_MAX`] after the point.
    #[error("a decimal number with too many digits")]
    OutOfRange,
}

impl Decimal {
    /// `mantissa` divided by ten to the power of `scale`; `None` if that is out of range.
    pub fn new(mantissa: i128, scale: u8) -> Option<Self> {
        let (mut mantissa, mut scale) = (mantissa, scale);
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            // Zero has one way to be written too.
            scale = if mantissa == 0 { 0 } else { scale - 1 };
        }
        // The least mantissa has no counterpart, so its text could not be read again.
        (scale <= DECIMAL_SCALE_MAX && mantissa != i128::MIN).then_some(Decimal { mantissa, scale })
    }

    /// The number that `text` writes: a sign or none, digits with a point or none among them, and an exponent or none.
    ///
    /// # Errors
    ///
    /// The text is anything else, as spaces, infinities and hexadecimal are, or the number is out of range.
    pub fn parse(text: &[u8]) -> Result<Self, DecimalError> {
        if text.len() > DECIMAL_TEXT_BYTES_MAX {
            return Err(DecimalError::NotANumber);
        }
        let (is_negative, text) = split_sign(text);
        let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
            Some(at) => (&digits[..at], &digits[at + 1..]),
            None => (digits, &[][..]),
        };
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(DecimalError::NotANumber);
        }
        let magnitude = magnitude(&digits, exponent - fraction.len() as i64).ok_or(DecimalError::OutOfRange)?;
        Ok(if is_negative { Decimal { mantissa: -magnitude.mantissa, ..magnitude } } else { magnitude })
    }

    /// The sum; `None` if it is out of range.
    pub fn checked_add(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        Decimal::new(self.mantissa_at(scale)?.checked_add(other.mantissa_at(scale)?)?, scale)
    }

    /// The mantissa of the same number at a scale that is not smaller.
    fn mantissa_at(self, scale: u8) -> Option<i128> {
        self.mantissa.checked_mul(10i128.checked_pow(u32::from(scale - self.scale))?)
    }

    pub(crate) fn write(self, out: &mut impl Sink) {
        out.signed128(self.mantissa);
        out.u8(self.scale);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Decimal> {
        let found = Decimal { mantissa: reader.signed128()?, scale: reader.u8()? };
        Decimal::new(found.mantissa, found.scale).filter(|decimal| *decimal == found)
    }
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn parse_exponent(text: &[u8]) -> Result<i64, DecimalError> {
    let (is_negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::NotANumber);
    }
    // Far beyond what any number in range has, and far below an overflow.
    let exponent = digits.iter().fold(0, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1_000_000));
    Ok(if is_negative { -exponent } else { exponent })
}

/// These digits as a whole number, times ten to the power of `power`.
fn magnitude(digits: &[u8], power: i64) -> Option<Decimal> {
    let Some(first) = digits.iter().position(|digit| *digit != b'0') else { return Some(Decimal::default()) };
    let last = digits.iter().rposition(|digit| *digit != b'0')?;
    let power = power + (digits.len() - 1 - last) as i64;
    let add_digit = |sum: i128, digit: &u8| sum.checked_mul(10)?.checked_add(i128::from(digit - b'0'));
    let mantissa = digits[first..=last].iter().try_fold(0, add_digit)?;
    if power < 0 {
        return Decimal::new(mantissa, u8::try_from(-power).ok()?);
    }
    Decimal::new(mantissa.checked_mul(10i128.checked_pow(u32::try_from(power).ok()?)?)?, 0)
}

/// Without exponent, without zeros at the end, with a digit before the point.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(text: &str) -> Result<String, DecimalError> {
        Decimal::parse(text.as_bytes()).map(|decimal| decimal.to_string())
    }

    #[test]
    fn what_is_a_number_has_one_text() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00e99999999999", "0"),
            ("10.50", "10.5"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("0005", "5"),
            ("3.0e3", "3000"),
            ("5.0E+3", "5000"),
            ("200e-4", "0.02"),
            ("-1.5e-1", "-0.15"),
            ("1e37", "10000000000000000000000000000000000000"),
            ("1e-30", "0.000000000000000000000000000001"),
            ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
        ] {
            assert_eq!(text_of(text), Ok(expected.into()), "{text}");
        }
        // The zeros of a text do not count.
        assert_eq!(text_of(&format!("{}1.{}", "0".repeat(100), "0".repeat(100))), Ok("1".into()));
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_told_apart() {
        let others = [
            "", " 1", "1 ", "-", ".", "e5", "1e", "1e+", "1.2.3", "1e1e1", "1e1.0", "--1", "inf", "nan", "0x10", "1_0",
        ];
        for text in others {
            assert_eq!(text_of(text), Err(DecimalError::NotANumber), "{text}");
        }
        assert_eq!(text_of(&"1".repeat(DECIMAL_TEXT_BYTES_MAX + 1)), Err(DecimalError::NotANumber));
        for text in ["1e39", "1e-31", "1e999999999999999999999", "170141183460469231731687303715884105728"] {
            assert_eq!(text_of(text), Err(DecimalError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let parse = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
        let sum = |a: &str, b: &str| parse(a).checked_add(parse(b)).map(|sum| sum.to_string());
        assert_eq!(sum("0.1", "0.2"), Some("0.3".into()));
        assert_eq!(sum("10.50", "0.1"), Some("10.6".into()));
        assert_eq!(sum("1e8", "1e-30"), Some("100000000.000000000000000000000000000001".into()));
        assert_eq!(sum("1e9", "1e-30"), None);
        assert_eq!(sum("0.5", "-0.5"), Some("0".into()));
        assert_eq!(sum(&i128::MAX.to_string(), "1"), None);
        assert_eq!(sum(&(-i128::MAX).to_string(), "-1"), None);
    }

    proptest! {
        #[test]
        fn texts_and_bytes_are_read_again(mantissa in any::<i128>(), cut in 0u32..128, scale in 0u8..40) {
            let Some(decimal) = Decimal::new(mantissa >> cut, scale) else { return Ok(()) };
            prop_assert_eq!(Decimal::parse(decimal.to_string().as_bytes()), Ok(decimal));
            let mut bytes = Vec::new();
            decimal.write(&mut bytes);
            prop_assert_eq!(Decimal::read(&mut Reader::new(&bytes)), Some(decimal));
        }

        #[test]
        fn sums_are_those_of_whole_numbers(a in any::<i64>(), b in any::<i64>(), scale in 0u8..20) {
            let decimal = |number: i64| Decimal::new(i128::from(number), scale).unwrap();
            let sum = decimal(a).checked_add(decimal(b));
            prop_assert_eq!(sum, Decimal::new(i128::from(a) + i128::from(b), scale));
        }

        #[test]
        fn any_text_gives_a_number_or_an_error(text in "[-+0-9.eE]{0,60}") {
            if let Ok(decimal) = Decimal::parse(text.as_bytes()) {
                prop_assert_eq!(Decimal::parse(decimal.to_string().as_bytes()), Ok(decimal));
            }
        }
    }
}
