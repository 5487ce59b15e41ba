//! The writing half of an open log: stages batches, writes them front to back, rotates, syncs, publishes, purges.
//!
//! Why it is right:
//!
//! - Room comes first. A batch is staged only when the place it will be written to exists, in the tail or in a segment
//!   taken from the pool, so a full disk is met before anything is accepted. The last pages of a segment are kept for
//!   batches without entries, and the very last for a truncation, which makes room.
//! - A new segment's header is written only after a sync of the old one, and synced before any batch follows. So a
//!   header proves durable what came before it, and only the newest segment can be torn.
//! - Readers see a batch when it is durable, never before: bytes that a failed sync may take back are seen by nobody.
//! - After a failed write or sync nothing is tried again: the owner drops the writer, and the log is poisoned.

use std::sync::{Arc, PoisonError, RwLock};

use crate::catalog::{Catalog, Placed};
use crate::damage::DamageList;
use crate::error::{Error, LogId};
use crate::format::{BATCHES_AT, DAMAGE_COUNT_MAX, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, Standing, batch_bytes};
use crate::fs::Fs;
use crate::log::{Durable, Stats};
use crate::planted::{self, Mistake};
use crate::pool::Pool;
use crate::reader::Reader;
use crate::record::{Entry, EntryId, Index};
use crate::segment::Segment;
use crate::staged::{Brings, Seal, Staged};

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) id: LogId,
    pub(crate) batch_bytes_max: usize,
    pub(crate) catalog: Arc<RwLock<Catalog>>,
    pub(crate) pool: Pool,
    pub(crate) tail: Tail,
    /// What the log looks like after the last batch written.
    pub(crate) written: Standing,
    /// Which entries are lost, after that batch.
    pub(crate) damage: DamageList,
    /// Sequence number of the last batch written.
    pub(crate) seq: u64,
    /// Checksum of its header.
    pub(crate) chain: u32,
    /// The last batch that is durable.
    pub(crate) durable_batch: u64,
    /// Whether entries have been written that no header proves durable.
    pub(crate) unmarked: bool,
    /// Batches not written yet.
    pub(crate) staged: Vec<Staged>,
    /// Batches written and not synced yet.
    pub(crate) unsynced: Vec<Written>,
    /// Batches whose memory is used again.
    pub(crate) retired: Vec<Staged>,
    pub(crate) stats: Stats,
}

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) salt: u64,
    /// Where the next batch goes.
    pub(crate) offset: u64,
    /// Its header page.
    pub(crate) header: Vec<u8>,
}

/// Where in the history of batches a segment begins.
#[derive(Debug)]
pub(crate) struct Position<'a> {
    pub(crate) log_id: LogId,
    /// The last batch written, and the checksum of its header. It is durable.
    pub(crate) seq: u64,
    pub(crate) chain: u32,
    pub(crate) standing: &'a Standing,
    pub(crate) damage: &'a DamageList,
}

/// Bytes at the end of a segment of so many that are kept for batches without entries.
pub(crate) const fn reserve_bytes(segment_bytes: u64) -> u64 {
    let share = (segment_bytes / 256).next_multiple_of(PAGE_BYTES as u64);
    if share < 2 * PAGE_BYTES as u64 { 2 * PAGE_BYTES as u64 } else { share }
}

/// Bytes of a segment that has room for a batch. One that is made larger than usual for it has the same reserve.
fn segment_bytes_for(brings: Brings) -> u64 {
    let need = (BATCHES_AT + batch_bytes(brings.bytes())) as u64;
    need + reserve_bytes(2 * need)
}

/// Retired batches that are kept.
const RETIRED_MAX: usize = 4;

/// A batch that has been written, and where.
#[derive(Debug)]
pub(crate) struct Written {
    batch: Staged,
    segment: Arc<Segment>,
    offset: u32,
}

impl Tail {
    /// Begins a segment whose every byte is zero: its header is durable when this returns.
    pub(crate) fn start(fs: &dyn Fs, segment: Arc<Segment>, position: &Position<'_>) -> Result<Tail, Error> {
        let mut salt = [0; 8];
        if !planted::is(Mistake::RecycledAsItIs) {
            fs.random(&mut salt).map_err(Error::io("draw a salt for", &segment.path))?;
        }
        let header = SegmentHeader {
            log_id: position.log_id,
            seq: segment.seq,
            bytes: segment.bytes,
            salt: u64::from_le_bytes(salt),
            next_batch: position.seq + 1,
            chain: position.chain,
            standing: position.standing.clone(),
            damage: position.damage.clone(),
        };
        let page = header.encode();
        if !header.damage.is_empty() {
            // The ranges first, and the sector that makes a header of them when they are durable: half of it would be none.
            let mut ranges = page.clone();
            ranges[..SECTOR_BYTES].fill(0);
            segment.write_header(&ranges)?;
            segment.sync()?;
        }
        segment.write_header(&page)?;
        segment.sync()?;
        Ok(Tail { segment, salt: header.salt, offset: BATCHES_AT as u64, header: page })
    }

