//! Finding the keys in which two stores differ, by bisection.
//!
//! Two ranges with equal digests are equal, so only ranges whose digests differ are cut, at a middle key by count. The
//! digest of the left half is asked for, that of the right half is the rest. A range that is short on both sides is
//! listed and compared pair by pair. With d differing keys that is O(d log n) questions.
//!
//! Both sides must be fixed views, of stores with one secret, at one index. Compared is what is stored, pairs that have
//! expired and are not removed yet included. Two states may also differ in the clock or the memory limit alone, which
//! the state hash shows and no key does. Questions and answers are plain data, so
//! that either side may be far away: [`DigestSource`] is what travels. A far side is not trusted: answers that do not
//! add up, which a moving store gives too, end the search with [`DiffError::Inconsistent`]. Since each cut must leave
//! something on both sides of it, the search ends whatever the answers are.

use std::cmp::Ordering;
use std::convert::Infallible;

use bytes::Bytes;
use thiserror::Error;

use crate::digest::{RangeDigest, Sum};
use crate::pair::Version;
use crate::read_view::ReadView;

/// Most pairs in one answer to [`DigestSource::pairs_of`].
pub const PAIRS_COUNT_MAX: usize = 32;

/// Keys at or after `from` and before `to`; `None` has no end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in the range.
    pub from: Bytes,
    /// The first key that is not.
    pub to: Option<Bytes>,
}

/// What tells two pairs of a key apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSummary {
    /// The key.
    pub key: Bytes,
    /// Its last write.
    pub version: Version,
    /// What the pair adds to the sum, computed from its bytes.
    pub contribution: Sum,
}

/// One side of a comparison: a fixed view, here or far away.
pub trait DigestSource {
    /// Why a question has no answer.
    type Error;

    /// Count, bytes and sum of a range.
    ///
    /// # Errors
    ///
    /// There is no answer.
    fn digest_of(&mut self, range: &KeyRange) -> Result<RangeDigest, Self::Error>;

    /// The key that half of the pairs of a range are before; `None` if the range has fewer than two.
    ///
    /// # Errors
    ///
    /// There is no answer.
    fn middle_of(&mut self, range: &KeyRange) -> Result<Option<Bytes>, Self::Error>;

    /// The pairs of a range in order, at most the first [`PAIRS_COUNT_MAX`].
    ///
    /// # Errors
    ///
    /// There is no answer.
    fn pairs_of(&mut self, range: &KeyRange) -> Result<Vec<PairSummary>, Self::Error>;
}

/// How two stores differ in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the first store has the key.
    OnlyInA,
    /// Only the second store has the key.
    OnlyInB,
    /// Both have it, with another value, version, creation index or deadline.
    Differs,
}

/// A key in which two stores differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// How.
    pub kind: DifferenceKind,
}

/// Why a comparison came to no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DiffError<A, B> {
    /// The first side gave no answer.
    #[error("the first side: {0}")]
    A(A),
    /// The second side gave no answer.
    #[error("the second side: {0}")]
    B(B),
    /// The answers of one side contradict each other: it is no fixed view, its sums are wrong, or it lies.
    #[error("the answers of the {} side contradict each other", if *.first { "first" } else { "second" })]
    Inconsistent {
        /// Whether it is the first side.
        first: bool,
    },
}

