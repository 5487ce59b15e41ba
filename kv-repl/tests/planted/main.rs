//! Planted mistakes are found by the simulator with its usual faults, none of which was made for them. With `--nocapture`
//! the table is printed: mistake, seed, what caught it.
//!
//! Usually the seed that is known to find a mistake is run, and others only if it does not any more. `KV_PLANTED=all` tries
//! all mistakes from the first seed on, `KV_PLANTED=name` one of them; `KV_SEEDS=n` says how many seeds it may take.

#[path = "../../../tests/simulation/store.rs"]
mod store;

use std::fmt;
use std::panic::catch_unwind;

use kv_repl::planted::{self, Mistake};
use kv_repl::testing::sim::{Fault, Settings, run, shrink};
use kv_wal::planted::Mistake as LogMistake;

use self::store::StoreWorkload;

/// A mistake of replication, or one of the log that the nodes write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Repl(Mistake),
    Log(LogMistake),
}

/// Mistakes of the log that a cluster must not survive. Its own tests find these and the others.
const OF_THE_LOG: [LogMistake; 3] =
    [LogMistake::NoSync, LogMistake::OpenedWithoutWritingAgain, LogMistake::DamagedTakenForTorn];

impl Planted {
    fn all() -> impl Iterator<Item = Planted> {
        Mistake::ALL.into_iter().map(Planted::Repl).chain(OF_THE_LOG.map(Planted::Log))
    }

    fn set(self, is_on: bool) {
        match self {
            Planted::Repl(mistake) => planted::plant(Some(mistake).filter(|_| is_on)),
            Planted::Log(mistake) => kv_wal::planted::plant(Some(mistake).filter(|_| is_on)),
        }
    }
}

impl fmt::Debug for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Planted::Repl(mistake) => mistake.fmt(f),
            Planted::Log(mistake) => mistake.fmt(f),
        }
    }
}

/// Seeds that a mistake may take to be found.
const SEEDS: u64 = 3000;

/// What is found, and a seed that does it.
const FOUND: [(Planted, u64); 22] = [
    (Planted::Repl(Mistake::ExpiryByLocalClock), 1),
    (Planted::Repl(Mistake::AcknowledgedBeforeSync), 11),
    (Planted::Repl(Mistake::ReadWithoutConfirmation), 14),
    (Planted::Repl(Mistake::QuorumOffByOne), 1),
    (Planted::Repl(Mistake::PreVoteTeachesNothing), 90),
    (Planted::Repl(Mistake::WipedNodeVotes), 4),
    (Planted::Repl(Mistake::HashOrder), 1),
    (Planted::Repl(Mistake::DoubledCommandExecuted), 2),
    (Planted::Repl(Mistake::SessionOfAnotherProcess), 72),
    (Planted::Repl(Mistake::SessionRequestSpins), 1),
    (Planted::Repl(Mistake::LeaseKeptOnTransfer), 2128),
    (Planted::Repl(Mistake::FoundedByMajority), 2),
    (Planted::Repl(Mistake::CheckpointNotSynced), 2),
    (Planted::Repl(Mistake::VoteBeforeSync), 381),
    (Planted::Repl(Mistake::VoteClearedOnStepDown), 705),
    (Planted::Repl(Mistake::ConfigurationNotReverted), 428),
    (Planted::Repl(Mistake::ConflictingSuffixKept), 375),
    (Planted::Repl(Mistake::DamagedAcknowledges), 426),
    (Planted::Repl(Mistake::OldTermCommittedByCounting), 2730),
    (Planted::Log(LogMistake::NoSync), 1),
    (Planted::Log(LogMistake::OpenedWithoutWritingAgain), 270),
    (Planted::Log(LogMistake::DamagedTakenForTorn), 2442),
];

/// What a seed finds with a mistake, if anything.
fn find(mistake: Planted, seed: u64, settings: &Settings) -> Option<String> {
    let found = catch_unwind(|| {
        mistake.set(true);
        run(StoreWorkload::default(), seed, settings)
    });
    mistake.set(false);
    found.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_owned()))
}

/// The first of these seeds that finds it, and how that begins.
fn find_first(mistake: Planted, mut seeds: impl Iterator<Item = u64>) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        let said = find(mistake, seed, &Settings::for_seed(seed))?;
        Some((seed, said.lines().next().unwrap_or_default().chars().take(110).collect()))
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is what the run is for")]
fn mistakes_are_found() {
    let asked = std::env::var("KV_PLANTED").ok();
    let count = std::env::var("KV_SEEDS").ok().map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    let (wanted, known): (Vec<Planted>, _) = match &asked {
        None => (FOUND.iter().map(|(mistake, _)| *mistake).collect(), &FOUND[..]),
        Some(name) => {
            let is_asked = |mistake: &Planted| name == "all" || *name == format!("{mistake:?}");
            (Planted::all().filter(is_asked).collect(), &[][..])
        }
    };
    assert!(!wanted.is_empty(), "there is no such mistake");
    let mut missed = Vec::new();
    println!("| mistake | seed | caught by |\n|---|---|---|");
    for mistake in wanted {
        let seed = known.iter().find(|(known, _)| *known == mistake).map(|(_, seed)| *seed);
        match find_first(mistake, seed.into_iter().chain(1..=count)) {
            Some((seed, by)) => println!("| `{mistake:?}` | {seed} | {by} |"),
            None => missed.push(mistake),
        }
    }
    assert_eq!(missed, [], "not found within {count} seeds");
}

/// A run that finds something can be made small enough to be read.
#[test]
fn what_finds_a_mistake_is_made_smaller() {
    let mut find = |seed, settings: &Settings| find(Planted::Repl(Mistake::QuorumOffByOne), seed, settings);
    let (_, seed) =
        FOUND.into_iter().find(|(mistake, _)| *mistake == Planted::Repl(Mistake::QuorumOffByOne)).expect("it is");
    let smallest = shrink(seed, &Settings::for_seed(seed), &mut find).expect("it is found");
    let left = Fault::ALL.len() - smallest.settings.without.len();
    let clients_max = Settings::default().clients / 2;
    assert!(left <= 6 && smallest.settings.clients <= clients_max, "{}", smallest.settings);
    assert!(smallest.said.contains("the end:"), "the faults that led to it are told");
    let again = find(smallest.seed, &smallest.settings.to_string().parse().expect("as it was written"));
    assert_eq!(again, Some(smallest.said), "and it does so again");
}

/// Without a mistake the same seeds find nothing.
#[test]
fn nothing_is_found_where_nothing_is_planted() {
    for (_, seed) in FOUND {
        run(StoreWorkload::default(), seed, &Settings::for_seed(seed));
    }
}