    fn room(&self) -> u64 {
        self.segment.bytes - self.offset
    }
}

impl Writer {
    /// What the log looks like with all that is staged.
    pub(crate) fn standing(&self) -> &Standing {
        self.staged.last().map_or(&self.written, |batch| &batch.standing)
    }

    /// What is durable.
    pub(crate) fn durable(&self) -> Durable {
        Durable { last: self.written.last.index, batch: self.durable_batch }
    }

    /// Which entries are lost, with all that is staged.
    pub(crate) fn damage(&self) -> DamageList {
        let mut damage = self.damage.clone();
        if !damage.is_empty() {
            self.staged.iter().for_each(|batch| batch.mend(&mut damage));
        }
        damage
    }

    /// Whether entries of so many bytes can be staged without waiting for a segment.
    pub(crate) fn is_ready(&mut self, bytes: usize) -> bool {
        let brings = Brings::Entries(bytes);
        let joins = |batch: &Staged| batch.accepts(false, brings, self.batch_bytes_max);
        self.staged.last().is_some_and(joins)
            || !self.rotates_for(brings)
            || self.pool.is_ready(segment_bytes_for(brings))
    }

    /// Room that is left for batches after what is staged.
    fn room(&self) -> u64 {
        self.staged.last().map_or_else(|| self.tail.room(), Staged::room_after)
    }

    /// The segment that the last batch staged goes to.
    fn segment(&self) -> &Arc<Segment> {
        self.staged.iter().rev().find_map(|batch| batch.opens.as_ref()).unwrap_or(&self.tail.segment)
    }

    /// Whether a fresh batch needs another segment.
    fn rotates_for(&self, brings: Brings) -> bool {
        batch_bytes(brings.bytes()) as u64 + brings.leaves(reserve_bytes(self.segment().bytes)) > self.room()
    }

    /// The batch that a change goes to: the last one staged if it can take it, or a fresh one.
    pub(crate) fn batch(&mut self, cuts: bool, brings: Brings) -> Result<&mut Staged, Error> {
        if !self.staged.last().is_some_and(|batch| batch.accepts(cuts, brings, self.batch_bytes_max)) {
            self.fresh_batch(brings)?;
        }
        let batch = self.staged.last_mut().expect("there, or just pushed");
        batch.cuts |= cuts;
        Ok(batch)
    }

    fn fresh_batch(&mut self, brings: Brings) -> Result<(), Error> {
        let opens = if self.rotates_for(brings) { Some(self.pool.take(segment_bytes_for(brings))?) } else { None };
        let room = opens.as_ref().map_or_else(|| self.room(), |segment| segment.bytes - BATCHES_AT as u64);
        let reserve = reserve_bytes(opens.as_ref().unwrap_or_else(|| self.segment()).bytes);
        let standing = self.standing().clone();
        self.staged.push(Staged::new(self.retired.pop(), standing, (room, reserve), opens));
        Ok(())
    }

