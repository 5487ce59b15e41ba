//! The bytes of a segment: the only file that knows offsets. `FORMAT.md` draws them and argues for them.
//!
//! A segment is pages of 4 KiB. Page 0 holds the segment header, twice; each batch starts on a fresh page with a header
//! of one sector. Both headers carry a [`Standing`], what the log as a whole looks like, so that a reader who has lost
//! a batch learns from the next header what it missed. Integers are little-endian, and every byte is under a checksum.

use bytes::Bytes;

use crate::error::LogId;
use crate::record::{EntryId, Index, Term};

/// The version this release writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;
/// A disk writes this much or nothing of it (assumption A1).
pub(crate) const SECTOR_BYTES: usize = 512;
/// Batches start on multiples of this.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Largest state blob, in bytes.
pub const STATE_BYTES_MAX: usize = SECTOR_BYTES - STATE;
/// Most bytes of entries in one batch, hence in one append.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

const SEGMENT_MAGIC: [u8; 8] = *b"kv-wal\0S";
const BATCH_MAGIC: [u8; 4] = *b"kvwB";
/// The second copy of the segment header, so that one bad sector does not cost a segment.
const HEADER_COPY: usize = 4 * SECTOR_BYTES;
const BITMAP_BYTES: usize = 256;
/// In place of the length of a state blob: there is none.
const NO_STATE: u8 = u8::MAX;

/// Offsets in the sector of a segment header.
mod segment {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const CRC: usize = 12;
    pub(super) const LOG_ID: usize = 16;
    pub(super) const SEQ: usize = 32;
    pub(super) const SALT: usize = 40;
    pub(super) const NEXT_BATCH: usize = 48;
    pub(super) const DURABLE_BATCH: usize = 56;
    pub(super) const CHAIN: usize = 64;
    pub(super) const STANDING: usize = 72;
    pub(super) const RESERVED: usize = STANDING + super::STANDING_BYTES;
}

/// Offsets in the sector of a batch header.
mod batch {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CRC: usize = 4;
    pub(super) const SALT: usize = 8;
    pub(super) const SEQ: usize = 16;
    pub(super) const DURABLE_BATCH: usize = 24;
    pub(super) const CHAIN: usize = 32;
    pub(super) const BODY_CRC: usize = 36;
    pub(super) const BODY_BYTES: usize = 40;
    pub(super) const COUNT: usize = 44;
    pub(super) const STANDING: usize = 48;
    pub(super) const BITMAP: usize = STANDING + super::STANDING_BYTES;
}

/// Offsets in a standing; the state blob itself ends the sector of either header.
mod standing {
    pub(super) const CUTS: usize = 0;
    pub(super) const STATE_BYTES: usize = 4;
    /// These two are unused in a segment header.
    pub(super) const BITMAP_SHIFT: usize = 5;
    pub(super) const CUTS_END: usize = 6;
    pub(super) const CUT: usize = 8;
    pub(super) const LAST: usize = 16;
    pub(super) const BASE: usize = 32;
}
const STANDING_BYTES: usize = 48;
const STATE: usize = batch::BITMAP + BITMAP_BYTES;

const _: () = assert!(standing::BASE + 16 == STANDING_BYTES);
const _: () = assert!(batch::BITMAP == 96 && STATE == 352 && STATE_BYTES_MAX == 160);
const _: () = assert!(segment::RESERVED <= STATE);
const _: () = assert!(STATE_BYTES_MAX < NO_STATE as usize);
const _: () = assert!(HEADER_COPY + SECTOR_BYTES <= PAGE_BYTES);
const _: () = assert!(BATCH_BYTES_MAX < (u32::MAX as usize) - PAGE_BYTES);

/// What the log as a whole looks like at some point of its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Entry before the first.
    pub(crate) base: EntryId,
    /// The last entry; `base` if there is none.
    pub(crate) last: EntryId,
    /// How many batches have removed entries from the end of the log. **In a batch header: before that batch.**
    pub(crate) cuts: u32,
    /// Lowest index that the latest of them removed. In a batch header: before that batch.
    pub(crate) cut: Index,
    /// The caller's newest state blob.
    pub(crate) state: Option<Bytes>,
}

