//! What the core knows of its log: the term of every entry in it, and the newest entries themselves.
//!
//! ```text
//!        base            runs: first entry of each term            last
//!   ......|1 1 1 1 1 2 2 2 2 2 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4|
//!                                        tail: |entries in memory  |
//! ```
//!
//! Terms change rarely, so runs of equal terms answer for the term of any index in little memory, and the search for the
//! last common entry (Raft paper, end of section 5.3) goes from run to run. The tail ends with the last entry, unless it
//! is empty. Entries leave it at the front, once they are durable and applied and it has grown too large; what is older
//! is read from the disk by the driver.
//!
//! The tail is in pieces, each as it was written: what goes to the disk, to the followers and to the state machine are the
//! same pieces, or parts of them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;

use super::configurations::is_readable;
use super::io::Lost;
use crate::types::{Entries, Entry, EntryId, Index, Term};

/// Pieces looked at one by one, from the end, before a search begins: nearly always it is one of them.
const NEAR_PIECES: usize = 8;

pub(super) struct Log {
    base: EntryId,
    /// First entry of each run, increasing in index and term, all after `base`.
    runs: Vec<EntryId>,
    last: Index,
    tail: VecDeque<Piece>,
    tail_bytes: usize,
    /// How many pieces at the end have not been taken to be written.
    unwritten: usize,
    /// First, last, bytes and terms of the tail that was found to be right: it is looked at again when they change.
    checked_tail: Cell<Option<(Index, EntryId, usize, usize)>>,
}

/// At least one entry. Its numbers are at hand: a search through many pieces does not look into each.
struct Piece {
    first: Index,
    last: Index,
    bytes: usize,
    entries: Entries,
}

impl Piece {
    fn new(entries: Entries) -> Piece {
        let first = entries[0].index();
        Piece { first, last: first.plus(entries.len() as u64).prev(), bytes: entries.bytes(), entries }
    }
}

impl Log {
    /// The log as it was found on the disk.
    ///
    /// # Panics
    ///
    /// If the arguments contradict each other.
    pub(super) fn new(base: EntryId, runs: Vec<EntryId>, last: Index) -> Log {
        let tail = VecDeque::new();
        let log = Log { base, runs, last, tail, tail_bytes: 0, unwritten: 0, checked_tail: Cell::default() };
        log.check();
        log
    }

    /// The log as it was found on the disk, with what could be found of its terms. Nobody may ask for what is lost.
    ///
    /// # Panics
    ///
    /// As for [`Log::new`].
    pub(super) fn with_losses(base: EntryId, runs: Vec<EntryId>, last: Index, lost: &[Lost]) -> Log {
        Log::new(base, runs_around(base, runs, lost), last)
    }

    /// The log begins after `base` now, which stands in the place of a lost entry. `next` is the first one after it that is
    /// not lost, `lost` are those that still are.
    pub(super) fn begin_in_loss(&mut self, base: EntryId, next: EntryId, lost: &[Lost]) {
        assert!(self.tail.is_empty(), "a damaged log takes no entries");
        let runs = mem::take(&mut self.runs).into_iter().filter(|run| run.index > next.index).chain([next]).collect();
        *self = Log::with_losses(base, runs, self.last, lost);
    }

    /// Entries were lost from `first` on, and some of them, or all up to `next`, are known again: `runs` are the first ones
    /// of each term.
    ///
    /// # Panics
    ///
    /// If they do not fit in between.
    pub(super) fn fill(&mut self, first: Index, runs: &[EntryId], next: EntryId) {
        let before = self.runs.iter().filter(|run| run.index < first);
        let after = self.runs.iter().filter(|run| run.index > next.index);
        let mut all: Vec<EntryId> = before.chain(runs).chain([&next]).chain(after).copied().collect();
        all.dedup_by_key(|run| run.term);
        self.runs = all;
        self.check();
    }

    /// The entry before the first one.
    pub(super) fn base(&self) -> EntryId {
        self.base
    }

    /// The last entry; `base` if there is none.
    pub(super) fn last(&self) -> EntryId {
        EntryId::new(self.runs.last().map_or(self.base.term, |run| run.term), self.last)
    }

    /// Index of the first entry in memory; one above the last if there is none.
    pub(super) fn tail_first(&self) -> Index {
        self.tail.front().map_or(self.last.next(), |piece| piece.first)
    }

