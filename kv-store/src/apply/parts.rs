//! Writes to a part of a value.

use super::{Applying, Draft};
use crate::op::VALUE_BYTES_MAX;
use crate::outcome::Outcome;

impl Applying<'_> {
    pub(super) fn append(&mut self, key: &[u8], more: &[u8]) -> Outcome {
        let present = self.live(key);
        let before = present.map_or(&b""[..], |pair| pair.value);
        let length = before.len() + more.len();
        if length > VALUE_BYTES_MAX {
            return Outcome::TooLarge;
        }
        let draft = Draft::over(present, [before, more].concat());
        self.write_and(key, draft, Outcome::Length(length as u64))
    }

    pub(super) fn set_range(&mut self, key: &[u8], offset: u64, part: &[u8]) -> Outcome {
        let present = self.live(key);
        let before = present.map_or(&b""[..], |pair| pair.value);
        if part.is_empty() {
            return Outcome::Length(before.len() as u64);
        }
        // An offset that is no usize is above the limit, whatever the machine.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset.saturating_add(part.len());
        if end > VALUE_BYTES_MAX {
            return Outcome::TooLarge;
        }
        let mut value = before.to_vec();
        value.resize(before.len().max(end), 0);
        value[offset..end].copy_from_slice(part);
        let length = value.len() as u64;
        let draft = Draft::over(present, value);
        self.write_and(key, draft, Outcome::Length(length))
    }
}
