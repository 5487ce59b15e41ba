//! The bytes of a segment: the only file that knows offsets. `FORMAT.md` draws them and argues for them.
//!
//! A segment is pages of 4 KiB. The first two hold the segment header, once each; each batch starts on a fresh page with
//! a header of one sector. Both headers carry a [`Standing`], what the log as a whole looks like, so that a reader who
//! has lost a batch learns from the next header what it missed. Integers are little-endian, and every byte is under a
//! checksum.

use bytes::Bytes;

use crate::damage::DamageList;
use crate::error::{Damage, LogId};
use crate::planted::{self, Mistake};
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

/// The header pages of a segment: two, the same, so that one bad page does not cost a segment. Batches follow.
pub(crate) const HEADER_PAGES: usize = 2;
pub(crate) const BATCHES_AT: usize = HEADER_PAGES * PAGE_BYTES;

const SEGMENT_MAGIC: [u8; 8] = *b"kv-wal\0S";
const BATCH_MAGIC: [u8; 4] = *b"kvwB";
const MAP_MAGIC: [u8; 4] = *b"kvwM";
const ERASED_MAGIC: [u8; 4] = *b"kvwE";
const BITMAP_BYTES: usize = 256;
pub(crate) type Bitmap = [u8; BITMAP_BYTES];
/// Of a batch that has not been sealed.
pub(crate) const NO_BITMAP: Bitmap = [0; BITMAP_BYTES];
/// Sectors of entries that the bitmap of a batch header stands for.
const BITMAP_SECTORS: usize = BITMAP_BYTES * 8;
/// A larger batch has map sectors at its end: magic, checksum, bits.
const MAP_BITS_AT: usize = 8;
const MAP_SECTORS: usize = (SECTOR_BYTES - MAP_BITS_AT) * 8;
/// No segment is larger: offsets have four bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 32;
/// A number of a segment or batch that no log reaches, far enough from the greatest that counting on cannot overflow.
pub(crate) const SEQ_MAX: u64 = u64::MAX / 2;
/// Ranges of lost entries that a segment header has room for.
pub(crate) const DAMAGE_COUNT_MAX: usize = (PAGE_BYTES - segment::DAMAGE) / 16;
/// The greatest index an entry can have.
pub(crate) const INDEX_MAX: Index = Index::new(u64::MAX - 2);
/// In place of the length of a state blob: there is none.
const NO_STATE: u8 = u8::MAX;

/// Offsets in the page of a segment header.
mod segment {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const CRC: usize = 12;
    pub(super) const LOG_ID: usize = 16;
    pub(super) const SEQ: usize = 32;
    pub(super) const SALT: usize = 40;
    pub(super) const NEXT_BATCH: usize = 48;
    pub(super) const BYTES: usize = 56;
    pub(super) const CHAIN: usize = 64;
    pub(super) const DAMAGE_COUNT: usize = 68;
    pub(super) const STANDING: usize = 72;
    pub(super) const RESERVED: usize = STANDING + super::STANDING_BYTES;
    pub(super) const DAMAGE: usize = super::SECTOR_BYTES;
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
    pub(super) const FLAGS: usize = 5;
    pub(super) const CUT: usize = 8;
    pub(super) const LAST: usize = 16;
    pub(super) const BASE: usize = 32;
}
/// Batch only: it removes entries from the end of the log before it appends its own.
const FLAG_CUTS_END: u8 = 1;
/// Batch only: its entries take the place of lost ones.
const FLAG_FILLS: u8 = 2;
/// The newest state blob may be lost.
const FLAG_STATE_IN_DOUBT: u8 = 4;
const STANDING_BYTES: usize = 48;
const STATE: usize = batch::BITMAP + BITMAP_BYTES;

const _: () = assert!(standing::BASE + 16 == STANDING_BYTES);
const _: () = assert!(batch::BITMAP == 96 && STATE == 352 && STATE_BYTES_MAX == 160);
const _: () = assert!(segment::RESERVED <= STATE);
const _: () = assert!(STATE_BYTES_MAX < NO_STATE as usize);
const _: () = assert!(DAMAGE_COUNT_MAX == 224);
const _: () = assert!(BATCH_BYTES_MAX < (u32::MAX as usize) / 2);

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
    /// A newer one than that may be lost.
    pub(crate) state_in_doubt: bool,
}