/// The keys in which `a` and `b` differ, in order, at most the first `limit`.
///
/// ```
/// use kv_store::{Index, Op, PutManyCondition, Store, diff::diff};
///
/// let (mut a, mut b) = (Store::new([7; 32]), Store::new([7; 32]));
/// let pairs = vec![(&b"k"[..], &b"v"[..]), (b"l", b"w")];
/// let op = Op::PutMany { pairs, condition: PutManyCondition::Always }.encode().unwrap();
/// a.apply(Index::new(1), 0, &op);
/// b.apply(Index::new(1), 0, &op);
/// b.apply(Index::new(2), 0, &Op::Delete { keys: vec![b"l"] }.encode().unwrap());
///
/// let found = diff(&mut a.view(), &mut b.view(), 10).unwrap();
/// assert_eq!(found[0].key, "l");
/// ```
///
/// # Errors
///
/// A side gave no answer, or answers that contradict each other.
pub fn diff<A: DigestSource, B: DigestSource>(
    a: &mut A,
    b: &mut B,
    limit: usize,
) -> Result<Vec<Difference>, DiffError<A::Error, B::Error>> {
    let range = KeyRange::default();
    let digest_a = a.digest_of(&range).map_err(DiffError::A)?;
    let digest_b = b.digest_of(&range).map_err(DiffError::B)?;
    // The leftmost span is on top, so that differences are found in order.
    let mut spans = vec![Span { range, a: digest_a, b: digest_b }];
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(span) = spans.pop() else { break };
        if span.a == span.b {
            continue;
        }
        if span.a.count.max(span.b.count) <= PAIRS_COUNT_MAX as u64 {
            compare(a, b, &span, &mut found)?;
        } else {
            let (left, right) = cut(a, b, span)?;
            spans.push(right);
            spans.push(left);
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// A range and what each side says of it.
struct Span {
    range: KeyRange,
    a: RangeDigest,
    b: RangeDigest,
}

/// Cuts at the middle of the side that has more, so that the greater count falls with every cut.
fn cut<A: DigestSource, B: DigestSource>(
    a: &mut A,
    b: &mut B,
    span: Span,
) -> Result<(Span, Span), DiffError<A::Error, B::Error>> {
    let by_a = span.a.count >= span.b.count;
    let at = if by_a {
        a.middle_of(&span.range).map_err(DiffError::A)?
    } else {
        b.middle_of(&span.range).map_err(DiffError::B)?
    };
    let inconsistent = |first| DiffError::Inconsistent { first };
    let at = at.filter(|at| span.range.has_inside(at)).ok_or(inconsistent(by_a))?;
    let left = KeyRange { from: span.range.from, to: Some(at.clone()) };
    let right = KeyRange { from: at, to: span.range.to };

    let left_a = a.digest_of(&left).map_err(DiffError::A)?;
    let left_b = b.digest_of(&left).map_err(DiffError::B)?;
    let right_a = span.a.checked_sub(left_a).ok_or(inconsistent(true))?;
    let right_b = span.b.checked_sub(left_b).ok_or(inconsistent(false))?;
    let halves = if by_a { (left_a, right_a) } else { (left_b, right_b) };
    if halves.0.count == 0 || halves.1.count == 0 {
        return Err(inconsistent(by_a));
    }
    Ok((Span { range: left, a: left_a, b: left_b }, Span { range: right, a: right_a, b: right_b }))
}

/// Lists a short range on both sides and merges the lists.
fn compare<A: DigestSource, B: DigestSource>(
    a: &mut A,
    b: &mut B,
    span: &Span,
    found: &mut Vec<Difference>,
) -> Result<(), DiffError<A::Error, B::Error>> {
    let pairs_a = a.pairs_of(&span.range).map_err(DiffError::A)?;
    let pairs_b = b.pairs_of(&span.range).map_err(DiffError::B)?;
    if !adds_up(&pairs_a, &span.range, &span.a) {
        return Err(DiffError::Inconsistent { first: true });
    }
    if !adds_up(&pairs_b, &span.range, &span.b) {
        return Err(DiffError::Inconsistent { first: false });
    }
    merge(&pairs_a, &pairs_b, found);
    Ok(())
}

/// Whether these can be the pairs of the range that has this digest.
fn adds_up(pairs: &[PairSummary], range: &KeyRange, digest: &RangeDigest) -> bool {
    let sum = pairs.iter().fold(Sum::ZERO, |sum, pair| sum + pair.contribution);
    pairs.is_sorted_by(|left, right| left.key < right.key)
        && pairs.iter().all(|pair| pair.key == range.from || range.has_inside(&pair.key))
        && pairs.len() as u64 == digest.count
        && sum == digest.sum
}

/// Walks both lists in step: the lesser of the two first keys is the next one.
fn merge(mut a: &[PairSummary], mut b: &[PairSummary], found: &mut Vec<Difference>) {
    loop {
        let order = match (a.first(), b.first()) {
            (Some(left), Some(right)) => left.key.cmp(&right.key),
            (_, None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let in_a = if order.is_le() { a.split_off_first() } else { None };
        let in_b = if order.is_ge() { b.split_off_first() } else { None };
        let (pair, kind) = match (in_a, in_b) {
            (None, None) => return,
            (Some(left), Some(right)) if left == right => continue,
            (Some(left), Some(_)) => (left, DifferenceKind::Differs),
            (Some(left), None) => (left, DifferenceKind::OnlyInA),
            (None, Some(right)) => (right, DifferenceKind::OnlyInB),
        };
        found.push(Difference { key: pair.key.clone(), kind });
    }
}

impl KeyRange {
    /// Whether `key` is after the beginning and before the end: a place to cut.
    fn has_inside(&self, key: &Bytes) -> bool {
        self.from < *key && self.to.as_ref().is_none_or(|to| key < to)
    }
}

impl DigestSource for ReadView {
    type Error = Infallible;

    fn digest_of(&mut self, range: &KeyRange) -> Result<RangeDigest, Infallible> {
        Ok(self.range_digest(&range.from, range.to.as_deref()))
    }

    fn middle_of(&mut self, range: &KeyRange) -> Result<Option<Bytes>, Infallible> {
        let count = self.range_digest(&range.from, range.to.as_deref()).count;
        if count < 2 {
            return Ok(None);
        }
        let middle = self.rank(&range.from) + count / 2;
        Ok(self.nth(middle).map(|(key, _)| Bytes::copy_from_slice(key)))
    }

    fn pairs_of(&mut self, range: &KeyRange) -> Result<Vec<PairSummary>, Infallible> {
        let pairs = self.stored_range(&range.from, range.to.as_deref()).take(PAIRS_COUNT_MAX);
        Ok(pairs
            .map(|(key, pair)| PairSummary {
                key: Bytes::copy_from_slice(key),
                version: pair.version,
                contribution: self.secret().contribution(key, &pair),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
