//! What counts of what a crash has left. Pure: findings in, the log out.
//!
//! A batch that is not intact is one of two things, and to take one for the other loses data or availability. It is
//! *torn* if the machine stopped while it was written: nobody was told that it is durable, and it is cut. It is
//! *damaged* if it was durable once: it counts as acknowledged, and its entries are reported lost. [`judge`] is the
//! table that tells them apart.
//!
//! | evidence  | marked durable by a later header | verdict |
//! |-----------|----------------------------------|---------|
//! | intact    | any      | accept |
//! | unwritten | no       | torn: a sync that had covered it would have written the sector (A2), and no disk turns a written sector into zeros (A5) |
//! | unwritten | yes      | damaged: it was durable, whatever has happened to it since |
//! | spoiled   | any      | damaged: a sector is all old or all new (A1), so a stop in mid-write leaves unwritten sectors, not others |
//!
//! The batches are then replayed in the order of their sequence numbers. A torn batch ends the log: what follows it was
//! part of the same sync, which nobody saw return. That is in the newest segment, since a segment is begun only when
//! everything before it is durable.
//!
//! After a damaged run, the next sound header says what the log looked like: where it ended, where it began, and how
//! often its end had been cut, and that bounds what the lost batches can have held. Of a damaged batch whose own header
//! is sound, entries whose checksums match are kept if a later header marks the batch durable.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{Catalog, Placed};
use crate::damage::DamageList;
use crate::error::Damage;
use crate::format::{DAMAGE_COUNT_MAX, SegmentHeader, Standing};
use crate::planted::{self, Mistake};
use crate::record::{EntryId, Index};
use crate::segment::Segment;
use crate::walk::{Batch, Evidence, Found};

/// What opening a log has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How the log was left.
    pub report: Report,
    /// The entry before the first.
    pub base: EntryId,
    /// The last entry; the base if there is none.
    pub last: EntryId,
    /// Entries that can be read.
    pub entries_recovered: u64,
    /// Entries written once more, because nothing after them proves that they were durable.
    pub entries_rewritten: u64,
    /// Segments that were read.
    pub segments: u64,
}

/// How a log was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing is missing.
    Clean,
    /// The machine or the process stopped in the middle of a write, which was cut. Nobody was told that it is durable.
    Torn {
        /// Bytes cut: whole pages, up to the last one that had been written to.
        bytes: u64,
    },
    /// Entries that may have been acknowledged are lost. The log takes no entries until they are repaired
    /// ([`Log::repair`](crate::Log::repair)) or given up ([`Log::truncate_suffix`](crate::Log::truncate_suffix)).
    Damaged {
        /// Which entries, in order. None, if only the state is in doubt.
        ranges: Vec<Damage>,
        /// Whether a newer state blob than [`Log::state`](crate::Log::state) may have been lost.
        state_in_doubt: bool,
    },
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accept,
    /// The machine stopped while it was written: it is cut, and all after it.
    Torn,
    /// It was durable once, and cannot be read any more, or not all of it.
    Damaged,
}

/// The table of this file's head.
fn judge(evidence: Evidence, marked_durable: bool) -> Verdict {
    let (torn, end) = (planted::is(Mistake::DamagedTakenForTorn), planted::is(Mistake::DamagedTakenForTheEnd));
    if evidence == Evidence::Spoiled && (torn && !marked_durable || end) {
        return Verdict::Torn;
    }
    match (evidence, marked_durable) {
        (Evidence::Intact, _) => Verdict::Accept,
        (Evidence::Unwritten, false) => Verdict::Torn,
        (Evidence::Unwritten, true) | (Evidence::Spoiled, _) => Verdict::Damaged,
    }
}

/// The log as far as it has been replayed.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) catalog: Catalog,
    pub(crate) standing: Standing,
    pub(crate) damage: DamageList,
    /// Last batch accepted.
    pub(crate) seq: u64,
    /// Checksum of its header.
    pub(crate) chain: u32,
    /// Batches are lost, and no sound header has followed.
    lost: bool,
    pub(crate) tail: TailFound,
}