/// What starts a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: LogId,
    pub(crate) seq: u64,
    /// Random for each use of a file: no batch of another use passes for one of this.
    pub(crate) salt: u64,
    /// Of the file.
    pub(crate) bytes: u64,
    /// Sequence number of the first batch in this segment. All batches before it were durable when this was written,
    /// and what older segments hold from here on does not count.
    pub(crate) next_batch: u64,
    /// Checksum of the header of batch `next_batch - 1`.
    pub(crate) chain: u32,
    /// After that batch.
    pub(crate) standing: Standing,
    /// Which entries were known to be lost then.
    pub(crate) damage: DamageList,
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
    /// Whether its entries take the place of lost ones instead.
    pub(crate) fills: bool,
    /// Which sectors of entries hold a byte that is not zero, if they are not too many.
    pub(crate) bitmap: Bitmap,
    /// Checksum of this header.
    pub(crate) crc: u32,
}

/// Why a sector is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Never written: zeros, or erased.
    Blank,
    /// Something else.
    Unreadable,
    /// A sound header of a newer version.
    Version(u32),
}

/// Bytes of pages that a batch with so many bytes of entries takes.
pub(crate) const fn batch_bytes(body_bytes: usize) -> usize {
    let sectors = 1 + body_bytes.div_ceil(SECTOR_BYTES) + map_sectors(body_bytes);
    (sectors * SECTOR_BYTES).next_multiple_of(PAGE_BYTES)
}

/// Map sectors of such a batch, which follow the sectors of its entries.
const fn map_sectors(body_bytes: usize) -> usize {
    let sectors = body_bytes.div_ceil(SECTOR_BYTES);
    if sectors <= BITMAP_SECTORS { 0 } else { sectors.div_ceil(MAP_SECTORS) }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.by_ref().all(|word| word == [0; 16]) && words.remainder().iter().all(|&byte| byte == 0)
}

/// What a sector holds in the place of one that was cut. Not zeros: should the sync fail that erases, the next opening
/// sees what was to be erased, and does it again. Nobody outside knows the salt, so no payload looks like this.
pub(crate) fn erased_sector(salt: u64) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    sector[..4].copy_from_slice(&ERASED_MAGIC);
    put_u64(&mut sector, 8, salt);
    sector
}

fn is_erased(sector: &[u8], salt: u64) -> bool {
    sector.starts_with(&ERASED_MAGIC) && sector == erased_sector(salt)
}

/// Whether whole sectors hold nothing that counts: zeros, or erased.
pub(crate) fn is_blank(sectors: &[u8], salt: u64) -> bool {
    is_zero(sectors) || sectors.chunks(SECTOR_BYTES).all(|sector| is_zero(sector) || is_erased(sector, salt))
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
        self.state_in_doubt = next.state_in_doubt;
    }

    fn encode(&self, sector: &mut [u8], at: usize) {
        put_u32(sector, at + standing::CUTS, self.cuts);
        put_u64(sector, at + standing::CUT, self.cut.get());
        put_id(sector, at + standing::LAST, self.last);
        put_id(sector, at + standing::BASE, self.base);
        sector[at + standing::FLAGS] = if self.state_in_doubt { FLAG_STATE_IN_DOUBT } else { 0 };
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
        let state_in_doubt = sector[at + standing::FLAGS] & FLAG_STATE_IN_DOUBT != 0;
        let possible = base.index <= last.index && last.index <= INDEX_MAX;
        let cuts = get_u32(sector, at + standing::CUTS);
        possible.then_some(Standing { base, last, cuts, cut, state, state_in_doubt })
    }
}

