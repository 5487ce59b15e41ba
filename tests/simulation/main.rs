//! Whole clusters of kv-store, simulated: see `kv_repl::testing::sim`.
//!
//! - `KV_SEED=n` runs one seed, again exactly as it was.
//! - `KV_SEEDS=n` runs so many, from 1 on, with a line of progress now and then, and those of `testdata/seeds.txt`.

mod store;

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use kv_repl::testing::sim::{Report, Settings, run};

use self::store::StoreWorkload;

/// Seeds that CI runs, beside those that have found something.
const SEEDS: u64 = 100;
const PROGRESS: Duration = Duration::from_secs(10);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Seeds that have found something: a line each, what it was behind them.
fn kept() -> Vec<u64> {
    let lines = include_str!("../testdata/seeds.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

fn run_seed(seed: u64) -> Report {
    let result = catch_unwind(|| run(StoreWorkload::default(), seed, &Settings::for_seed(seed)));
    result
        .unwrap_or_else(|_| panic!("seed {seed} failed; again: KV_SEED={seed} cargo test --release --test simulation"))
}

#[test]
#[expect(clippy::print_stdout, reason = "the report is what the run is for")]
fn nothing_confirmed_is_lost_under_faults_and_the_cluster_goes_on_after_them() {
    if let Some(seed) = number("KV_SEED") {
        return println!("seed {seed}: {}", run_seed(seed));
    }
    let count = number("KV_SEEDS").unwrap_or(SEEDS);
    let (started, mut told) = (Instant::now(), Instant::now());
    let seeds: Vec<u64> = kept().into_iter().chain(1..=count).collect();
    assert!(seeds.len() as u64 > count, "some seeds are kept");
    let mut all = Report::default();
    for (done, seed) in seeds.iter().enumerate() {
        all.add(&run_seed(*seed));
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!("{done} of {} seeds, {:.0} s", seeds.len(), started.elapsed().as_secs_f64());
        }
    }
    let (simulated, took) = (all.simulated.as_secs_f64(), started.elapsed().as_secs_f64());
    println!(
        "{} seeds in {took:.1} s, {:.0} times faster than the time they simulate: {all}",
        seeds.len(),
        simulated / took
    );
    assert_eq!(all.missing(), [], "kinds of faults that never happened");
    assert!(all.concurrent > all.operations / 20, "hardly anything happened at the same time");
    assert!(all.operations as f64 > simulated * 20.0, "hardly anything was done");
}