/// What the segment replayed last holds beyond what was proved durable.
#[derive(Debug, Default)]
pub(crate) struct TailFound {
    /// End of the last batch accepted, in the segment.
    pub(crate) end: usize,
    /// Where the batches lie that were accepted without a mark.
    pub(crate) unmarked: Vec<Range<usize>>,
    pub(crate) unmarked_entries: u64,
    /// Where a torn batch starts.
    pub(crate) torn_at: Option<usize>,
    /// Something there is damaged, or its place cannot be known.
    pub(crate) damaged: bool,
}

impl Replay {
    /// Before anything was replayed: `first` is the oldest segment with a sound header. What it says was there before it
    /// was purged, if all is well: so it counts as lost unless a later base passes it.
    pub(crate) fn starting_at(first: &SegmentHeader) -> Self {
        let standing = &first.standing;
        let mut damage = DamageList::default();
        damage.add(standing.base.index.next(), standing.last.index.next());
        Replay {
            catalog: Catalog::starting_at(standing.base, standing.last),
            standing: standing.clone(),
            damage,
            seq: first.next_batch - 1,
            chain: first.chain,
            ..Replay::default()
        }
    }

    /// A whole segment is unreadable.
    pub(crate) fn lose_segment(&mut self) {
        self.lost = true;
        self.tail.damaged = true;
    }

    /// Replays a segment: its header, and what a walk has found in it. Everything in it is durable if `later` another one
    /// was begun. `observe` is told of each batch what becomes of it.
    pub(crate) fn segment(
        &mut self,
        segment: &Arc<Segment>,
        header: &SegmentHeader,
        found: Vec<Found>,
        later: bool,
        mut observe: impl FnMut(&Found, Verdict),
    ) {
        self.header(header);
        self.tail = TailFound { end: crate::format::BATCHES_AT, ..TailFound::default() };
        let inside = found.iter().filter_map(|found| Some(found.batch.as_ref()?.header.durable_batch)).max();
        let marked = if later { u64::MAX } else { inside.unwrap_or(0) };
        for found in found {
            let verdict = judge(found.evidence, found.seq <= marked);
            observe(&found, verdict);
            match verdict {
                Verdict::Accept => self.accept(segment, found, marked),
                Verdict::Damaged => {
                    self.tail.damaged = true;
                    self.accept(segment, found, marked);
                }
                Verdict::Torn => {
                    self.tail.torn_at = Some(found.offset);
                    break;
                }
            }
        }
        // A file that has been shortened may claim more than it has.
        segment.publish(self.tail.end.min(segment.bytes as usize));
    }

    /// A segment header is sound: it says what the log looked like before the segment's first batch.
    fn header(&mut self, header: &SegmentHeader) {
        if self.lost || self.seq + 1 < header.next_batch {
            let next = &header.standing;
            self.bridge(next, next.last.index.next());
            self.standing.clone_from(next);
            self.stand();
            (self.seq, self.chain) = (header.next_batch - 1, header.chain);
        }
        // What was lost at the end of the segment before, its header alone remembers.
        self.standing.state_in_doubt = header.standing.state_in_doubt;
        self.damage.add_all(&header.damage);
    }

    /// Takes over what is left of a batch. One without a sound header only shows that something is lost.
    fn accept(&mut self, segment: &Arc<Segment>, found: Found, marked: u64) {
        let Found { seq, evidence, batch, offset } = found;
        let Some(Batch { header, mut pieces }) = batch else {
            self.lost = true;
            return;
        };
        if evidence != Evidence::Intact && seq > marked {
            // It may be in the page cache only, and cannot be written again as it was.
            pieces.clear();
        }
        let (end, last) = (offset + header.total_bytes(), header.standing.last.index.next());
        let first = if header.fills { last } else { header.first() };
        self.bridge(&header.standing, first);
        if header.cuts_end {
            self.catalog.cut(first);
            self.damage.cut(first);
        }
        self.damage.add(first, last);
        for piece in &pieces {
            let (offset, offsets, runs) = (offset as u32, &piece.offsets[..], &piece.runs[..]);
            self.catalog.place(Placed { first: piece.first, segment, offset, offsets, runs });
            self.damage.remove(piece.first, piece.end());
        }
        self.standing.advance(&header.standing, first, header.cuts_end);
        self.stand();
        (self.seq, self.chain, self.tail.end) = (seq, header.crc, end);
        if evidence == Evidence::Intact && seq > marked {
            self.tail.unmarked.push(offset..end);
            self.tail.unmarked_entries += u64::from(header.count);
        }
    }

