//! Reading the durable log, from any thread, without a copy.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::catalog::Catalog;
use crate::error::{Damage, Error};
use crate::log::Stats;
use crate::record::{DecodeError, Entry, EntryId, Index, Term};
use crate::segment::Segment;

/// Reads the log while it is written. Cheap to clone, and good for as long as it is held: entries that were read stay
/// valid when the log is truncated or closed.
///
/// A reader sees exactly what is durable, that is what a [`Log::sync`](crate::Log::sync) has covered: never an entry
/// that a crash could take back.
#[derive(Clone, Debug)]
pub struct Reader {
    catalog: Arc<RwLock<Catalog>>,
}

impl Reader {
    pub(crate) fn new(catalog: Arc<RwLock<Catalog>>) -> Self {
        Reader { catalog }
    }

    fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        // The writer changes the catalog by steps that panic only on a broken invariant, and is then gone itself.
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of `range`, from its start on, until they make up `bytes_max` bytes: at least one, unless the range is
    /// empty, and none after the end of the log. Slices of the mapped segments, each entry's checksum verified.
    ///
    /// # Errors
    ///
    /// The first entry was truncated, lies outside the log, or is damaged. An entry later in the range that is damaged
    /// ends the result before it.
    pub fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut next = range.start;
        let pieces = self.catalog().locate(range, bytes_max)?;
        let mut entries = Vec::with_capacity(pieces.iter().map(|piece| piece.offsets.len()).sum());
        let mut bytes = 0;
        for piece in pieces {
            let start = piece.offsets[0] as usize;
            let published = piece.segment.published_from(start);
            for offset in piece.offsets {
                let entry = match entry_at(&published, offset as usize - start, next) {
                    Ok(entry) => entry,
                    Err(_) if !entries.is_empty() => return Ok(entries),
                    Err(source) => return Err(Error::Unreadable { index: next, source }),
                };
                bytes += entry.frame().len();
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
                next = next.next();
            }
        }
        Ok(entries)
    }

    /// One entry: a slice of the mapped segment, its checksum verified.
    ///
    /// # Errors
    ///
    /// It was truncated, lies outside the log, or is damaged.
    pub fn get(&self, index: Index) -> Result<Entry, Error> {
        let bytes = self.catalog().find(index)?;
        Entry::expect_first(bytes, index).map_err(|source| Error::Unreadable { index, source })
    }

    /// Entries that a [`Scrubber`](crate::Scrubber) has found to be in danger and that have not been repaired or removed
    /// since: the next opening would find them lost. Some can still be read, and be repaired by that.
    pub fn suspects(&self) -> Vec<Damage> {
        self.catalog().suspects().ranges().to_vec()
    }

    /// These counts, and what the log takes now.
    pub(crate) fn complete(&self, counted: Stats) -> Stats {
        self.catalog().complete(counted)
    }

    /// The segment after number `seq`, and whether it is the newest.
    pub(crate) fn segment_after(&self, seq: u64) -> Option<(Arc<Segment>, bool)> {
        self.catalog().segment_after(seq)
    }

    /// How often the end of the log has been cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.catalog().cuts()
    }

    /// Makes suspects of the entries that lie in a part of a segment and that `is_bad`. Gives them.
    pub(crate) fn suspect(
        &self,
        segment: &Arc<Segment>,
        part: &Range<usize>,
        mut is_bad: impl FnMut(Index, usize) -> bool,
    ) -> Vec<Damage> {
        // The disk is not waited for under the lock.
        let mut inside = self.catalog().entries_in(segment, part);
        inside.retain(|&(index, offset)| is_bad(index, offset as usize));
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.suspect(segment, &inside).ranges().to_vec()
    }

    /// Makes suspects of all entries before `end` that were written before a place. Gives them.
    pub(crate) fn suspect_before(&self, end: Index, place: (u64, usize)) -> Vec<Damage> {
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.suspect_before(end, place).ranges().to_vec()
    }

    /// Whether an entry that the log should have is suspect, or cannot be read.
    pub(crate) fn is_lost(&self, index: Index) -> bool {
        if self.catalog().suspects().at(index).is_some() {
            return true;
        }
        let place = self.catalog().place_of(index).map(|(segment, offset)| (segment.clone(), offset));
        match place.and_then(|(segment, offset)| segment.read_entry(offset, index)) {
            Ok(_) => false,
            Err(error) => matches!(error, Error::Damaged { .. } | Error::Unreadable { .. } | Error::Io { .. }),
        }
    }

    /// The entries of `range` one by one, as far as the log goes, in bounded memory. An entry that cannot be read is an
    /// error, and the last item.
    ///
    /// ```
    /// # use kv_wal::{Entry, EntryId, Index, Kind, Log, Options, Term};
    /// # fn main() -> Result<(), kv_wal::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (mut log, _) = Log::open(dir.path(), Options { segment_bytes: 1 << 20, ..Options::default() })?;
    /// # let id = |index| EntryId::new(Term::new(1), Index::new(index));
    /// # let mut buffer = bytes::BytesMut::new();
    /// # let entries: Vec<Entry> = (1..=3).map(|n| Entry::encode(&mut buffer, id(n), 0, Kind(1), b"x")).collect();
    /// log.append(&entries, None)?;
    /// log.sync()?;
    /// let indexes: Result<Vec<Index>, _> =
    ///     log.reader().iter(Index::new(2)..Index::new(9)).map(|entry| Ok(entry?.index())).collect();
    /// assert_eq!(indexes?, [Index::new(2), Index::new(3)]);
    /// # log.close()
    /// # }
    /// ```
    pub fn iter(&self, range: Range<Index>) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        Entries { reader: self.clone(), range, chunk: Vec::new().into_iter() }
    }

    /// The term of an entry, or of the base; `None` if the entry is not in the log, or damaged.
    pub fn term(&self, index: Index) -> Option<Term> {
        self.catalog().term(index)
    }

    /// The entry before the first.
    pub fn base(&self) -> EntryId {
        self.catalog().base()
    }

    /// The last durable entry; the base if there is none.
    pub fn last(&self) -> EntryId {
        self.catalog().last()
    }

    /// The first entry of each run of equal terms, in order.
    pub fn term_runs(&self) -> Vec<EntryId> {
        self.catalog().runs()
    }
}

/// Reads chunk by chunk.
struct Entries {
    reader: Reader,
    /// What has not been read yet.
    range: Range<Index>,
    chunk: std::vec::IntoIter<Entry>,
}

/// Bytes of entries that an iterator reads at once.
const CHUNK_BYTES: usize = 256 << 10;

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.chunk.next() {
            return Some(Ok(entry));
        }
        if self.range.is_empty() {
            return None;
        }
        match self.reader.read(self.range.clone(), CHUNK_BYTES) {
            Ok(entries) => {
                self.range.start = self.range.start.plus(entries.len() as u64);
                self.chunk = entries.into_iter();
                self.chunk.next().map(Ok)
            }
            Err(error) => {
                self.range.end = self.range.start;
                let is_end = matches!(error, Error::OutOfRange { .. });
                (!is_end).then_some(Err(error))
            }
        }
    }
}

/// The entry at `offset`, if it is sound and the one that belongs there.
fn entry_at(bytes: &bytes::Bytes, offset: usize, index: Index) -> Result<Entry, DecodeError> {
    let short = DecodeError::Short { needed: offset, present: bytes.len() };
    let rest = if offset <= bytes.len() { bytes.slice(offset..) } else { return Err(short) };
    Entry::expect_first(rest, index)
}