    /// The term of the entry at `index`, if that is `base` or in the log.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        Some(self.runs[after - 1].term)
    }

    /// Whether exactly this entry is `base` or in the log.
    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// The last entry whose index is not above `bound.index` and whose term is not above `bound.term`. If another log
    /// has `bound`, no entry of this log after the result can be in that log at or before `bound`. `None` if the result
    /// would be before `base`.
    pub(super) fn last_within(&self, bound: EntryId) -> Option<EntryId> {
        let mut end = self.last;
        for run in self.runs.iter().rev() {
            if run.term <= bound.term && run.index <= bound.index {
                return Some(EntryId::new(run.term, end.min(bound.index)));
            }
            end = run.index.prev();
        }
        (self.base.term <= bound.term && self.base.index <= bound.index).then_some(self.base)
    }

    /// Takes consecutive entries. Whatever is in the log from the first of them on is dropped.
    ///
    /// # Panics
    ///
    /// If the first one is not after `base`, or leaves a gap.
    pub(super) fn append(&mut self, entries: Entries) {
        let Some(first) = entries.first() else { return };
        assert!(first.index() > self.base.index, "entries go after the base");
        assert!(first.index() <= self.last.next(), "entries leave no gap");
        self.truncate(first.index());
        for entry in &entries {
            let id = entry.id();
            assert_eq!(id.index, self.last.next(), "entries are consecutive");
            assert!(id.term >= self.last().term, "terms never go back");
            if id.term != self.last().term || self.runs.is_empty() {
                self.runs.push(id);
            }
            self.last = id.index;
        }
        let piece = Piece::new(entries);
        self.tail_bytes += piece.bytes;
        self.tail.push_back(piece);
        self.unwritten += 1;
    }

    /// What has been appended since this was last asked, as it is now. It is to be written, and is one piece from now on.
    pub(super) fn take_unwritten(&mut self) -> Entries {
        match mem::take(&mut self.unwritten) {
            0 => Entries::default(),
            1 => self.tail.back().map(|piece| piece.entries.clone()).unwrap_or_default(),
            count => {
                let first = self.tail.len() - count;
                let entries: Entries = self.tail.range(first..).flat_map(|piece| &piece.entries).cloned().collect();
                self.tail.truncate(first);
                self.tail.push_back(Piece::new(entries.clone()));
                entries
            }
        }
    }

    /// Index of the first entry that [`Log::take_unwritten`] will give; one above the last if there is none.
    pub(super) fn first_unwritten(&self) -> Index {
        self.unwritten_pieces().next().map_or(self.last.next(), |piece| piece.first)
    }

    /// Bytes of what [`Log::take_unwritten`] will give.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten_pieces().map(|piece| piece.bytes).sum()
    }

    fn unwritten_pieces(&self) -> impl Iterator<Item = &Piece> {
        self.tail.range(self.tail.len() - self.unwritten..)
    }

    /// Drops the entries from `from` on.
    fn truncate(&mut self, from: Index) {
        while let Some(piece) = self.tail.pop_back_if(|piece| piece.last >= from) {
            self.tail_bytes -= piece.bytes;
            if piece.first < from {
                self.keep(piece.entries.part(0..from.since(piece.first) as usize), VecDeque::push_back);
            } else {
                self.unwritten = self.unwritten.saturating_sub(1);
            }
        }
        self.runs.truncate(self.runs.partition_point(|run| run.index < from));
        self.last = self.last.min(from.prev());
    }

    /// Drops everything: the log starts again after `base`.
    pub(super) fn reset(&mut self, base: EntryId) {
        *self = Log::new(base, Vec::new(), base.index);
    }

    /// Forgets everything up to and including `base`, which is in the log.
    pub(super) fn truncate_prefix(&mut self, base: EntryId) {
        assert!(self.contains(base), "the new base is in the log");
        assert!(base.index < self.first_unwritten(), "what is forgotten has been written");
        while let Some(piece) = self.tail.pop_front_if(|piece| piece.first <= base.index) {
            self.tail_bytes -= piece.bytes;
            if piece.last > base.index {
                let forgotten = base.index.next().since(piece.first) as usize;
                self.keep(piece.entries.part(forgotten..piece.entries.len()), VecDeque::push_front);
            }
        }
        let after = self.runs.partition_point(|run| run.index <= base.index);
        let next = base.index.next();
        // The run that is cut in two goes on after the base; a run that begins there is already listed.
        let cut = after.checked_sub(1).map(|at| self.runs[at].term);
        self.runs.drain(..after);
        if let Some(term) = cut.filter(|_| next <= self.last && self.runs.first().is_none_or(|run| run.index > next)) {
            self.runs.insert(0, EntryId::new(term, next));
        }
        self.base = base;
    }

    /// Keeps a part of a piece that has left the tail.
    fn keep(&mut self, part: Entries, put: impl FnOnce(&mut VecDeque<Piece>, Piece)) {
        let piece = Piece::new(part);
        self.tail_bytes += piece.bytes;
        put(&mut self.tail, piece);
    }

    /// Entries from memory, beginning at `from`, as many as fit in `bytes_max` but at least one; none if the one at
    /// `from` is not in memory.
    pub(super) fn entries(&self, from: Index, bytes_max: usize) -> Entries {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.frame().len();
            first || bytes <= bytes_max
        };
        let count = self.tail_from(from).take_while(fits).count();
        let Some(piece) = self.tail_pieces(from).next() else { return Entries::default() };
        let start = from.since(piece.first) as usize;
        if start + count <= piece.entries.len() {
            piece.entries.part(start..start + count)
        } else {
            self.tail_from(from).take(count).cloned().collect()
        }
    }

    /// The entries in memory from `from` to `upto`, as they are held; none if the one at `from` is not in memory.
    pub(super) fn pieces(&self, from: Index, upto: Index) -> impl Iterator<Item = Entries> {
        let within = self.tail_pieces(from).take_while(move |piece| piece.first <= upto);
        within.map(move |piece| {
            let first = piece.first;
            let end = piece.last.min(upto).next();
            piece.entries.part(from.max(first).since(first) as usize..end.since(first) as usize)
        })
    }

    /// The entries in memory from `from` on; none if the one at `from` is not in memory.
    pub(super) fn tail_from(&self, from: Index) -> impl Iterator<Item = &Entry> {
        let mut pieces = self.tail_pieces(from).peekable();
        let skip = pieces.peek().map_or(0, |piece| from.since(piece.first));
        pieces.flat_map(|piece| &piece.entries).skip(skip as usize)
    }

    /// The pieces from the one with the entry at `from` on; none if that is not in memory.
    fn tail_pieces(&self, from: Index) -> impl Iterator<Item = &Piece> {
        let back = self.tail.iter().rev().take(NEAR_PIECES).position(|piece| piece.first <= from);
        let first = match back {
            _ if from < self.tail_first() || from > self.last => self.tail.len(),
            Some(back) => self.tail.len() - 1 - back,
            None => self.tail.partition_point(|piece| piece.last < from),
        };
        self.tail.range(first..)
    }

    /// Forgets the oldest pieces in memory, none with an entry after `upto`, until the rest fits in `bytes_max`.
    pub(super) fn shrink_tail(&mut self, upto: Index, bytes_max: usize) {
        while self.tail_bytes > bytes_max
            && let Some(piece) = self.tail.pop_front_if(|piece| piece.last <= upto)
        {
            self.tail_bytes -= piece.bytes;
        }
    }

    /// # Panics
    ///
    /// If the parts contradict each other.
    pub(super) fn check(&self) {
        assert!(self.base.index <= self.last, "the log does not end before its base");
        assert_eq!(self.runs.is_empty(), self.base.index == self.last, "an entry has a run, a run has an entry");
        if let (Some(first), Some(last)) = (self.runs.first(), self.runs.last()) {
            assert_eq!(first.index, self.base.index.next(), "the first run begins after the base");
            assert!(first.term >= self.base.term, "terms never go back");
            assert!(last.index <= self.last, "runs are within the log");
        }
        assert!(self.runs.is_sorted_by(|a, b| a.index < b.index && a.term < b.term), "runs have different terms");
        let tail = (self.tail_first(), self.last(), self.tail_bytes, self.runs.len());
        // Entries never change, and what comes in the place of others ends in another term.
        if self.checked_tail.replace(Some(tail)) != Some(tail) {
            self.check_tail();
        }
        assert!(self.unwritten <= self.tail.len(), "what is unwritten is in the tail");
    }

    /// This is called after each step of a simulation: it goes along the runs once.
    fn check_tail(&self) {
        let (mut next, mut tail_bytes) = (self.tail_first(), 0);
        let mut runs =
            self.runs[self.runs.partition_point(|run| run.index <= next).saturating_sub(1)..].iter().peekable();
        let mut term = self.base.term;
        for piece in &self.tail {
            let (first, mut bytes) = (next, 0);
            for entry in &piece.entries {
                while let Some(run) = runs.next_if(|run| run.index <= next) {
                    term = run.term;
                }
                let (id, runs, last) = (entry.id(), &self.runs, self.last);
                assert!(
                    id == EntryId::new(term, next),
                    "the tail is of this log: {id} at {next}, runs {runs:?}, last {last}"
                );
                bytes += entry.frame().len();
                next = next.next();
            }
            let is_true = (piece.first, piece.last, piece.bytes) == (first, next.prev(), bytes);
            assert!(is_true && !piece.entries.is_empty(), "a piece knows its numbers");
            tail_bytes += bytes;
        }
        assert_eq!(next, self.last.next(), "the tail ends with the log");
        assert_eq!(self.tail_bytes, tail_bytes, "bytes add up");
    }
}