/// What starts a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: LogId,
    pub(crate) seq: u64,
    /// Random for each use of a file: no batch of another use passes for one of this.
    pub(crate) salt: u64,
    /// Sequence number of the first batch in this segment. What older segments hold from here on does not count.
    pub(crate) next_batch: u64,
    /// Highest batch known durable when this was written.
    pub(crate) durable_batch: u64,
    /// Checksum of the header of batch `next_batch - 1`.
    pub(crate) chain: u32,
    /// As of `durable_batch`.
    pub(crate) standing: Standing,
}

/// What starts a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) salt: u64,
    pub(crate) seq: u64,
    /// Highest batch known durable when this was written.
    pub(crate) durable_batch: u64,
    /// Checksum of the header of batch `seq - 1`.
    pub(crate) chain: u32,
    /// Over all after this sector, to the end of the batch's last page.
    pub(crate) body_crc: u32,
    /// Of entries; zeros follow to the end of the page.
    pub(crate) body_bytes: u32,
    /// Entries in this batch, the last of which is `standing.last`.
    pub(crate) count: u32,
    /// After this batch, but for the cuts.
    pub(crate) standing: Standing,
    /// Whether this batch removes entries from the end of the log before it appends its own.
    pub(crate) cuts_end: bool,
    pub(crate) written: NonZeroMap,
    /// Checksum of this header.
    pub(crate) crc: u32,
}

/// Which sectors of a batch, after its header, certainly hold a byte that is not zero: where one of them reads as zeros,
/// it was never written. A bit stands for 2^`shift` sectors, and is set only if that is true of each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NonZeroMap {
    shift: u8,
    bits: [u8; BITMAP_BYTES],
}

/// Why a sector is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All zeros: never written.
    Zeros,
    /// Something else.
    Unreadable,
    /// A sound header of a newer version.
    Version(u32),
}

/// Bytes of pages that a batch with so many bytes of entries takes.
pub(crate) const fn batch_bytes(body_bytes: usize) -> usize {
    (SECTOR_BYTES + body_bytes).next_multiple_of(PAGE_BYTES)
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.by_ref().all(|word| word == [0; 16]) && words.remainder().iter().all(|&byte| byte == 0)
}

impl Standing {
    /// Index of the first entry of a batch of `count` entries that leads to this standing; with none, of the next one.
    pub(crate) fn first(&self, count: usize) -> Index {
        Index::new(self.last.index.get() + 1 - count as u64)
    }

    /// Moves on to `next`, the standing after a batch that begins at `first`, and may remove what is there already.
    pub(crate) fn advance(&mut self, next: &Standing, first: Index, cuts_end: bool) {
        if cuts_end {
            self.cuts = self.cuts.wrapping_add(1);
            self.cut = first;
        }
        self.base = next.base;
        self.last = next.last;
        self.state.clone_from(&next.state);
    }

    fn encode(&self, sector: &mut [u8], at: usize) {
        put_u32(sector, at + standing::CUTS, self.cuts);
        put_u64(sector, at + standing::CUT, self.cut.get());
        put_id(sector, at + standing::LAST, self.last);
        put_id(sector, at + standing::BASE, self.base);
        sector[at + standing::STATE_BYTES] = NO_STATE;
        if let Some(state) = &self.state {
            sector[at + standing::STATE_BYTES] = state.len() as u8;
            sector[STATE..STATE + state.len()].copy_from_slice(state);
        }
    }

    /// `None` if no writer can have written this.
    fn decode(sector: &[u8], at: usize) -> Option<Standing> {
        let state = match sector[at + standing::STATE_BYTES] {
            NO_STATE => None,
            bytes => Some(Bytes::copy_from_slice(sector.get(STATE..STATE + bytes as usize)?)),
        };
        let (base, last) = (get_id(sector, at + standing::BASE), get_id(sector, at + standing::LAST));
        let cut = Index::new(get_u64(sector, at + standing::CUT));
        let possible = base.index <= last.index && last.index.get() < u64::MAX;
        possible.then_some(Standing { base, last, cuts: get_u32(sector, at + standing::CUTS), cut, state })
    }
}