impl SegmentHeader {
    /// One header page. The damaged ranges are in sectors after the first, which says that the header is there: so they
    /// must be durable before it is written.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[segment::MAGIC..][..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut page, segment::VERSION, VERSION);
        page[segment::LOG_ID..][..16].copy_from_slice(&self.log_id.0);
        put_u64(&mut page, segment::SEQ, self.seq);
        put_u64(&mut page, segment::SALT, self.salt);
        put_u64(&mut page, segment::NEXT_BATCH, self.next_batch);
        put_u64(&mut page, segment::BYTES, self.bytes);
        put_u32(&mut page, segment::CHAIN, self.chain);
        self.standing.encode(&mut page, segment::STANDING);
        let ranges = self.damage.ranges();
        assert!(ranges.len() <= DAMAGE_COUNT_MAX, "made coarse before");
        put_u32(&mut page, segment::DAMAGE_COUNT, ranges.len() as u32);
        for (at, range) in ranges.iter().enumerate() {
            put_u64(&mut page, segment::DAMAGE + 16 * at, range.first.get());
            put_u64(&mut page, segment::DAMAGE + 16 * at + 8, range.last.map_or(u64::MAX, Index::get));
        }
        let crc = crc_around(&page, segment::CRC);
        put_u32(&mut page, segment::CRC, crc);
        page
    }

    /// From the header pages: one that is sound is enough, and so is one that was never written.
    pub(crate) fn decode(pages: [&[u8]; HEADER_PAGES]) -> Result<SegmentHeader, Fault> {
        match pages.map(Self::decode_page) {
            [Ok(header), _] | [_, Ok(header)] => Ok(header),
            [Err(Fault::Version(version)), _] | [_, Err(Fault::Version(version))] => Err(Fault::Version(version)),
            // They are synced at once: one that was never written says that the other was not either, or need not be.
            [Err(Fault::Blank), _] | [_, Err(Fault::Blank)] => Err(Fault::Blank),
            _ => Err(Fault::Unreadable),
        }
    }

    /// From one of its pages.
    pub(crate) fn decode_page(page: &[u8]) -> Result<SegmentHeader, Fault> {
        check(page, &SEGMENT_MAGIC, segment::CRC)?;
        let version = get_u32(page, segment::VERSION);
        if version > VERSION {
            return Err(Fault::Version(version));
        }
        let damage_count = get_u32(page, segment::DAMAGE_COUNT) as usize;
        let next_batch = get_u64(page, segment::NEXT_BATCH);
        let bytes = get_u64(page, segment::BYTES);
        let possible = damage_count <= DAMAGE_COUNT_MAX
            && (1..=SEQ_MAX).contains(&next_batch)
            && get_u64(page, segment::SEQ) <= SEQ_MAX
            && (BATCHES_AT as u64..=SEGMENT_BYTES_MAX).contains(&bytes)
            && bytes.is_multiple_of(PAGE_BYTES as u64);
        if !possible {
            return Err(Fault::Unreadable);
        }
        let range = |at: usize| {
            let last = get_u64(page, segment::DAMAGE + 16 * at + 8);
            let last = (last != u64::MAX).then_some(Index::new(last));
            Damage { first: Index::new(get_u64(page, segment::DAMAGE + 16 * at)), last }
        };
        Ok(SegmentHeader {
            log_id: LogId(page[segment::LOG_ID..][..16].try_into().expect("sixteen bytes")),
            seq: get_u64(page, segment::SEQ),
            salt: get_u64(page, segment::SALT),
            bytes,
            next_batch,
            chain: get_u32(page, segment::CHAIN),
            standing: Standing::decode(page, segment::STANDING).ok_or(Fault::Unreadable)?,
            damage: (0..damage_count).map(range).collect(),
        })
    }
}

impl BatchHeader {
    /// Writes the header into the first sector of `pages`, which hold the entries after it, and then zeros; fills in what
    /// follows from them (maps and checksums), and gives the header's checksum.
    pub(crate) fn seal(mut self, pages: &mut [u8]) -> u32 {
        let body_bytes = self.body_bytes as usize;
        assert!(pages.len() == batch_bytes(body_bytes), "a batch is whole pages");
        let (sector, body) = pages.split_at_mut(SECTOR_BYTES);
        let (entries, maps) = body.split_at_mut(body_bytes.next_multiple_of(SECTOR_BYTES));
        if map_sectors(body_bytes) == 0 {
            set_bits(&mut self.bitmap, entries);
        }
        for (map, entries) in maps.chunks_mut(SECTOR_BYTES).zip(map_groups(entries, body_bytes)) {
            set_bits(&mut map[MAP_BITS_AT..], entries);
            map[..4].copy_from_slice(&MAP_MAGIC);
            let crc = crc_around(map, 4);
            put_u32(map, 4, crc);
        }
        self.body_crc = crc32c::crc32c(body);
        self.encode(sector)
    }