    /// From the log as replayed to the log that a sound header saw before it, and after which comes entry `first`:
    /// whatever must have been between them is lost. Between sound neighbours that is nothing.
    fn bridge(&mut self, next: &Standing, first: Index) {
        let end = self.standing.last.index.next();
        let cut = match next.cuts.wrapping_sub(self.standing.cuts) {
            0 => None,
            // The lost batches cut once, and we know where.
            1 => Some(next.cut),
            _ => Some(self.standing.base.index.min(next.base.index).next()),
        };
        if let Some(cut) = cut {
            self.catalog.cut(cut);
            self.damage.cut(cut);
        }
        self.damage.add(cut.map_or(end, |cut| cut.min(end)), first);
        (self.standing.cuts, self.standing.cut) = (next.cuts, next.cut);
        self.lost = false;
    }

    /// The catalog follows the standing.
    fn stand(&mut self) {
        self.catalog.cut(self.standing.last.index.next());
        self.catalog.stand(self.standing.base, self.standing.last);
        self.damage.clip(self.standing.base.index);
    }

    /// All was replayed: what no sound header followed is lost for good.
    pub(crate) fn finish(&mut self) {
        if self.lost {
            self.damage.add_open(self.standing.last.index.next());
            self.standing.state_in_doubt = true;
        }
        self.damage.clip(self.standing.base.index);
        // Whatever the reason, what cannot be read is lost.
        self.catalog.gaps().for_each(|gap| self.damage.add(gap.start, gap.end));
        self.catalog.lose(&self.damage);
        self.catalog.set_cuts(self.standing.cuts);
    }

    /// As much of the damage as the header of a new segment holds.
    pub(crate) fn make_coarse(&mut self) {
        self.damage = self.damage.coarse(DAMAGE_COUNT_MAX);
        self.catalog.lose(&self.damage);
    }

    /// How the log was left. `torn_bytes` is what was written of a torn batch and after it.
    pub(crate) fn report(&self, torn_bytes: u64) -> Report {
        let state_in_doubt = self.standing.state_in_doubt;
        if state_in_doubt || !self.damage.is_empty() {
            return Report::Damaged { ranges: self.damage.ranges().to_vec(), state_in_doubt };
        }
        if self.tail.torn_at.is_some() { Report::Torn { bytes: torn_bytes } } else { Report::Clean }
    }
}

impl Recovery {
    /// Whether entries that may have been acknowledged, or the state, are lost.
    pub fn is_damaged(&self) -> bool {
        matches!(self.report, Report::Damaged { .. })
    }

    /// Bytes of a write that was cut; 0 if none was.
    pub fn torn_bytes(&self) -> u64 {
        if let Report::Torn { bytes } = self.report { bytes } else { 0 }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entries {} to {}", self.base.index.next(), self.last.index)?;
        match &self.report {
            Report::Clean => Ok(()),
            Report::Torn { bytes } => write!(f, "; a torn write of {bytes} bytes was cut"),
            Report::Damaged { ranges, state_in_doubt } => {
                write!(f, "; unreadable:")?;
                for range in ranges {
                    match range.last {
                        Some(last) => write!(f, " {} to {last}", range.first)?,
                        None => write!(f, " from {} on", range.first)?,
                    }
                }
                write!(f, "{}", if *state_in_doubt { "; the newest state may be lost" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table, and that it has no other.
    #[test]
    fn the_table_over_all_combinations() {
        let rows = [
            (Evidence::Intact, false, Verdict::Accept),
            (Evidence::Intact, true, Verdict::Accept),
            (Evidence::Unwritten, false, Verdict::Torn),
            (Evidence::Unwritten, true, Verdict::Damaged),
            (Evidence::Spoiled, false, Verdict::Damaged),
            (Evidence::Spoiled, true, Verdict::Damaged),
        ];
        for (evidence, marked, verdict) in rows {
            assert_eq!(judge(evidence, marked), verdict, "{evidence:?}, marked durable: {marked}");
        }
    }
}