impl SegmentHeader {
    /// Page 0 of a segment.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let sector = &mut page[..SECTOR_BYTES];
        sector[segment::MAGIC..][..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(sector, segment::VERSION, VERSION);
        sector[segment::LOG_ID..][..16].copy_from_slice(&self.log_id.0);
        put_u64(sector, segment::SEQ, self.seq);
        put_u64(sector, segment::SALT, self.salt);
        put_u64(sector, segment::NEXT_BATCH, self.next_batch);
        put_u64(sector, segment::DURABLE_BATCH, self.durable_batch);
        put_u32(sector, segment::CHAIN, self.chain);
        self.standing.encode(sector, segment::STANDING);
        let crc = crc_around(sector, segment::CRC);
        put_u32(sector, segment::CRC, crc);
        page.copy_within(..SECTOR_BYTES, HEADER_COPY);
        page
    }

    /// From page 0: one sound copy is enough.
    pub(crate) fn decode(page: &[u8]) -> Result<SegmentHeader, Fault> {
        let copy = |at: usize| Self::decode_sector(&page[at..at + SECTOR_BYTES]);
        match (copy(0), copy(HEADER_COPY)) {
            (Ok(header), _) | (_, Ok(header)) => Ok(header),
            (Err(Fault::Version(version)), _) | (_, Err(Fault::Version(version))) => Err(Fault::Version(version)),
            (Err(Fault::Zeros), Err(Fault::Zeros)) => Err(Fault::Zeros),
            _ => Err(Fault::Unreadable),
        }
    }

    fn decode_sector(sector: &[u8]) -> Result<SegmentHeader, Fault> {
        check(sector, &SEGMENT_MAGIC, segment::CRC)?;
        let version = get_u32(sector, segment::VERSION);
        if version > VERSION {
            return Err(Fault::Version(version));
        }
        Ok(SegmentHeader {
            log_id: LogId(sector[segment::LOG_ID..][..16].try_into().expect("sixteen bytes")),
            seq: get_u64(sector, segment::SEQ),
            salt: get_u64(sector, segment::SALT),
            next_batch: get_u64(sector, segment::NEXT_BATCH),
            durable_batch: get_u64(sector, segment::DURABLE_BATCH),
            chain: get_u32(sector, segment::CHAIN),
            standing: Standing::decode(sector, segment::STANDING).ok_or(Fault::Unreadable)?,
        })
    }
}

impl BatchHeader {
    /// Writes the header into the first sector of `batch`, whole pages that hold the entries after it; fills in the
    /// fields that follow from them (`body_crc`, `written`, `crc`), and gives the header's checksum.
    pub(crate) fn seal(mut self, pages: &mut [u8]) -> u32 {
        assert!(pages.len() == batch_bytes(self.body_bytes as usize), "a batch is whole pages");
        let (sector, body) = pages.split_at_mut(SECTOR_BYTES);
        self.body_crc = crc32c::crc32c(body);
        self.written = NonZeroMap::of(body);
        self.encode(sector)
    }

    fn encode(&self, sector: &mut [u8]) -> u32 {
        sector.fill(0);
        sector[batch::MAGIC..][..4].copy_from_slice(&BATCH_MAGIC);
        put_u64(sector, batch::SALT, self.salt);
        put_u64(sector, batch::SEQ, self.seq);
        put_u64(sector, batch::DURABLE_BATCH, self.durable_batch);
        put_u32(sector, batch::CHAIN, self.chain);
        put_u32(sector, batch::BODY_CRC, self.body_crc);
        put_u32(sector, batch::BODY_BYTES, self.body_bytes);
        put_u32(sector, batch::COUNT, self.count);
        self.standing.encode(sector, batch::STANDING);
        sector[batch::STANDING + standing::BITMAP_SHIFT] = self.written.shift;
        sector[batch::STANDING + standing::CUTS_END] = u8::from(self.cuts_end);
        sector[batch::BITMAP..][..BITMAP_BYTES].copy_from_slice(&self.written.bits);
        let crc = crc_around(sector, batch::CRC);
        put_u32(sector, batch::CRC, crc);
        crc
    }

