//! Entries that many hold at once.

use std::fmt;
use std::ops::{Deref, Range};
use std::slice;
use std::sync::Arc;

use crate::types::Entry;

/// Entries of a log, shared: a clone, or a part, costs one count, whatever their number. They are in the leader's log, in a
/// message to every follower, on their way to the disk and to the state machine at the same time.
///
/// ```
/// use bytes::BytesMut;
/// use kv_repl::types::{Entries, Entry, EntryId, Index, Term, kind};
///
/// let mut buffer = BytesMut::new();
/// let id = |index| EntryId::new(Term::new(1), Index::new(index));
/// let all: Entries = (1..=3).map(|n| Entry::encode(&mut buffer, id(n), 0, kind::COMMAND, b"x")).collect();
/// assert_eq!(all.part(1..3)[0].index(), Index::new(2));
/// ```
#[derive(Clone, Default)]
pub struct Entries(Held);

/// One entry is shared by itself.
#[derive(Clone, Default)]
enum Held {
    #[default]
    None,
    One(Entry),
    /// More than one: the part `range` of `batch`.
    Many {
        batch: Arc<[Entry]>,
        range: Range<usize>,
    },
}

impl Entries {
    /// Those at these positions.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Entries {
        match (&self[range.clone()], &self.0) {
            ([], _) => Entries::default(),
            ([one], _) => Entries(Held::One(one.clone())),
            (_, Held::Many { batch, range: of_batch }) => {
                let range = of_batch.start + range.start..of_batch.start + range.end;
                Entries(Held::Many { batch: batch.clone(), range })
            }
            (_, Held::None | Held::One(_)) => unreachable!("more than one are many"),
        }
    }

    /// Bytes of their frames.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|entry| entry.frame().len()).sum()
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match &self.0 {
            Held::None => &[],
            Held::One(entry) => slice::from_ref(entry),
            Held::Many { batch, range } => &batch[range.clone()],
        }
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(mut batch: Vec<Entry>) -> Entries {
        match batch.len() {
            0 => Entries::default(),
            1 => Entries(batch.pop().map_or(Held::None, Held::One)),
            count => Entries(Held::Many { batch: batch.into(), range: 0..count }),
        }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Entries {
        Vec::from_iter(entries).into()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::tests::entries;

    /// What is done to the first of all that are held; the number picks the place.
    #[derive(Clone, Debug)]
    enum Step {
        Part(u64, u64),
        New(u64),
        Hold,
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..9, 0u64..9).prop_map(|(start, count)| Step::Part(start, count)),
            (0u64..9).prop_map(Step::New),
            Just(Step::Hold),
            Just(Step::Drop),
        ]
    }

    proptest! {
        /// Whoever holds some of the same entries sees the same ones for ever.
        #[test]
        fn act_like_vectors_of_their_own(steps in proptest::collection::vec(step(), 1..40)) {
            let mut held = vec![(Entries::default(), Vec::new())];
            for step in steps {
                let (shared, own) = &mut held[0];
                match step {
                    Step::Part(start, count) => {
                        let start = (start as usize).min(own.len());
                        let end = (start + count as usize).min(own.len());
                        (*shared, *own) = (shared.part(start..end), own[start..end].to_vec());
                    }
                    Step::New(count) => {
                        *own = entries(1, 1..=count);
                        *shared = own.clone().into();
                    }
                    Step::Hold => {
                        let copy = (shared.clone(), own.clone());
                        held.push(copy);
                    }
                    Step::Drop => held.truncate(1),
                }
                for (shared, own) in &held {
                    prop_assert_eq!(&shared[..], &own[..]);
                    prop_assert_eq!(shared.bytes(), own.iter().map(|entry| entry.frame().len()).sum::<usize>());
                }
            }
        }
    }

    #[test]
    fn a_part_is_the_same_memory() {
        let all = Entries::from(entries(1, 1..=4));
        assert_eq!(all.part(1..4).as_ptr(), all[1..].as_ptr());
        assert_eq!(all.part(1..4).part(1..3).as_ptr(), all[2..].as_ptr());
        assert_eq!(all.part(2..2), Entries::default());
    }
}