    /// Whether a sector of the body (all after the header's) is erased, or zeros and was something else when the batch was
    /// made: then it was never written.
    pub(crate) fn shows_unwritten(&self, body: &[u8]) -> bool {
        let body_bytes = self.body_bytes as usize;
        if body.chunks(SECTOR_BYTES).any(|sector| is_erased(sector, self.salt)) {
            return true;
        }
        let (entries, maps) = body.split_at(body_bytes.next_multiple_of(SECTOR_BYTES));
        if map_sectors(body_bytes) == 0 {
            return misses_one(&self.bitmap, entries);
        }
        maps.chunks(SECTOR_BYTES).zip(map_groups(entries, body_bytes)).any(|(map, entries)| {
            // A map sector is never zeros. One that is damaged says nothing.
            is_zero(map) || (check(map, &MAP_MAGIC, 4).is_ok() && misses_one(&map[MAP_BITS_AT..], entries))
        })
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
        let flags = &mut sector[batch::STANDING + standing::FLAGS];
        *flags |= if self.cuts_end { FLAG_CUTS_END } else { 0 } | if self.fills { FLAG_FILLS } else { 0 };
        sector[batch::BITMAP..][..BITMAP_BYTES].copy_from_slice(&self.bitmap);
        let crc = crc_around(sector, batch::CRC);
        put_u32(sector, batch::CRC, crc);
        crc
    }

    /// From the first sector of a batch, in a segment of this salt.
    pub(crate) fn decode(sector: &[u8], salt: u64) -> Result<BatchHeader, Fault> {
        if is_erased(sector, salt) {
            return Err(Fault::Blank);
        }
        check(sector, &BATCH_MAGIC, batch::CRC)?;
        let standing = Standing::decode(sector, batch::STANDING).ok_or(Fault::Unreadable)?;
        let count = get_u32(sector, batch::COUNT);
        let body_bytes = get_u32(sector, batch::BODY_BYTES);
        let possible = get_u64(sector, batch::SALT) == salt
            && (1..=SEQ_MAX).contains(&get_u64(sector, batch::SEQ))
            && u64::from(count) <= standing.last.index.get()
            && body_bytes as usize <= BATCH_BYTES_MAX;
        if !possible {
            return Err(Fault::Unreadable);
        }
        let flags = sector[batch::STANDING + standing::FLAGS];
        Ok(BatchHeader {
            salt,
            seq: get_u64(sector, batch::SEQ),
            durable_batch: get_u64(sector, batch::DURABLE_BATCH),
            chain: get_u32(sector, batch::CHAIN),
            body_crc: get_u32(sector, batch::BODY_CRC),
            body_bytes,
            count,
            standing,
            cuts_end: flags & FLAG_CUTS_END != 0,
            fills: flags & FLAG_FILLS != 0,
            bitmap: sector[batch::BITMAP..][..BITMAP_BYTES].try_into().expect("the bytes of the bitmap"),
            crc: get_u32(sector, batch::CRC),
        })
    }

    /// Whether a sector is the header of a batch of whatever segment.
    pub(crate) fn is_any(sector: &[u8]) -> bool {
        check(sector, &BATCH_MAGIC, batch::CRC).is_ok()
    }

    /// Whether `pages` are a whole batch as it was written.
    pub(crate) fn is_batch(pages: &[u8], salt: u64) -> bool {
        let (sector, body) = pages.split_at(SECTOR_BYTES);
        BatchHeader::decode(sector, salt).is_ok_and(|header| header.is_body(body))
    }