    /// From the first sector of a batch.
    pub(crate) fn decode(sector: &[u8]) -> Result<BatchHeader, Fault> {
        check(sector, &BATCH_MAGIC, batch::CRC)?;
        let standing = Standing::decode(sector, batch::STANDING).ok_or(Fault::Unreadable)?;
        let count = get_u32(sector, batch::COUNT);
        if u64::from(count) > standing.last.index.get() {
            return Err(Fault::Unreadable);
        }
        Ok(BatchHeader {
            salt: get_u64(sector, batch::SALT),
            seq: get_u64(sector, batch::SEQ),
            durable_batch: get_u64(sector, batch::DURABLE_BATCH),
            chain: get_u32(sector, batch::CHAIN),
            body_crc: get_u32(sector, batch::BODY_CRC),
            body_bytes: get_u32(sector, batch::BODY_BYTES),
            count,
            standing,
            cuts_end: sector[batch::STANDING + standing::CUTS_END] != 0,
            written: NonZeroMap {
                shift: sector[batch::STANDING + standing::BITMAP_SHIFT].min(31),
                bits: sector[batch::BITMAP..][..BITMAP_BYTES].try_into().expect("the bytes of the bitmap"),
            },
            crc: get_u32(sector, batch::CRC),
        })
    }

    /// Bytes of pages the whole batch takes.
    pub(crate) fn total_bytes(&self) -> usize {
        batch_bytes(self.body_bytes as usize)
    }

    /// Index of its first entry; if it has none, the index after its last.
    pub(crate) fn first(&self) -> Index {
        self.standing.first(self.count as usize)
    }
}

impl NonZeroMap {
    /// Of no sectors.
    pub(crate) const EMPTY: NonZeroMap = NonZeroMap { shift: 0, bits: [0; BITMAP_BYTES] };

    /// Of the sectors of `body`.
    fn of(body: &[u8]) -> NonZeroMap {
        let mut map = NonZeroMap::EMPTY;
        let sectors = body.len() / SECTOR_BYTES;
        while sectors > (BITMAP_BYTES * 8) << map.shift {
            map.shift += 1;
        }
        for (group, bytes) in body.chunks(SECTOR_BYTES << map.shift).enumerate() {
            if !bytes.chunks(SECTOR_BYTES).any(is_zero) {
                map.bits[group / 8] |= 1 << (group % 8);
            }
        }
        map
    }

    /// Whether a sector of `body` is zeros that was something else when the batch was made.
    pub(crate) fn shows_unwritten(&self, body: &[u8]) -> bool {
        body.chunks(SECTOR_BYTES << self.shift)
            .take(BITMAP_BYTES * 8)
            .enumerate()
            .filter(|(group, _)| self.bits[group / 8] & (1 << (group % 8)) != 0)
            .any(|(_, bytes)| bytes.chunks(SECTOR_BYTES).any(is_zero))
    }
}

/// The checks both headers share.
fn check(sector: &[u8], magic: &[u8], crc_at: usize) -> Result<(), Fault> {
    if is_zero(sector) {
        return Err(Fault::Zeros);
    }
    if !sector.starts_with(magic) || get_u32(sector, crc_at) != crc_around(sector, crc_at) {
        return Err(Fault::Unreadable);
    }
    Ok(())
}

