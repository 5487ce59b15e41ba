//! A key between two subtrees. Nodes are copied for the sake of views, and their keys with them, so a short one lies in the
//! node itself: no other memory has to be looked at.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Longest key that is kept in place.
const SHORT_BYTES_MAX: usize = 22;

/// A key of any length.
#[derive(Clone)]
pub(super) enum Separator {
    Short { bytes: u8, key: [u8; SHORT_BYTES_MAX] },
    Long(Arc<[u8]>),
}

const _: () = assert!(size_of::<Separator>() == 24);

impl From<&[u8]> for Separator {
    fn from(key: &[u8]) -> Self {
        let mut short = [0; SHORT_BYTES_MAX];
        match short.get_mut(..key.len()) {
            Some(place) => {
                place.copy_from_slice(key);
                Separator::Short { bytes: key.len() as u8, key: short }
            }
            None => Separator::Long(key.into()),
        }
    }
}

impl Deref for Separator {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Separator::Short { bytes, key } => &key[..usize::from(*bytes)],
            Separator::Long(key) => key,
        }
    }
}

impl fmt::Debug for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_around_the_limit() {
        for bytes in (0..=SHORT_BYTES_MAX + 2).chain([70_000]) {
            let key: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let separator = Separator::from(&key[..]);
            assert_eq!(*separator, key[..]);
            assert_eq!(matches!(separator, Separator::Short { .. }), bytes <= SHORT_BYTES_MAX);
        }
    }
}
