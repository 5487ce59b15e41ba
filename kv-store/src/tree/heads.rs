//! Search in a node without looking at the keys.
//!
//! A search that compares keys waits for memory at each step, since each key lies somewhere else. So a node keeps four
//! bytes of each key in one array, its *heads*: those after the prefix that all keys of the node share, as a big-endian
//! number, padded with zeros. If one key is before another, its head is not greater; so keys are compared only where
//! heads are equal. (Graefe, "Modern B-tree techniques", 2011, sections 3.2 and 3.3: poor man's normalized keys after
//! prefix truncation.)
//!
//! The prefix need only be shared, not the longest one that is: a removal leaves it as it is. An insertion of a key
//! without it, a split and a merge look at the keys again.
//!
//! The keys are not here: whoever keeps them says how many there are, and what the key at a place is.

/// Bytes of a shared prefix that a node leaves out of its heads, at most.
const PREFIX_BYTES_MAX: usize = 31;

/// Prefix and heads of at most `N` keys.
#[derive(Clone, Debug)]
pub(super) struct Heads<const N: usize> {
    prefix: [u8; PREFIX_BYTES_MAX],
    prefix_bytes: u8,
    heads: [u32; N],
}

impl<const N: usize> Heads<N> {
    /// Those of no keys.
    pub(super) fn new() -> Self {
        Heads { prefix: [0; PREFIX_BYTES_MAX], prefix_bytes: 0, heads: [0; N] }
    }

    /// Where `key` is among `count` keys, or where it would be.
    pub(super) fn find<'a>(
        &self,
        key: &[u8],
        count: usize,
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let prefix = self.prefix();
        let head = match key.strip_prefix(prefix) {
            Some(rest) => head(rest),
            None if key < prefix => return Err(0),
            None => return Err(count),
        };
        // Counting all of them takes fewer cycles than the memory it waits for; a binary search would wait thrice.
        let heads = &self.heads[..count];
        let first: usize = heads.iter().map(|other| usize::from(*other < head)).sum();
        let equal = heads[first..].iter().take_while(|other| **other == head).count();
        for at in first..first + equal {
            match key_at(at).cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(at),
                std::cmp::Ordering::Greater => return Err(at),
            }
        }
        Err(first + equal)
    }

    /// A key is put at `at`, before which there were `count`. False if it does not have the prefix: then all heads are to be
    /// made anew.
    #[must_use]
    pub(super) fn insert(&mut self, at: usize, count: usize, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(self.prefix()) else { return false };
        let head = head(rest);
        self.heads.copy_within(at..count, at + 1);
        self.heads[at] = head;
        true
    }

    /// The key at `at` of `count` is gone.
    pub(super) fn remove(&mut self, at: usize, count: usize) {
        self.heads.copy_within(at + 1..count, at);
    }

    /// Makes prefix and heads anew. What the first and the last key share, all between them share.
    pub(super) fn look_at_keys<'a>(&mut self, count: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        if count == 0 {
            self.prefix_bytes = 0;
            return;
        }
        let (first, last) = (key_at(0), key_at(count - 1));
        let shared = first.iter().zip(last).take(PREFIX_BYTES_MAX).take_while(|(a, b)| a == b).count();
        self.prefix[..shared].copy_from_slice(&first[..shared]);
        self.prefix_bytes = shared as u8;
        for (at, slot) in self.heads[..count].iter_mut().enumerate() {
            *slot = head(&key_at(at)[shared..]);
        }
    }

    fn prefix(&self) -> &[u8] {
        &self.prefix[..usize::from(self.prefix_bytes)]
    }
}

/// The first four bytes as a number that orders as they do.
fn head(rest: &[u8]) -> u32 {
    match rest.first_chunk::<4>() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 4];
            bytes[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(bytes)
        }
    }
}
