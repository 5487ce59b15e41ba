//! Where every durable entry lies: four bytes an entry, shared by the writer and all readers.
//!
//! A span is a run of consecutive entries in one segment, with the offset of each; batches need not be remembered, since
//! an entry tells its own length. Spans are in the order of their indexes. Damaged ranges are the gaps between spans; a
//! repair puts a span of a newer segment there.
//!
//! Readers take a read lock for as long as it takes to copy the offsets they want, and touch the map after releasing it:
//! a page fault of a reader never holds up the writer, who takes the write lock once a sync.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::damage::DamageList;
use crate::error::{Damage, Error};
use crate::format::{PAGE_BYTES, SECTOR_BYTES};
use crate::log::Stats;
use crate::record::{EntryId, HEADER_BYTES, Index, Term};
use crate::segment::Segment;

/// The durable log as a whole.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    base: EntryId,
    last: EntryId,
    /// How often the end of the log has been cut.
    cuts: u32,
    spans: VecDeque<Span>,
    /// First entry of each run of equal terms.
    runs: VecDeque<EntryId>,
    damage: DamageList,
    /// All segments of the log, oldest first.
    segments: VecDeque<Arc<Segment>>,
    /// Entries that are here, and that the next opening would find lost.
    suspects: DamageList,
}

#[derive(Debug)]
struct Span {
    first: Index,
    segment: Arc<Segment>,
    /// In the segment, of entry `first` and those that follow it.
    offsets: Vec<u32>,
}