/// Over a sector but for the four bytes of the checksum itself.
fn crc_around(sector: &[u8], crc_at: usize) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..crc_at]), &sector[crc_at + 4..SECTOR_BYTES])
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn put_id(bytes: &mut [u8], at: usize, id: EntryId) {
    put_u64(bytes, at, id.index.get());
    put_u64(bytes, at + 8, id.term.get());
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn get_id(bytes: &[u8], at: usize) -> EntryId {
    EntryId::new(Term::new(get_u64(bytes, at + 8)), Index::new(get_u64(bytes, at)))
}

/// Makes a segment look like one of another version.
#[cfg(test)]
pub(crate) fn set_version(page: &mut [u8], version: u32) {
    for at in [0, HEADER_COPY] {
        let sector = &mut page[at..at + SECTOR_BYTES];
        put_u32(sector, segment::VERSION, version);
        let crc = crc_around(sector, segment::CRC);
        put_u32(sector, segment::CRC, crc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(index: u64, term: u64) -> EntryId {
        EntryId::new(Term::new(term), Index::new(index))
    }

    fn standing() -> Standing {
        let state = Some(Bytes::from_static(b"vote"));
        Standing { base: id(3, 1), last: id(9, 2), cuts: 5, cut: Index::new(7), state }
    }

    fn segment_header() -> SegmentHeader {
        let log_id = LogId([7; 16]);
        SegmentHeader { log_id, seq: 4, salt: 99, next_batch: 31, durable_batch: 30, chain: 17, standing: standing() }
    }

    fn batch_header(body_bytes: usize) -> BatchHeader {
        BatchHeader {
            salt: 99,
            seq: 31,
            durable_batch: 30,
            chain: 17,
            body_crc: 0,
            body_bytes: body_bytes as u32,
            count: 2,
            standing: standing(),
            cuts_end: true,
            written: NonZeroMap::EMPTY,
            crc: 0,
        }
    }

    #[test]
    fn a_segment_header_survives_either_copy_but_not_both() {
        let page = segment_header().encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(segment_header()));
        for at in 0..SECTOR_BYTES {
            for copies in [&[0][..], &[HEADER_COPY], &[0, HEADER_COPY]] {
                let mut damaged = page.clone();
                copies.iter().for_each(|copy| damaged[copy + at] ^= 0x10);
                let result = SegmentHeader::decode(&damaged);
                let expected = if copies.len() == 1 { Ok(segment_header()) } else { Err(Fault::Unreadable) };
                assert_eq!(result, expected, "byte {at} of {copies:?}");
            }
        }
        assert_eq!(SegmentHeader::decode(&vec![0; PAGE_BYTES]), Err(Fault::Zeros));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut page = segment_header().encode();
        set_version(&mut page, VERSION + 1);
        assert_eq!(SegmentHeader::decode(&page), Err(Fault::Version(VERSION + 1)));
    }

    /// The bytes of the format. If this fails, the format changed: that needs a new version.
    #[test]
    fn golden_checksums() {
        let page = segment_header().encode();
        let mut batch = vec![0; batch_bytes(100)];
        batch[SECTOR_BYTES..][..100].fill(0xa5);
        batch_header(100).seal(&mut batch);
        assert_eq!((crc32c::crc32c(&page), crc32c::crc32c(&batch)), (1_542_173_647, 1_933_815_492));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_a_batch_header_is_found(at in 0..SECTOR_BYTES, bit in 0..8u8) {
            let mut pages = vec![0; batch_bytes(100)];
            batch_header(100).seal(&mut pages);
            pages[at] ^= 1 << bit;
            prop_assert_eq!(BatchHeader::decode(&pages[..SECTOR_BYTES]), Err(Fault::Unreadable));
        }

        #[test]
        fn an_unwritten_sector_shows_unless_it_was_zeros(
            sectors in proptest::collection::vec(any::<bool>(), 0..60),
            lost in 0..60usize,
        ) {
            let mut pages = vec![0; batch_bytes(sectors.len() * SECTOR_BYTES)];
            for (sector, full) in sectors.iter().enumerate() {
                pages[SECTOR_BYTES * (sector + 2) - 1] = u8::from(*full);
            }
            batch_header(sectors.len() * SECTOR_BYTES).seal(&mut pages);
            let header = BatchHeader::decode(&pages[..SECTOR_BYTES]).unwrap();
            let body = &mut pages[SECTOR_BYTES..];
            prop_assert!(!header.written.shows_unwritten(body));
            if lost < sectors.len() {
                body[lost * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
                prop_assert_eq!(header.written.shows_unwritten(body), sectors[lost]);
            }
        }

        #[test]
        fn arbitrary_sectors_never_panic(sector in proptest::collection::vec(any::<u8>(), SECTOR_BYTES)) {
            prop_assert!(BatchHeader::decode(&sector).is_err());
            prop_assert!(SegmentHeader::decode_sector(&sector).is_err());
        }
    }

    /// Beyond 1 MiB a bit stands for several sectors, and says less but nothing wrong.
    #[test]
    fn a_large_batch_groups_its_sectors() {
        let mut pages = vec![1; batch_bytes(3 << 20)];
        pages[SECTOR_BYTES * 10..SECTOR_BYTES * 11].fill(0);
        batch_header(3 << 20).seal(&mut pages);
        let header = BatchHeader::decode(&pages[..SECTOR_BYTES]).unwrap();
        assert_eq!(header.written.shift, 2);
        let body = &mut pages[SECTOR_BYTES..];
        assert!(!header.written.shows_unwritten(body));
        body[SECTOR_BYTES * 8..SECTOR_BYTES * 9].fill(0);
        assert!(!header.written.shows_unwritten(body), "its group holds zeros by right");
        body[SECTOR_BYTES * 5000..SECTOR_BYTES * 5001].fill(0);
        assert!(header.written.shows_unwritten(body));
    }
}
