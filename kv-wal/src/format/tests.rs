//! The bytes, one by one.

use super::*;
use proptest::prelude::*;

fn id(index: u64, term: u64) -> EntryId {
    EntryId::new(Term::new(term), Index::new(index))
}

fn standing() -> Standing {
    let state = Some(Bytes::from_static(b"vote"));
    Standing { base: id(3, 1), last: id(9, 2), cuts: 5, cut: Index::new(7), state, state_in_doubt: true }
}

fn segment_header() -> SegmentHeader {
    let range = |first, last| Damage { first: Index::new(first), last };
    let damage = [range(5, Some(Index::new(6))), range(10, None)].into_iter().collect();
    SegmentHeader {
        log_id: LogId([7; 16]),
        seq: 4,
        bytes: 1 << 20,
        salt: 99,
        next_batch: 31,
        chain: 17,
        standing: standing(),
        damage,
    }
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
        fills: false,
        bitmap: NO_BITMAP,
        crc: 0,
    }
}

#[test]
fn a_segment_header_survives_in_either_page_but_not_without_both() {
    let page = segment_header().encode();
    let unreadable = [0xdb; PAGE_BYTES];
    let mut flipped = page.clone();
    for at in 0..PAGE_BYTES {
        flipped[at] ^= 0x10;
        for bad in [&flipped[..], &unreadable] {
            assert_eq!(SegmentHeader::decode([&page, bad]), Ok(segment_header()), "byte {at}");
            assert_eq!(SegmentHeader::decode([bad, &page]), Ok(segment_header()), "byte {at}");
            assert_eq!(SegmentHeader::decode([bad, bad]), Err(Fault::Unreadable), "byte {at}");
        }
        flipped[at] ^= 0x10;
    }
    let zeros = [0; PAGE_BYTES];
    assert_eq!(SegmentHeader::decode([&zeros, &page]), Ok(segment_header()));
    for other in [&zeros[..], &unreadable] {
        assert_eq!(SegmentHeader::decode([&zeros, other]), Err(Fault::Blank));
        assert_eq!(SegmentHeader::decode([other, &zeros]), Err(Fault::Blank));
    }
}

#[test]
fn a_header_holds_as_much_damage_as_it_says() {
    let ranges = (0..1000).map(|n| Damage { first: Index::new(10 * n + 4), last: Some(Index::new(10 * n + 5)) });
    let damage: DamageList = ranges.clone().collect();
    let header = SegmentHeader { damage: damage.coarse(DAMAGE_COUNT_MAX), ..segment_header() };
    let page = header.encode();
    let read = SegmentHeader::decode([&page, &page]).unwrap().damage;
    assert_eq!(read.ranges().len(), DAMAGE_COUNT_MAX);
    assert!(ranges.clone().all(|range| read.at(range.first).is_some() && read.at(range.last.unwrap()).is_some()));
    assert!(read.at(Index::new(7)).is_none() && !read.reaches(Index::new(10_000)));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut pages = segment_header().encode().repeat(HEADER_PAGES);
    set_version(&mut pages, VERSION + 1);
    let (one, other) = pages.split_at(PAGE_BYTES);
    assert_eq!(SegmentHeader::decode([one, other]), Err(Fault::Version(VERSION + 1)));
}

/// The bytes of the format. If this fails, the format changed: that needs a new version.
#[test]
fn golden_checksums() {
    let page = segment_header().encode();
    let mut batch = vec![0; batch_bytes(100)];
    batch[SECTOR_BYTES..][..100].fill(0xa5);
    batch_header(100).seal(&mut batch);
    assert_eq!((crc32c::crc32c(&page), crc32c::crc32c(&batch)), (4_294_869_769, 4_064_794_190));
}

proptest! {
    #[test]
    fn every_flipped_bit_of_a_batch_header_is_found(at in 0..SECTOR_BYTES, bit in 0..8u8) {
        let mut pages = vec![0; batch_bytes(100)];
        batch_header(100).seal(&mut pages);
        pages[at] ^= 1 << bit;
        prop_assert_eq!(BatchHeader::decode(&pages[..SECTOR_BYTES], 99), Err(Fault::Unreadable));
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
        let header = BatchHeader::decode(&pages[..SECTOR_BYTES], 99).unwrap();
        let body = &mut pages[SECTOR_BYTES..];
        prop_assert!(!header.shows_unwritten(body));
        if lost < sectors.len() {
            body[lost * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
            prop_assert_eq!(header.shows_unwritten(body), sectors[lost]);
        }
    }

    #[test]
    fn arbitrary_sectors_never_panic(sector in proptest::collection::vec(any::<u8>(), SECTOR_BYTES)) {
        prop_assert!(BatchHeader::decode(&sector, 99).is_err());
        prop_assert!(SegmentHeader::decode_page(&sector.repeat(8)).is_err());
    }
}

/// Beyond a mebibyte there are map sectors: still one bit for each sector of entries.
#[test]
fn a_large_batch_tells_each_unwritten_sector() {
    let body_bytes = (3 << 20) - 100;
    let mut pages = vec![1; SECTOR_BYTES + body_bytes];
    pages[SECTOR_BYTES * 10..SECTOR_BYTES * 11].fill(0);
    pages.resize(batch_bytes(body_bytes), 0);
    batch_header(body_bytes).seal(&mut pages);
    let header = BatchHeader::decode(&pages[..SECTOR_BYTES], 99).unwrap();
    let body = &pages[SECTOR_BYTES..];
    assert!(!header.shows_unwritten(body));
    // The sectors of entries, of which number 9 was zeros by right, and the two map sectors.
    let sectors = body_bytes.div_ceil(SECTOR_BYTES) + map_sectors(body_bytes);
    assert_eq!((map_sectors(body_bytes), body.len() / SECTOR_BYTES - sectors < 8), (2, true));
    for lost in 0..sectors {
        let mut missing = body.to_vec();
        missing[lost * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
        assert_eq!(header.shows_unwritten(&missing), lost != 9, "sector {lost}");
    }
}
