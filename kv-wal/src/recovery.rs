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
//! The batches are then replayed in the order of their sequence numbers. One torn batch ends its segment: what follows
//! it there was part of the same sync, which nobody saw return. It does not end the log: a later segment starts after a
//! sync of everything before it, or after a recovery, and then its first batch overrides whatever was not marked.
//!
//! After a damaged run, the next sound header says what the log looked like: where it ended, where it began, and how
//! often its end had been cut, and that bounds what the lost batches can have held.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::{Catalog, Change};
use crate::error::Damage;
use crate::format::{PAGE_BYTES, SECTOR_BYTES, SegmentHeader, Standing};
use crate::record::{Entry, EntryId, Index};
use crate::scan::{Batch, Evidence, Found, Scan};
use crate::segment::Segment;

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
    /// Entries written again, because no later batch proves that they were durable.
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
        /// Bytes cut, up to the last sector that had been written.
        bytes: u64,
    },
    /// Entries that may have been acknowledged are lost. The log can be read, and takes no appends.
    Damaged {
        /// Which entries, in order; at least one range.
        ranges: Vec<Damage>,
        /// Whether a newer state blob than [`Log::state`](crate::Log::state) may have been lost.
        state_in_doubt: bool,
    },
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Torn,
    Damaged,
}

/// The table of this file's head.
fn judge(evidence: Evidence, marked_durable: bool) -> Verdict {
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
    /// The standing after the last batch accepted that is marked durable.
    pub(crate) durable_standing: Standing,
    /// Highest batch that a header marks durable.
    durable_batch: u64,
    /// Last batch accepted.
    pub(crate) seq: u64,
    /// Checksum of its header.
    pub(crate) chain: u32,
    /// Batches accepted above the durable mark.
    unmarked: VecDeque<Unmarked>,
    damage: Vec<Damage>,
    /// Damaged batches since the last sound header.
    lost: Option<Lost>,
    torn_bytes: Option<u64>,
}

/// A segment and its content as the disk gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) segment: &'a Arc<Segment>,
    pub(crate) bytes: &'a [u8],
}

#[derive(Debug)]
struct Unmarked {
    seq: u64,
    first: Index,
    entries: Vec<Entry>,
    standing: Standing,
}

/// A damaged run that no sound header has followed yet.
#[derive(Debug)]
enum Lost {
    /// One batch, whose own header is sound: it tells its range, and its state is not lost.
    Known(Box<Standing>, Index),
    Unknown,
}

impl Replay {
    /// Before anything was replayed: `first` is the oldest segment with a sound header. What it says was there before it
    /// was purged, if all is well: so it counts as lost unless a later base passes it.
    pub(crate) fn starting_at(first: &SegmentHeader) -> Self {
        let standing = &first.standing;
        let mut replay = Replay {
            catalog: Catalog::starting_at(standing.base, standing.last),
            standing: standing.clone(),
            durable_standing: standing.clone(),
            durable_batch: first.durable_batch,
            seq: first.next_batch - 1,
            chain: first.chain,
            ..Replay::default()
        };
        replay.lose(replay.standing.base.index.next(), replay.standing.last.index.next());
        replay
    }

    /// A whole segment is unreadable.
    pub(crate) fn lose_segment(&mut self) {
        self.lost = Some(Lost::Unknown);
        self.torn_bytes = None;
    }

    /// Replays a segment, whose content is `bytes`. Batches up to `marked` are known durable from later segments.
    pub(crate) fn segment(&mut self, from: Source<'_>, header: &SegmentHeader, scan: Scan, marked: u64) {
        self.header(header);
        let inside = scan.found.iter().filter_map(|found| Some(found.batch.as_ref()?.header.durable_batch)).max();
        let inside = inside.unwrap_or(0);
        self.mark(inside);
        for found in scan.found {
            let verdict = judge(found.evidence, found.seq <= marked.max(inside));
            if verdict != Verdict::Torn && found.seq == header.next_batch {
                // The first batch of a segment builds on its header: on what was marked durable, and on nothing else.
                self.standing.clone_from(&header.standing);
            }
            match verdict {
                Verdict::Accept => {
                    self.accept(from, found.offset, found.batch.expect("an intact batch has a header"));
                }
                Verdict::Torn => {
                    self.torn_bytes = Some(torn_bytes(&found, scan.residue_bytes));
                    break;
                }
                Verdict::Damaged => self.lost = Some(self.damaged(found)),
            }
        }
        from.segment.publish(from.bytes.len());
    }

    /// A segment header is sound: it says what the log looked like at its durable mark.
    fn header(&mut self, header: &SegmentHeader) {
        self.mark(header.durable_batch);
        if self.seq < header.durable_batch {
            let next = &header.standing;
            self.bridge(next, next.last.index.next());
            self.catalog.cut(next.last.index.next());
            self.standing = next.clone();
            self.durable_standing = next.clone();
            (self.seq, self.chain) = (header.next_batch - 1, header.chain);
            self.clip();
        }
    }

