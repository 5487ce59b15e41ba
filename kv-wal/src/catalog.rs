//! Where every durable entry lies: four bytes an entry, shared by the writer and all readers.
//!
//! A span is a run of consecutive entries in one segment, with the offset of each; batches need not be remembered, since
//! an entry tells its own length. Spans are in the order of their indexes, and because a lower index is never written
//! after a higher one that stays, also in the order of their segments. Damaged ranges are the gaps between spans.
//!
//! Readers take a read lock for as long as it takes to copy the offsets they want, and touch the map after releasing it:
//! a page fault of a reader never holds up the writer, who takes the write lock once a sync.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Damage, Error};
use crate::record::{EntryId, HEADER_BYTES, Index, Term};
use crate::segment::Segment;

/// The durable log as a whole.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    base: EntryId,
    last: EntryId,
    spans: VecDeque<Span>,
    /// First entry of each run of equal terms.
    runs: VecDeque<EntryId>,
    /// Ranges that are gone, in order. Empty but for a log that was opened damaged.
    damage: Vec<Damage>,
}

#[derive(Debug)]
struct Span {
    first: Index,
    segment: Arc<Segment>,
    /// In the segment, of entry `first` and those that follow it.
    offsets: Vec<u32>,
}

/// What a batch brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) base: EntryId,
    pub(crate) last: EntryId,
    pub(crate) segment: &'a Arc<Segment>,
    /// Of the batch, in its segment.
    pub(crate) offset: u32,
    /// Of its entries, in the batch.
    pub(crate) offsets: &'a [u32],
    /// First entry of each run of equal terms among them.
    pub(crate) runs: &'a [EntryId],
}

/// Entries that lie in one segment.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offsets: Vec<u32>,
}

impl Span {
    /// Index after the last entry.
    fn end(&self) -> Index {
        self.first.plus(self.offsets.len() as u64)
    }
}

impl Catalog {
    /// A log that holds nothing after `last`, and of which nothing up to there is here.
    pub(crate) fn starting_at(base: EntryId, last: EntryId) -> Self {
        Catalog { base, last, ..Catalog::default() }
    }

    pub(crate) fn base(&self) -> EntryId {
        self.base
    }

    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    /// Entries that are here.
    pub(crate) fn entries(&self) -> u64 {
        self.spans.iter().map(|span| span.end().since(span.first.max(self.base.index.next()))).sum()
    }

    pub(crate) fn runs(&self) -> Vec<EntryId> {
        self.runs.iter().copied().collect()
    }

    pub(crate) fn set_damage(&mut self, damage: Vec<Damage>) {
        self.damage = damage;
    }

    /// The oldest segment that an entry still lies in.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.spans.front().map(|span| span.segment.seq)
    }

    /// Takes over a batch: what it overrides goes, what it brings comes, what its base passes goes.
    pub(crate) fn apply(&mut self, change: Change<'_>) {
        let first = Index::new(change.last.index.get() + 1 - change.offsets.len() as u64);
        self.cut(first);
        self.extend(first, &change);
        self.last = change.last;
        self.rebase(change.base);
    }

    /// Forgets the entries from `first` on.
    pub(crate) fn cut(&mut self, first: Index) {
        while self.spans.back().is_some_and(|span| span.first >= first) {
            self.spans.pop_back();
        }
        if let Some(span) = self.spans.back_mut() {
            span.offsets.truncate(first.since(span.first) as usize);
        }
        while self.runs.back().is_some_and(|run| run.index >= first) {
            self.runs.pop_back();
        }
    }

    fn extend(&mut self, first: Index, change: &Change<'_>) {
        let offsets = change.offsets.iter().map(|offset| change.offset + offset);
        if change.offsets.is_empty() {
            return;
        }
        let follows = self.spans.back().is_some_and(|span| span.end() == first);
        let same_run = follows && self.runs.back().map(|run| run.term) == change.runs.first().map(|run| run.term);
        self.runs.extend(change.runs.iter().skip(usize::from(same_run)));
        match self.spans.back_mut() {
            Some(span) if follows && Arc::ptr_eq(&span.segment, change.segment) => span.offsets.extend(offsets),
            _ => {
                let (segment, offsets) = (change.segment.clone(), offsets.collect());
                self.spans.push_back(Span { first, segment, offsets });
            }
        }
    }

    fn rebase(&mut self, base: EntryId) {
        self.base = base;
        while self.spans.front().is_some_and(|span| span.end() <= base.index.next()) {
            self.spans.pop_front();
        }
        if self.spans.is_empty() {
            self.runs.clear();
        }
        while self.runs.get(1).is_some_and(|run| run.index <= base.index.next()) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.index = run.index.max(base.index.next());
        }
    }

    /// The term of an entry, or of the base; `None` if the entry is not here.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index >= self.spans[self.span_of(index)?].end() {
            return None;
        }
        let run = self.runs.partition_point(|run| run.index <= index) - 1;
        Some(self.runs[run].term)
    }

    /// Where the entries of `range` lie, as far as they can make up `bytes_max` bytes: at least the first, and no further
    /// than to the next damage.
    pub(crate) fn locate(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Piece>, Error> {
        let (start, end) = (range.start, range.end.min(self.last.index.next()));
        self.check(start)?;
        let count_max = bytes_max / HEADER_BYTES + 1;
        let mut wanted = end.since(start).min(count_max as u64) as usize;
        let mut next = start;
        let mut pieces = Vec::new();
        let mut at = self.span_of(start).unwrap_or(self.spans.len());
        while wanted > 0
            && let Some(span) = self.spans.get(at)
            && (span.first..span.end()).contains(&next)
        {
            let skip = next.since(span.first) as usize;
            let offsets: Vec<u32> = span.offsets[skip..].iter().copied().take(wanted).collect();
            next = next.plus(offsets.len() as u64);
            wanted -= offsets.len();
            pieces.push(Piece { segment: span.segment.clone(), offsets });
            at += 1;
        }
        Ok(pieces)
    }

    /// Whether the entry is here, and if not, why.
    fn check(&self, index: Index) -> Result<(), Error> {
        if index <= self.base.index {
            return Err(Error::Truncated { index, base: self.base.index });
        }
        if let Some(&damage) = self.damage.iter().find(|d| d.first <= index && d.last.is_none_or(|last| index <= last))
        {
            return Err(Error::Damaged { damage });
        }
        if index > self.last.index {
            return Err(Error::OutOfRange { index, base: self.base.index, last: self.last.index });
        }
        Ok(())
    }

    /// Position of the last span that starts at or before `index`.
    fn span_of(&self, index: Index) -> Option<usize> {
        self.spans.partition_point(|span| span.first <= index).checked_sub(1)
    }
}