    /// Stages entries that follow the log or override its end.
    pub(crate) fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), Error> {
        let cuts = entries.first().is_some_and(|first| first.index() <= self.standing().last.index);
        self.batch(cuts, Brings::entries(entries))?.append(entries, state);
        self.stats.entries_appended += entries.len() as u64;
        Ok(())
    }

    /// Index and term of an entry that is in the log, durable or not.
    pub(crate) fn id_of(&self, index: Index, reader: &Reader) -> Result<EntryId, Error> {
        let Standing { base, last, .. } = self.standing();
        if index == base.index {
            return Ok(*base);
        }
        // The newest batch that brought the entry counts: what it overrode lies in older ones.
        let written = self.unsynced.iter().map(|written| &written.batch);
        let staged = written.chain(&self.staged).rev().find_map(|batch| batch.term(index));
        let gone = Error::OutOfRange { index, base: base.index, last: last.index };
        staged.or_else(|| reader.term(index)).map(|term| EntryId::new(term, index)).ok_or(gone)
    }

    /// Stages a new end.
    pub(crate) fn cut(&mut self, base: EntryId, last: EntryId) -> Result<(), Error> {
        let standing = &mut self.batch(true, Brings::Truncation)?.standing;
        (standing.base, standing.last) = (base, last);
        Ok(())
    }

    /// Stages a new beginning.
    pub(crate) fn rebase(&mut self, base: EntryId) -> Result<(), Error> {
        self.batch(false, Brings::Truncation)?.standing.base = base;
        Ok(())
    }

    /// Puts entries in the place of lost ones, durably, and proves it: otherwise they would count as lost again.
    pub(crate) fn fill(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.sync()?;
        self.fresh_batch(Brings::entries(entries))?;
        self.staged.last_mut().expect("just pushed").fill(entries);
        self.sync()?;
        self.mark(Brings::State)
    }

    /// Writes what is staged. An error leaves the writer unusable.
    pub(crate) fn write(&mut self) -> Result<(), Error> {
        let mut staged = std::mem::take(&mut self.staged);
        for batch in staged.drain(..) {
            let written = self.write_batch(batch)?;
            self.unsynced.push(written);
        }
        self.staged = staged;
        Ok(())
    }

    /// Writes what is staged, and returns when it is durable. An error leaves the writer unusable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.write()?;
        if !self.unsynced.is_empty() {
            self.sync_tail()?;
            self.publish();
            self.purge();
        }
        Ok(())
    }

    /// Proves durable all entries that have been synced, by an empty batch if there is no proof yet: the next opening need
    /// not write them again. `brings` says how much the proof is worth.
    pub(crate) fn mark(&mut self, brings: Brings) -> Result<(), Error> {
        if self.unmarked {
            self.batch(false, brings)?;
        }
        self.sync()
    }

    fn write_batch(&mut self, mut batch: Staged) -> Result<Written, Error> {
        if let Some(segment) = batch.opens.take() {
            self.rotate(segment)?;
        }
        batch.mend(&mut self.damage);
        let (salt, durable_batch, chain) = (self.tail.salt, self.durable_batch, self.chain);
        self.unmarked = !batch.offsets.is_empty() || (self.unmarked && durable_batch < self.seq);
        self.chain = batch.seal(&mut self.written, &Seal { salt, seq: self.seq + 1, durable_batch, chain });
        self.seq += 1;
        let Tail { segment, offset, .. } = &mut self.tail;
        segment.write(&batch.buffer, *offset)?;
        let written = Written { segment: segment.clone(), offset: *offset as u32, batch };
        *offset += written.batch.buffer.len() as u64;
        self.stats.batches_written += 1;
        self.stats.bytes_written += written.batch.buffer.len() as u64;
        Ok(written)
    }

    fn rotate(&mut self, segment: Arc<Segment>) -> Result<(), Error> {
        if !planted::is(Mistake::SealedSegmentNotSynced) {
            self.sync_tail()?;
        }
        if self.damage.ranges().len() > DAMAGE_COUNT_MAX {
            // No more than the next opening will know.
            self.damage = self.damage.coarse(DAMAGE_COUNT_MAX);
            self.catalog.write().unwrap_or_else(PoisonError::into_inner).lose(&self.damage);
        }
        let (standing, damage) = (&self.written, &self.damage);
        let position = Position { log_id: self.id, seq: self.seq, chain: self.chain, standing, damage };
        let tail = Tail::start(&*self.fs, segment, &position)?;
        self.catalog.write().unwrap_or_else(PoisonError::into_inner).add_segment(tail.segment.clone());
        self.tail = tail;
        self.stats.rotations += 1;
        Ok(())
    }

    fn sync_tail(&mut self) -> Result<(), Error> {
        let Tail { segment, header, .. } = &self.tail;
        if segment.take_header_report() {
            segment.write_header(header)?;
        }
        if !planted::is(Mistake::NoSync) {
            segment.sync()?;
        }
        self.durable_batch = self.seq;
        self.stats.syncs += 1;
        Ok(())
    }

    /// Shows readers what has become durable.
    fn publish(&mut self) {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        for Written { batch, segment, offset } in self.unsynced.drain(..) {
            segment.publish(offset as usize + batch.buffer.len());
            if batch.cuts {
                catalog.cut(batch.first());
            }
            let (first, offsets, runs) = (batch.first(), &batch.offsets[..], &batch.runs[..]);
            catalog.place(Placed { first, segment: &segment, offset, offsets, runs });
            catalog.stand(batch.standing.base, batch.standing.last);
            if batch.buffer.capacity() <= 2 * self.batch_bytes_max && self.retired.len() < RETIRED_MAX {
                self.retired.push(batch);
            }
        }
        catalog.set_cuts(self.written.cuts);
        if catalog.is_damaged() || !self.damage.is_empty() {
            catalog.set_damage(self.damage.clone());
        }
    }

    /// Gives up the oldest segments while nothing durable lies in them. In order, so that a crash leaves no gap.
    pub(crate) fn purge(&mut self) {
        if !self.damage.is_empty() {
            // Where entries are lost, what is in no place that is known may still be somewhere.
            return;
        }
        let purged = self.catalog.write().unwrap_or_else(PoisonError::into_inner).take_empty_segments();
        purged.into_iter().for_each(|segment| self.pool.discard(segment));
    }
}
