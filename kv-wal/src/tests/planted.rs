//! Each known mistake, switched on, is found by the tests that would have to find it; and without one they find nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRng, TestRunner};

use super::model::{Step, step};
use super::{damage, power, torn};
use crate::format::{BatchHeader, SECTOR_BYTES};
use crate::planted::{Mistake, plant};

/// Runs a test for one seed after the other until it fails; how often it ran.
fn runs_until_found(mistake: Mistake, seeds: u64, test: impl Fn(u64)) -> Option<u64> {
    plant(Some(mistake));
    let found = (0..seeds).find(|seed| catch_unwind(AssertUnwindSafe(|| test(*seed))).is_err());
    plant(None);
    found
}

fn expect_found(mistake: Mistake, seeds: u64, test: impl Fn(u64)) {
    if seeds > 1 {
        // A test that fails anyway finds nothing. The others run without mistakes every time.
        (0..20).for_each(&test);
    }
    let found = runs_until_found(mistake, seeds, test);
    assert!(found.is_some(), "{mistake:?} was not found in {seeds} runs");
}

/// A random history with power loss and failed syncs.
fn life(seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = proptest::collection::vec(step(), 1..80).new_tree(&mut runner).expect("no filters").current();
    power::Life::new(seed, if seed.is_multiple_of(2) { 0 } else { 16 << 10 }).run(&steps);
}

/// The same, of a history that uses up segments and gives them up all the time.
fn recycling_life(seed: u64) {
    let append = Step::Append { count: 3, payload_bytes: 9000, state: Some(1) };
    let round = [append, Step::TruncatePrefix { ahead: 19 }, Step::Sync];
    power::Life::new(seed, 0).run(&round.repeat(20));
}

#[test]
fn no_sync() {
    expect_found(Mistake::NoSync, 100, life);
}

#[test]
fn a_sealed_segment_that_is_not_synced() {
    expect_found(Mistake::SealedSegmentNotSynced, 1000, life);
}

#[test]
fn a_checksum_that_omits_the_length() {
    let every_byte_of_a_header = |_| {
        let dir = tempfile::tempdir().unwrap();
        damage::history(dir.path());
        let bytes = std::fs::read(&super::segments(dir.path())[0]).unwrap();
        let salt = u64::from_le_bytes(bytes[damage::batch(0) + 8..][..8].try_into().unwrap());
        for at in 0..SECTOR_BYTES {
            let mut header = bytes[damage::batch(0)..][..SECTOR_BYTES].to_vec();
            header[at] ^= 1;
            assert!(BatchHeader::decode(&header, salt).is_err(), "byte {at}");
        }
    };
    expect_found(Mistake::ChecksumOmitsLength, 20, every_byte_of_a_header);
}

#[test]
fn a_recycled_segment_as_it_is() {
    expect_found(Mistake::RecycledAsItIs, 1000, life);
}

#[test]
fn a_recycled_segment_under_its_old_name() {
    expect_found(Mistake::RecycledUnderItsOldName, 3000, recycling_life);
}

#[test]
fn opened_without_writing_again() {
    expect_found(Mistake::OpenedWithoutWritingAgain, 3000, life);
}

#[test]
fn opened_without_writing_the_header_again() {
    expect_found(Mistake::OpenedWithoutWritingTheHeaderAgain, 3000, life);
}

#[test]
fn erased_by_zeros() {
    expect_found(Mistake::ErasedByZeros, 300, power::an_opening_that_fails_is_done_again_by_the_next);
}

#[test]
fn cut_but_not_erased() {
    expect_found(Mistake::CutButNotErased, 1, |_| damage::what_was_cut_stays_cut_whatever_is_lost_later());
}

#[test]
fn a_damaged_last_batch_taken_for_torn() {
    expect_found(Mistake::DamagedTakenForTorn, 1, |_| damage::every_flipped_byte_is_harmless_or_reported());
}

#[test]
fn damage_taken_for_the_end() {
    expect_found(Mistake::DamagedTakenForTheEnd, 1, |_| damage::every_flipped_byte_is_harmless_or_reported());
}

/// The other way round: a torn write taken for damage would need an operator after a power loss.
#[test]
fn torn_writes_are_told_from_damage() {
    torn::a_write_that_misses_any_one_sector_is_cut_there();
}
