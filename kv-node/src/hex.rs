//! Hashes as text.

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes that [`hex`] wrote.
pub(crate) fn parse_hash(text: &[u8]) -> Option<[u8; 32]> {
    let (digits, []) = text.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> = digits.iter().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    bytes?.try_into().ok()
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_hash_is_refused() {
        let hash = "0".repeat(64);
        assert!(parse_hash(hash.as_bytes()).is_some());
        assert_eq!(parse_hash(&hash.as_bytes()[1..]), None);
        assert_eq!(parse_hash(hash.replace('0', "g").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn a_hash_is_read_back(hash in any::<[u8; 32]>()) {
            prop_assert_eq!(parse_hash(hex(&hash).as_bytes()), Some(hash));
        }
    }
}
