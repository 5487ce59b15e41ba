//! Random histories against the twin: outcomes and the whole state after each entry.

use bytes::Bytes;
use kv_store::{CheckpointMeta, Index, Op, Outcome, Store, checkpoint};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::commands::{Numbers, Place, command, stamp_ms};
use crate::twin::{Twin, check, check_store};

/// Runs a history of one entry for each seed, and calls `after` behind each.
fn run(keys: u64, seeds: &[u64], mut after: impl FnMut(&mut Store, &mut Twin, u64)) -> (Store, Twin) {
    let (mut store, mut twin) = (Store::new([1; 32]), Twin::default());
    for (index, seed) in (1..).zip(seeds) {
        let mut numbers = Numbers(*seed);
        let stamp_ms = stamp_ms(&mut numbers, store.clock_ms());
        let (clock_ms, memory_bytes) = (store.clock_ms(), store.memory_bytes());
        let command = command(&mut numbers, Place { index, clock_ms, keys, memory_bytes });
        let outcome = store.apply(Index::new(index), stamp_ms, &command);
        assert_eq!(outcome, twin.apply(index, stamp_ms, &command), "{:?} at {index}", Op::decode(&command));
        check_bytes(&outcome);
        check_store(&store, &twin);
        after(&mut store, &mut twin, *seed);
    }
    (store, twin)
}

fn check_bytes(outcome: &Outcome) {
    let mut bytes = Vec::new();
    outcome.encode(&mut bytes);
    assert_eq!(Outcome::decode(&Bytes::from(bytes)).as_ref(), Ok(outcome));
}

fn seeds(entries: usize) -> impl Strategy<Value = Vec<u64>> {
    vec(any::<u64>(), 0..entries)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_and_state_are_those_of_the_twin(
        keys in prop_oneof![Just(4u64), Just(25), Just(300)],
        seeds in seeds(400),
    ) {
        let mut views = Vec::new();
        run(keys, &seeds, |store, twin, seed| {
            if seed % 32 == 0 {
                views.push((store.view(), twin.clone()));
            }
        });
        // Views taken on the way hold what was there then.
        views.iter().for_each(|(view, twin)| check(view, twin));
    }

    /// Clock entries, and checkpoints from which the store goes on, change nothing that the twin does not.
    #[test]
    fn clock_entries_and_restarts_show_in_nothing_else(seeds in seeds(200)) {
        run(60, &seeds, |store, twin, seed| {
            if seed % 5 == 0 {
                let stamp_ms = store.next_deadline_ms().unwrap_or(0);
                store.advance_clock(stamp_ms);
                twin.advance_clock(stamp_ms);
                check_store(store, twin);
            }
            if seed % 16 == 1 {
                let mut bytes = Vec::new();
                checkpoint::write(store, &CheckpointMeta::default(), &mut bytes).expect("memory");
                let (restored, _) = checkpoint::read(&mut &bytes[..]).expect("undamaged");
                assert_eq!(restored.digest(), store.digest());
                *store = restored;
                check_store(store, twin);
            }
        });
    }

    #[test]
    fn the_hash_depends_on_the_state_alone(seeds in seeds(100)) {
        let (mut a, _) = run(40, &seeds, |_, _, _| {});
        let (mut b, _) = run(40, &seeds, |_, _, _| {});
        prop_assert_eq!(a.digest(), b.digest());
        for store in [&mut a, &mut b] {
            store.apply(Index::new(1000), 0, &Op::SetMemoryLimit { bytes: None }.encode().unwrap());
            while store.advance_clock(0) > 0 {}
        }
        // A key that comes and goes leaves no trace; one that stays does.
        let key = b"never used otherwise";
        b.apply(Index::new(1001), 0, &Op::Append { key, value: b"v" }.encode().unwrap());
        prop_assert_ne!(a.digest(), b.digest());
        b.apply(Index::new(1002), 0, &Op::Delete { keys: vec![key] }.encode().unwrap());
        prop_assert_eq!(a.digest(), b.digest());
        b.advance_clock(b.clock_ms() + 1);
        prop_assert_ne!(a.digest(), b.digest());
    }
}

/// The histories are worth comparing: every kind of answer occurs, and pairs wait for their removal.
#[test]
fn the_histories_have_everything_in_them() {
    let mut kinds = std::collections::BTreeSet::new();
    let (mut waiting, mut store, mut numbers) = (0, Store::new([1; 32]), Numbers(3));
    for index in 1..30_000 {
        let place = Place { index, clock_ms: store.clock_ms(), keys: 500, memory_bytes: store.memory_bytes() };
        let stamp_ms = stamp_ms(&mut numbers, place.clock_ms);
        let outcome = store.apply(Index::new(index), stamp_ms, &command(&mut numbers, place));
        let mut all = vec![outcome];
        while let Some(outcome) = all.pop() {
            let name = format!("{outcome:?}");
            kinds.insert(name.split(|c: char| !c.is_alphabetic()).next().expect("a name").to_owned());
            match outcome {
                Outcome::Transaction { outcomes, .. } => all.extend(outcomes),
                Outcome::Failed { outcome, .. } => all.push(*outcome),
                _ => {}
            }
        }
        waiting = waiting.max(store.len() - store.iter().count() as u64);
    }
    let expected = [
        "Count",
        "Decimal",
        "Done",
        "Failed",
        "Integer",
        "Invalid",
        "Length",
        "NoSource",
        "NotANumber",
        "NotAnInteger",
        "NotDone",
        "OutOfMemory",
        "Overflow",
        "Pairs",
        "Previous",
        "TooLarge",
        "Transaction",
        "Value",
    ];
    assert!(kinds.iter().eq(&expected), "{kinds:?}");
    assert!(waiting > 20, "{waiting}");
}
