//! Patterns of `SCAN ... MATCH`, `CONFIG GET` and `COMMAND LIST FILTERBY PATTERN`.
//!
//! `*` any bytes, `?` one byte, `[abc]`, `[a-z]`, `[^a]` one byte of a class, `\x` the byte x itself. As in Redis a class
//! without end reaches to the end of the pattern.
//!
//! On a mismatch only the last `*` is tried again, one byte later: an earlier star can only make way for the same
//! suffix, so nothing is lost, and the time is bounded by pattern length times text length. The recursive form is
//! exponential, which a hostile pattern would use.

/// Whether the whole text matches.
pub(super) fn matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        if let (Some(&byte), false) = (text.first(), pattern.is_empty()) {
            let (matched, rest) = match_one(pattern, byte);
            if matched {
                (pattern, text) = (rest, &text[1..]);
                continue;
            }
        } else if text.is_empty() && pattern.is_empty() {
            return true;
        }
        match retry {
            Some((after_star, [_, later @ ..])) => {
                (pattern, text) = (after_star, later);
                retry = Some((after_star, later));
            }
            _ => return false,
        }
    }
}

/// Matches the first element of a pattern, which is no star, and gives what follows the element.
fn match_one(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', class @ ..] => {
            let (inside, rest) = match_class(class, byte);
            (!inside, rest)
        }
        [b'[', class @ ..] => match_class(class, byte),
        [b'\\', literal, rest @ ..] => (*literal == byte, rest),
        [literal, rest @ ..] => (*literal == byte, rest),
        [] => (false, pattern),
    }
}

fn match_class(mut class: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut inside = false;
    loop {
        class = match class {
            [] => return (inside, class),
            [b']', rest @ ..] => return (inside, rest),
            [b'\\', literal, rest @ ..] => {
                inside |= *literal == byte;
                rest
            }
            [low, b'-', high, rest @ ..] => {
                inside |= (*low.min(high)..=*low.max(high)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                inside |= *literal == byte;
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        for text in matching {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should match {text}");
        }
        for text in other {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn every_element() {
        check("", &[""], &["a"]);
        check("*", &["", "a", "abc"], &[]);
        check("h?llo", &["hello", "hallo"], &["hllo", "heello"]);
        check("h*llo", &["hllo", "heeello"], &["hell"]);
        check("h[ae]llo", &["hello", "hallo"], &["hillo"]);
        check("h[^e]llo", &["hallo"], &["hello"]);
        check("h[a-c]llo", &["hbllo"], &["hdllo"]);
        check("h[c-a]llo", &["hbllo"], &["hdllo"]);
        check(r"h[\]]", &["h]"], &["h\\"]);
        check(r"\*", &["*"], &["a"]);
        check("a*b*c", &["abc", "aXbXbXc"], &["acb"]);
        check("[ab", &["a", "b"], &["c", ""]);
        check("user:*:name", &["user:1:name", "user::name"], &["user:1:names"]);
    }

    #[test]
    fn a_hostile_pattern_is_no_trouble() {
        let pattern = "a*".repeat(1000) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 5000]));
    }

    /// The definition, exponential and plain.
    fn twin(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skipped| twin(rest, &text[skipped..])),
            _ => text.first().is_some_and(|byte| {
                let (matched, rest) = match_one(pattern, *byte);
                matched && twin(rest, &text[1..])
            }),
        }
    }

    proptest! {
        #[test]
        fn equals_the_recursive_definition(pattern in r"[ab*?\[\]^\\-]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), twin(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(pattern in proptest::collection::vec(any::<u8>(), 0..30),
                                       text in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = matches(&pattern, &text);
        }
    }
}