/// The runs of a log in which entries are lost: these are taken to be of the term of the entry before them until
/// [`Log::fill`] says otherwise.
fn runs_around(base: EntryId, runs: Vec<EntryId>, lost: &[Lost]) -> Vec<EntryId> {
    let is_lost = |index: Index| lost.iter().any(|lost| lost.first <= index && index < lost.next.index);
    let first = Some(EntryId::new(base.term, base.index.next())).filter(|first| is_lost(first.index));
    let known = runs.into_iter().filter(|run| run.index > base.index && !is_lost(run.index));
    let mut all: Vec<EntryId> = known.chain(lost.iter().map(|lost| lost.next)).chain(first).collect();
    all.sort_by_key(|run| run.index);
    all.dedup_by_key(|run| run.term);
    all
}

/// The last of `entries`, or `prev` if there are none, if they can follow `prev` in a log: consecutive, terms never going
/// back, configurations readable.
pub(super) fn end_of_chain(prev: EntryId, entries: &[Entry]) -> Option<EntryId> {
    entries.iter().try_fold(prev, |last, entry| {
        let id = entry.id();
        let follows = id.index == last.index.next() && id.term >= last.term && id.index > last.index;
        (follows && is_readable(entry)).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::tests::entry;
    use proptest::prelude::*;

    /// The dumb twin: terms in a plain vector, the first one that of the base.
    #[derive(Clone, Debug)]
    struct Twin {
        base: u64,
        terms: Vec<u64>,
        /// The first entry that has not been taken to be written.
        unwritten: u64,
    }

    impl Twin {
        fn last(&self) -> u64 {
            self.base + self.terms.len() as u64 - 1
        }

        fn term(&self, index: u64) -> Option<u64> {
            self.terms.get(index.checked_sub(self.base)? as usize).copied()
        }

        fn last_within(&self, term: u64, index: u64) -> Option<u64> {
            (self.base..=self.last().min(index)).rev().find(|at| self.term(*at).unwrap() <= term)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Appends as many entries, this far back from the end, with the last term before them plus the third number.
        Append(u64, u64, u64),
        Take,
        TruncatePrefix(u64),
        Shrink(u64),
        Reset(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1u64..5, 0u64..4, 0u64..2).prop_map(|(count, back, rise)| Step::Append(count, back, rise)),
            3 => Just(Step::Take),
            1 => (0u64..20).prop_map(Step::TruncatePrefix),
            1 => (0u64..20).prop_map(Step::Shrink),
            1 => (1u64..4).prop_map(Step::Reset),
        ]
    }

    fn run(step: &Step, log: &mut Log, twin: &mut Twin) {
        match *step {
            Step::Append(count, back, rise) => {
                let first = twin.last().saturating_sub(back).max(twin.base) + 1;
                twin.terms.truncate((first - twin.base) as usize);
                twin.unwritten = twin.unwritten.min(first);
                let term = twin.terms.last().unwrap() + rise;
                let new: Vec<_> = (first..first + count).map(|index| entry(term.max(1), index)).collect();
                twin.terms.extend(new.iter().map(|entry| entry.term().get()));
                log.append(new.into());
            }
            Step::Take => {
                let taken = log.take_unwritten();
                let expected: Vec<u64> = (twin.unwritten..=twin.last()).collect();
                assert_eq!(taken.iter().map(|entry| entry.index().get()).collect::<Vec<_>>(), expected);
                twin.unwritten = twin.last() + 1;
            }
            Step::TruncatePrefix(at) => {
                let at = (twin.base + at).min(twin.last()).min(twin.unwritten - 1);
                log.truncate_prefix(EntryId::new(Term::new(twin.term(at).unwrap()), Index::new(at)));
                twin.terms.drain(..(at - twin.base) as usize);
                twin.base = at;
            }
            Step::Shrink(upto) => log.shrink_tail(Index::new((twin.base + upto).min(twin.unwritten - 1)), 60),
            Step::Reset(ahead) => {
                let base = EntryId::new(Term::new(twin.terms.last().unwrap() + 1), Index::new(twin.last() + ahead));
                log.reset(base);
                let base = (base.term.get(), base.index.get());
                *twin = Twin { base: base.1, terms: vec![base.0], unwritten: base.1 + 1 };
            }
        }
    }

    proptest! {
        #[test]
        fn answers_like_a_vector_of_terms(steps in proptest::collection::vec(step(), 0..30)) {
            let mut log = Log::new(EntryId::ZERO, Vec::new(), Index::ZERO);
            let mut twin = Twin { base: 0, terms: vec![0], unwritten: 1 };
            for step in &steps {
                run(step, &mut log, &mut twin);
                log.check();
                prop_assert_eq!(log.last().index.get(), twin.last());
                for index in 0..twin.last() + 3 {
                    prop_assert_eq!(log.term(Index::new(index)).map(Term::get), twin.term(index));
                    check_tail(&log, &twin, Index::new(index));
                    for term in 0..twin.terms.last().unwrap() + 2 {
                        let bound = EntryId::new(Term::new(term), Index::new(index));
                        let found = log.last_within(bound).map(|id| id.index.get());
                        prop_assert_eq!(found, twin.last_within(term, index));
                    }
                }
            }
        }
    }

    /// What is in memory is given whole, in part and in pieces.
    fn check_tail(log: &Log, twin: &Twin, from: Index) {
        let is_there = from >= log.tail_first();
        let expected = if is_there { (from.get()..=twin.last()).collect() } else { Vec::new() };
        let numbers = |entries: &[Entry]| entries.iter().map(|entry| entry.index().get()).collect::<Vec<_>>();
        let tail: Vec<Entry> = log.tail_from(from).cloned().collect();
        assert_eq!(numbers(&tail), expected);
        for count in 1..5 {
            let expected = &expected[..expected.len().min(count)];
            let bytes = tail[..expected.len()].iter().map(|entry| entry.frame().len()).sum();
            assert_eq!(numbers(&log.entries(from, bytes)), expected);
            let pieces: Vec<Entries> = log.pieces(from, from.plus(count as u64 - 1)).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            assert_eq!(pieces.iter().flat_map(|piece| numbers(piece)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_is_taken_is_what_is_given() {
        let mut log = Log::new(EntryId::ZERO, Vec::new(), Index::ZERO);
        log.append((1..=2).map(|index| entry(1, index)).collect());
        log.append((3..=4).map(|index| entry(1, index)).collect());
        let written = log.take_unwritten();
        let sent = log.entries(Index::new(2), usize::MAX);
        assert_eq!((sent.len(), sent.as_ptr()), (3, written[1..].as_ptr()), "nothing is copied");
        log.append((5..=5).map(|index| entry(1, index)).collect());
        assert_eq!(log.take_unwritten()[0].index(), Index::new(5));
        assert_eq!(log.entries(Index::new(2), usize::MAX).len(), 4, "from two pieces");
    }

    #[test]
    fn entries_are_bounded_but_never_none() {
        let mut log = Log::new(EntryId::ZERO, Vec::new(), Index::ZERO);
        log.append((1..=5).map(|index| entry(1, index)).collect());
        let frame_bytes = entry(1, 1).frame().len();
        let count = |from, bytes_max| log.entries(Index::new(from), bytes_max).len();
        assert_eq!(count(1, 0), 1);
        assert_eq!(count(1, frame_bytes * 3), 3);
        assert_eq!(count(4, usize::MAX), 2);
        assert_eq!(count(6, usize::MAX), 0);
    }

    #[test]
    fn what_was_dropped_from_memory_is_not_given() {
        let mut log = Log::new(EntryId::ZERO, Vec::new(), Index::ZERO);
        for index in 1..=5 {
            log.append([entry(1, index)].into_iter().collect());
            log.take_unwritten();
        }
        log.shrink_tail(Index::new(3), 0);
        assert_eq!(log.tail_first(), Index::new(4));
        assert!(log.entries(Index::new(3), usize::MAX).is_empty());
        assert_eq!(log.term(Index::new(3)), Some(Term::new(1)), "the term stays known");
    }
}