/// Consecutive entries of a batch, and where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) first: Index,
    pub(crate) segment: &'a Arc<Segment>,
    /// Of the batch, in its segment.
    pub(crate) offset: u32,
    /// Of the entries, in the batch.
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

    /// The offsets of at most `count` entries from number `skip` on, as far as they can lie within `bytes_max` bytes; at
    /// least one. And how much they hold at least.
    fn first_bytes(&self, skip: usize, count: usize, bytes_max: usize) -> (Vec<u32>, usize) {
        let mut bytes = 0;
        let mut end = skip + 1;
        while end - skip < count && end < self.offsets.len() {
            // Neighbours of one batch tell how much lies between them; a batch starts on a fresh page.
            let starts_batch = self.offsets[end] as usize % PAGE_BYTES == SECTOR_BYTES;
            let between = (self.offsets[end] - self.offsets[end - 1]) as usize;
            bytes += if starts_batch { HEADER_BYTES } else { between };
            if bytes >= bytes_max {
                break;
            }
            end += 1;
        }
        (self.offsets[skip..end].into(), bytes)
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

    /// Indexes of the log that no span has.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<Index>> {
        let begins = self.spans.iter().map(|span| span.first).chain([self.last.index.next()]);
        let ends = iter::once(self.base.index.next()).chain(self.spans.iter().map(Span::end));
        ends.zip(begins).map(|(end, next)| end..next).filter(|gap| !gap.is_empty())
    }

    pub(crate) fn runs(&self) -> Vec<EntryId> {
        self.runs.iter().copied().collect()
    }

    pub(crate) fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }

    pub(crate) fn set_damage(&mut self, damage: DamageList) {
        self.damage = damage;
    }

    /// Forgets the entries that count as lost though they are here.
    pub(crate) fn lose(&mut self, damage: &DamageList) {
        for range in damage.ranges() {
            let end = range.last.map_or(Index::new(u64::MAX), Index::next);
            if self.spans.iter().any(|span| span.first < end && range.first < span.end()) {
                let after = self.take_from(end);
                self.cut_spans(range.first);
                self.put_back(after);
            }
        }
        self.set_damage(damage.clone());
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.cuts
    }

    pub(crate) fn set_cuts(&mut self, cuts: u32) {
        self.cuts = cuts;
    }

    pub(crate) fn suspects(&self) -> &DamageList {
        &self.suspects
    }

    /// The first segment after number `seq`, and whether it is the last.
    pub(crate) fn segment_after(&self, seq: u64) -> Option<(Arc<Segment>, bool)> {
        let at = self.segments.partition_point(|segment| segment.seq <= seq);
        Some((self.segments.get(at)?.clone(), at + 1 == self.segments.len()))
    }

    pub(crate) fn add_segment(&mut self, newest: Arc<Segment>) {
        self.segments.push_back(newest);
    }

    /// Takes out the oldest segments while no entry lies in them; never the newest.
    pub(crate) fn take_empty_segments(&mut self) -> Vec<Arc<Segment>> {
        let Some(newest) = self.segments.back().filter(|_| self.segments.len() > 1) else { return Vec::new() };
        // A repair may have put an old entry into a new segment.
        let oldest = self.spans.iter().map(|span| span.segment.seq).min().unwrap_or(newest.seq);
        iter::from_fn(|| self.segments.pop_front_if(|segment| segment.seq < oldest)).collect()
    }

    /// What is there now, beside what has been counted.
    pub(crate) fn complete(&self, counted: Stats) -> Stats {
        let offsets: usize = self.spans.iter().map(|span| span.offsets.capacity() * size_of::<u32>()).sum();
        let ends = self.spans.capacity() * size_of::<Span>() + self.runs.capacity() * size_of::<EntryId>();
        Stats {
            segments: self.segments.len() as u64,
            mapped_bytes: self.segments.iter().map(|segment| segment.bytes).sum(),
            index_bytes: (offsets + ends) as u64,
            ..counted
        }
    }

    /// The entries that lie in a part of a segment, and where.
    pub(crate) fn entries_in(&self, segment: &Arc<Segment>, part: &Range<usize>) -> Vec<(Index, u32)> {
        let spans = self.spans.iter().filter(|span| Arc::ptr_eq(&span.segment, segment));
        let entries = spans.flat_map(|span| (0..).map(|at| span.first.plus(at)).zip(span.offsets.iter().copied()));
        entries.filter(|&(index, offset)| index > self.base.index && part.contains(&(offset as usize))).collect()
    }

    /// Makes suspects of all entries before `end` that were written before a place in segment number `seq`, and gives them.
    pub(crate) fn suspect_before(&mut self, end: Index, (seq, offset): (u64, usize)) -> DamageList {
        let mut found = DamageList::default();
        for span in self.spans.iter().filter(|span| span.segment.seq <= seq) {
            let is_all = span.segment.seq < seq;
            let written = span.offsets.partition_point(|&at| is_all || (at as usize) < offset);
            let first = span.first.max(self.base.index.next());
            found.add(first, span.first.plus(written as u64).min(end));
        }
        self.suspects.add_all(&found);
        found
    }

    /// Makes suspects of entries that still lie at these offsets of a segment, and gives them.
    pub(crate) fn suspect(&mut self, segment: &Arc<Segment>, entries: &[(Index, u32)]) -> DamageList {
        let mut found = DamageList::default();
        for &(index, offset) in entries {
            if self.place_of(index).is_ok_and(|place| Arc::ptr_eq(place.0, segment) && place.1 == offset) {
                found.add(index, index.next());
            }
        }
        self.suspects.add_all(&found);
        found
    }

    /// Forgets the entries from `first` on.
    pub(crate) fn cut(&mut self, first: Index) {
        self.suspects.cut(first);
        self.cut_spans(first);
    }

    fn cut_spans(&mut self, first: Index) {
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

    /// Puts entries at the end, or in the place of others.
    pub(crate) fn place(&mut self, placed: Placed<'_>) {
        if placed.offsets.is_empty() {
            return;
        }
        let last = self.spans.back().map(Span::end);
        self.suspects.remove(placed.first, placed.first.plus(placed.offsets.len() as u64));
        match last {
            Some(end) if end > placed.first => self.replace(&placed),
            _ => self.extend(&placed, last == Some(placed.first)),
        }
    }

    fn extend(&mut self, placed: &Placed<'_>, follows: bool) {
        let offsets = placed.offsets.iter().map(|offset| placed.offset + offset);
        let same_run = follows && self.runs.back().map(|run| run.term) == placed.runs.first().map(|run| run.term);
        self.runs.extend(placed.runs.iter().skip(usize::from(same_run)));
        // Within a span, offsets grow.
        let joins = |span: &Span| {
            Arc::ptr_eq(&span.segment, placed.segment)
                && span.offsets.last() < Some(&(placed.offset + placed.offsets[0]))
        };
        match self.spans.back_mut() {
            Some(span) if follows && joins(span) => span.offsets.extend(offsets),
            _ => {
                let (first, segment, offsets) = (placed.first, placed.segment.clone(), offsets.collect());
                self.spans.push_back(Span { first, segment, offsets });
            }
        }
    }

    /// Takes the catalog apart after the new entries, and puts it together again.
    fn replace(&mut self, placed: &Placed<'_>) {
        let end = placed.first.plus(placed.offsets.len() as u64);
        let after = self.take_from(end);
        self.cut_spans(placed.first);
        let follows = self.spans.back().is_some_and(|span| span.end() == placed.first);
        self.extend(placed, follows);
        self.put_back(after);
    }

    fn put_back(&mut self, after: Vec<(Span, Vec<EntryId>)>) {
        for (span, runs) in after {
            let follows = self.spans.back().is_some_and(|back| back.end() == span.first);
            let Span { first, segment, offsets } = &span;
            self.extend(&Placed { first: *first, segment, offset: 0, offsets, runs: &runs }, follows);
        }
    }

    /// Copies of what there is from `first` on, each span with its runs of terms.
    fn take_from(&self, first: Index) -> Vec<(Span, Vec<EntryId>)> {
        let mut taken = Vec::new();
        for span in self.spans.iter().filter(|span| span.end() > first) {
            let skip = first.since(span.first) as usize;
            let start = span.first.max(first);
            // An entry without one lies before a base that has gone back since, which only a forged log does: it is gone.
            let Some(term) = self.term(start) else { continue };
            let inside = self.runs.iter().filter(|run| start < run.index && run.index < span.end());
            let runs = iter::once(&EntryId::new(term, start)).chain(inside).copied().collect();
            taken.push((
                Span { first: start, segment: span.segment.clone(), offsets: span.offsets[skip..].into() },
                runs,
            ));
        }
        taken
    }

    /// The log begins after `base` and ends with `last`: what lies before goes. (Nothing lies beyond.)
    pub(crate) fn stand(&mut self, base: EntryId, last: EntryId) {
        (self.base, self.last) = (base, last);
        self.suspects.clip(base.index);
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
        let run = self.runs.partition_point(|run| run.index <= index).checked_sub(1)?;
        Some(self.runs[run].term)
    }

    /// Where the entries of `range` lie, as far as they can make up `bytes_max` bytes: at least the first, and no further
    /// than to the next damage.
    pub(crate) fn locate(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Piece>, Error> {
        let (start, end) = (range.start, range.end.min(self.last.index.next()));
        self.place_of(start)?;
        let mut wanted = end.since(start) as usize;
        let (mut next, mut bytes) = (start, 0);
        let mut pieces = Vec::new();
        let mut at = self.span_of(start).unwrap_or(self.spans.len());
        while wanted > 0
            && bytes < bytes_max.max(1)
            && let Some(span) = self.spans.get(at)
            && (span.first..span.end()).contains(&next)
        {
            let skip = next.since(span.first) as usize;
            let (offsets, at_least) = span.first_bytes(skip, wanted, bytes_max.saturating_sub(bytes));
            bytes += at_least + HEADER_BYTES;
            next = next.plus(offsets.len() as u64);
            wanted -= offsets.len();
            pieces.push(Piece { segment: span.segment.clone(), offsets });
            at += 1;
        }
        Ok(pieces)
    }

    /// What is published of an entry's segment from the entry on.
    pub(crate) fn find(&self, index: Index) -> Result<Bytes, Error> {
        let (segment, offset) = self.place_of(index)?;
        Ok(segment.published_from(offset as usize))
    }

    /// The segment and the place in it where an entry lies.
    pub(crate) fn place_of(&self, index: Index) -> Result<(&Arc<Segment>, u32), Error> {
        self.check(index)?;
        let span = self.span_of(index).map(|at| &self.spans[at]).filter(|span| index < span.end());
        let span = span.ok_or(Error::Damaged { damage: Damage { first: index, last: Some(index) } })?;
        Ok((&span.segment, span.offsets[index.since(span.first) as usize]))
    }

    /// Whether the entry is here, and if not, why.
    fn check(&self, index: Index) -> Result<(), Error> {
        if index <= self.base.index {
            return Err(Error::Truncated { index, base: self.base.index });
        }
        if let Some(damage) = self.damage.at(index) {
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
