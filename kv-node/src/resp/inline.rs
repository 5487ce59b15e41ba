//! Requests typed by hand: words on one line, quoted where they hold blanks.
//!
//! The rules are those of Redis: `"..."` knows the escapes `\n \r \t \b \a \\ \" \xHH`, `'...'` knows only `\'`, and a
//! closing quote must be followed by a blank or by the end of the line.

use bytes::Bytes;

/// Splits a line into words; `None` if the quotes do not match.
pub(super) fn split_words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let (word, after) = take_word(rest)?;
        words.push(Bytes::from(word));
        rest = after.trim_ascii_start();
    }
    Some(words)
}

fn take_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let [first, after @ ..] = rest {
        rest = match first {
            byte if byte.is_ascii_whitespace() => break,
            b'"' => take_double_quoted(after, &mut word)?,
            b'\'' => take_single_quoted(after, &mut word)?,
            byte => {
                word.push(*byte);
                after
            }
        };
    }
    Some((word, rest))
}

fn take_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(unescape(*escaped));
                after
            }
            [b'"', after @ ..] => return ends_word(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return ends_word(after),
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return None,
        };
    }
}

fn ends_word(after: &[u8]) -> Option<&[u8]> {
    after.first().is_none_or(u8::is_ascii_whitespace).then_some(after)
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// The value of a character known to be a hexadecimal digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(line: &str, expected: Option<&[&[u8]]>) {
        let words = split_words(line.as_bytes());
        let words: Option<Vec<&[u8]>> = words.as_ref().map(|words| words.iter().map(|word| &word[..]).collect());
        assert_eq!(words.as_deref(), expected, "{line:?}");
    }

    #[test]
    fn words_and_quotes() {
        check("", Some(&[]));
        check("  PING  ", Some(&[b"PING"]));
        check("set a\t\"b c\"", Some(&[b"set", b"a", b"b c"]));
        check(r#"set a "\x41\n\"\q\xzz""#, Some(&[b"set", b"a", b"A\n\"qxzz"]));
        check(r"set a 'b \n \' c'", Some(&[b"set", b"a", br"b \n ' c"]));
        check("set a ''", Some(&[b"set", b"a", b""]));
        check("set \"a", None);
        check("set 'a", None);
        check("set \"a\"b", None);
        check("set 'a'b", None);
        check("set \"a\\", None);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = split_words(&line);
        }

        #[test]
        fn escaped_words_come_back(words in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let line: Vec<String> = words.iter()
                .map(|word| format!("\"{}\"", word.iter().map(|b| format!("\\x{b:02x}")).collect::<String>())).collect();
            let split = split_words(line.join(" ").as_bytes()).unwrap();
            prop_assert_eq!(split, words);
        }
    }
}