    fn accept(&mut self, from: Source<'_>, offset: usize, batch: Batch) {
        let Batch { header, offsets, runs } = batch;
        let marked = header.seq <= self.durable_batch;
        let body = &from.bytes[offset + SECTOR_BYTES..][..header.body_bytes as usize];
        let entries = if marked { Some(Vec::new()) } else { entries_of(body) };
        let Some(entries) = entries else {
            self.lost = Some(Lost::Unknown);
            return;
        };
        let first = header.first();
        self.bridge(&header.standing, first);
        let (base, last) = (header.standing.base, header.standing.last);
        let offset = u32::try_from(offset).expect("segments are below 4 GiB");
        self.catalog.apply(Change { base, last, segment: from.segment, offset, offsets: &offsets, runs: &runs });
        self.standing.advance(&header.standing, first, header.cuts_end);
        self.cut_damage(first);
        self.clip();
        self.torn_bytes = None;
        (self.seq, self.chain) = (header.seq, header.crc);
        if marked {
            self.durable_standing.clone_from(&self.standing);
        } else {
            self.unmarked.push_back(Unmarked { seq: self.seq, first, entries, standing: self.standing.clone() });
        }
    }

    /// Batches up to `seq` are durable.
    fn mark(&mut self, seq: u64) {
        self.durable_batch = self.durable_batch.max(seq);
        while self.unmarked.front().is_some_and(|batch| batch.seq <= self.durable_batch) {
            self.durable_standing = self.unmarked.pop_front().expect("just seen").standing;
        }
    }

    /// From the log as replayed to the log that a sound header saw before it, and after which comes entry `first`:
    /// whatever must have been between them is lost. Between sound neighbours that is nothing.
    fn bridge(&mut self, next: &Standing, first: Index) {
        let lost_from = match next.cuts.wrapping_sub(self.standing.cuts) {
            0 => self.standing.last.index.next(),
            // The lost batches cut once, and we know where.
            1 => next.cut.min(self.standing.last.index.next()),
            _ => self.standing.base.index.next(),
        };
        self.catalog.cut(lost_from);
        self.cut_damage(lost_from);
        self.lose(lost_from, first);
        (self.standing.cuts, self.standing.cut) = (next.cuts, next.cut);
        self.lost = None;
    }

    fn lose(&mut self, from: Index, to: Index) {
        if from < to {
            self.damage.push(Damage { first: from, last: Some(to.prev()) });
        }
    }

    fn damaged(&mut self, found: Found) -> Lost {
        match (found.batch, &self.lost) {
            (Some(batch), None) => {
                let first = batch.header.first();
                Lost::Known(Box::new(batch.header.standing), first)
            }
            _ => Lost::Unknown,
        }
    }

    /// Entries from `first` on are overridden: their loss is of no account.
    fn cut_damage(&mut self, first: Index) {
        self.damage.retain(|damage| damage.first < first);
        if let Some(damage) = self.damage.last_mut() {
            damage.last = damage.last.map(|last| last.min(first.prev()));
        }
    }

    /// Nor is the loss of entries up to the base.
    fn clip(&mut self) {
        let base = self.standing.base.index;
        self.damage.retain(|damage| damage.last.is_none_or(|last| last > base));
        if let Some(damage) = self.damage.first_mut() {
            damage.first = damage.first.max(base.next());
        }
    }

    /// All was replayed: what no sound header followed is lost for good.
    pub(crate) fn finish(&mut self) -> Report {
        let state_in_doubt = matches!(self.lost, Some(Lost::Unknown));
        let end = self.standing.last.index.next();
        match self.lost.take() {
            Some(Lost::Known(next, first)) => {
                self.catalog.cut(first);
                self.cut_damage(first);
                self.lose(first.min(end), next.last.index.next());
                self.standing.state.clone_from(&next.state);
            }
            Some(Lost::Unknown) => self.damage.push(Damage { first: end, last: None }),
            None => {}
        }
        self.catalog.set_damage(self.damage.clone());
        match (self.damage.is_empty() && !state_in_doubt, self.torn_bytes) {
            (false, _) => Report::Damaged { ranges: self.damage.clone(), state_in_doubt },
            (true, Some(bytes)) => Report::Torn { bytes },
            (true, None) => Report::Clean,
        }
    }

    /// The last batch that everything up to which is durable, by the marks or for want of any after it.
    pub(crate) fn durable_batch(&self) -> u64 {
        self.unmarked.front().map_or(self.seq, |batch| batch.seq - 1)
    }

    /// What no header proves durable, as one batch that replaces it: its entries, consecutive, up to the last of the log.
    /// `None` if that is nothing. It must be one batch, since half of it would override entries that were acknowledged.
    pub(crate) fn rewrite(&self) -> Option<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        for batch in &self.unmarked {
            entries.retain(|entry| entry.index() < batch.first);
            entries.extend_from_slice(&batch.entries);
        }
        entries.retain(|entry| entry.index() > self.standing.base.index);
        let changes = self.unmarked.iter().any(|batch| batch.standing != self.durable_standing);
        changes.then_some(entries)
    }
}

fn torn_bytes(found: &Found, residue_bytes: u64) -> u64 {
    let readable = found.batch.as_ref().map_or(0, |batch| batch.header.total_bytes() as u64);
    (readable + residue_bytes).max(PAGE_BYTES as u64)
}

/// A copy of the entries of a body; `None` if one does not match its own checksum.
fn entries_of(body: &[u8]) -> Option<Vec<Entry>> {
    let mut bytes = Bytes::copy_from_slice(body);
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(Entry::split_from(&mut bytes).ok()?);
    }
    Some(entries)
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