    /// Whether the body (all after the header's sector) is as it was written. A batch without entries needs none.
    pub(crate) fn is_body(&self, body: &[u8]) -> bool {
        self.count == 0 || crc32c::crc32c(body) == self.body_crc
    }

    /// Bytes of pages the whole batch takes.
    pub(crate) fn total_bytes(&self) -> usize {
        batch_bytes(self.body_bytes as usize)
    }

    /// Index of its first entry; if it has none, the index after its last. Not for one that fills: its entries tell.
    pub(crate) fn first(&self) -> Index {
        self.standing.first(self.count as usize)
    }
}

/// The sectors of entries that each map sector stands for; none if the bitmap of the header does.
fn map_groups(entries: &[u8], body_bytes: usize) -> std::slice::Chunks<'_, u8> {
    let entries = if map_sectors(body_bytes) == 0 { &[] } else { entries };
    entries.chunks(MAP_SECTORS * SECTOR_BYTES)
}

/// Sets the bit of each sector that holds a byte that is not zero.
fn set_bits(bits: &mut [u8], entries: &[u8]) {
    for (sector, _) in entries.chunks(SECTOR_BYTES).enumerate().filter(|(_, bytes)| !is_zero(bytes)) {
        bits[sector / 8] |= 1 << (sector % 8);
    }
}

/// Whether a sector is zeros although its bit is set.
fn misses_one(bits: &[u8], entries: &[u8]) -> bool {
    let mut sectors = entries.chunks(SECTOR_BYTES).enumerate();
    sectors.any(|(sector, bytes)| bits[sector / 8] & (1 << (sector % 8)) != 0 && is_zero(bytes))
}

/// The checks that all headers and maps share.
fn check(bytes: &[u8], magic: &[u8], crc_at: usize) -> Result<(), Fault> {
    // Of several sectors, the first is written last.
    if is_zero(&bytes[..SECTOR_BYTES]) {
        return Err(Fault::Blank);
    }
    if !bytes.starts_with(magic) || get_u32(bytes, crc_at) != crc_around(bytes, crc_at) {
        return Err(Fault::Unreadable);
    }
    Ok(())
}

/// Over a sector or page but for the four bytes of the checksum itself.
fn crc_around(bytes: &[u8], crc_at: usize) -> u32 {
    if planted::is(Mistake::ChecksumOmitsLength) && crc_at == batch::CRC {
        return crc32c::crc32c_append(crc32c::crc32c(&bytes[8..batch::BODY_BYTES]), &bytes[batch::BODY_BYTES + 4..]);
    }
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..crc_at]), &bytes[crc_at + 4..])
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

/// Makes all that has the magic of a header match its checksums, and each batch the chain.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn reseal(segment: &mut [u8]) {
    let mut chain = 0;
    for start in (0..segment.len().saturating_sub(PAGE_BYTES - 1)).step_by(PAGE_BYTES) {
        let page = &mut segment[start..];
        if page.starts_with(&SEGMENT_MAGIC) {
            chain = get_u32(page, segment::CHAIN);
            let crc = crc_around(&page[..PAGE_BYTES], segment::CRC);
            put_u32(page, segment::CRC, crc);
        } else if page.starts_with(&BATCH_MAGIC) {
            put_u32(page, batch::CHAIN, chain);
            let bytes = batch_bytes((get_u32(page, batch::BODY_BYTES) as usize).min(BATCH_BYTES_MAX));
            if bytes <= page.len() {
                let crc = crc32c::crc32c(&page[SECTOR_BYTES..bytes]);
                put_u32(page, batch::BODY_CRC, crc);
            }
            chain = crc_around(&page[..SECTOR_BYTES], batch::CRC);
            put_u32(page, batch::CRC, chain);
        }
    }
}

/// Makes a segment look like one of another version.
#[cfg(test)]
pub(crate) fn set_version(segment: &mut [u8], version: u32) {
    for page in segment.chunks_mut(PAGE_BYTES).take(HEADER_PAGES) {
        put_u32(page, segment::VERSION, version);
        let crc = crc_around(page, segment::CRC);
        put_u32(page, segment::CRC, crc);
    }
}

#[cfg(test)]
mod tests;
