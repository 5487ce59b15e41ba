//! Whole clusters of kv-store, simulated: see `kv_repl::testing::sim`.
//!
//! - `KV_SEED=n` runs one seed, again exactly as it was; `KV_SETTINGS="..."` with other settings than the usual ones.
//! - `KV_SHRINK=n` looks for smaller settings that find the same as that seed, and tells the faults that lead to it.
//! - `KV_SEEDS=n` runs so many, from 1 on, with a progress bar, and those of `testdata/seeds.txt`.

mod store;

use std::panic::catch_unwind;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use kv_repl::testing::sim::{Finding, Report, Settings, run, shrink};

use self::store::StoreWorkload;

/// Seeds that CI runs, beside those that have found something.
const SEEDS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Seeds that have found something: a line each, what it was behind them.
fn kept() -> Vec<u64> {
    let lines = include_str!("../testdata/seeds.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

const COMMAND: &str = "cargo test --release --test simulation -- --nocapture";

fn settings_for(seed: u64) -> Settings {
    let text = std::env::var("KV_SETTINGS").ok();
    let told = text.map(|text| text.parse().unwrap_or_else(|error| panic!("KV_SETTINGS: {error}")));
    told.unwrap_or_else(|| Settings::for_seed(seed))
}

/// What a seed reports, or what it finds.
fn find(seed: u64, settings: &Settings) -> Result<Report, String> {
    let result = catch_unwind(|| run(StoreWorkload::default(), seed, settings));
    result.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_owned()))
}

fn run_seed(seed: u64) -> Report {
    let settings = settings_for(seed);
    find(seed, &settings).unwrap_or_else(|said| {
        panic!(
            "{said}\nseed {seed} failed\nagain:   KV_SEED={seed} KV_SETTINGS=\"{settings}\" {COMMAND}\n\
             smaller: KV_SHRINK={seed} KV_SETTINGS=\"{settings}\" {COMMAND}"
        )
    })
}

#[expect(clippy::print_stdout, reason = "the smaller run is what was asked for")]
fn shrink_seed(seed: u64) {
    // A great many runs find something, which is no news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut runs = 0;
    let smallest = shrink(seed, &settings_for(seed), |seed, settings| {
        runs += 1;
        find(seed, settings).err()
    });
    let _ = std::panic::take_hook();
    match smallest {
        None => println!("seed {seed} finds nothing"),
        Some(Finding { seed, settings, said }) => {
            println!("{said}\nafter {runs} runs\nagain:   KV_SEED={seed} KV_SETTINGS=\"{settings}\" {COMMAND}");
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the report is what the run is for")]
fn nothing_confirmed_is_lost_under_faults_and_the_cluster_goes_on_after_them() {
    if let Some(seed) = number("KV_SHRINK") {
        return shrink_seed(seed);
    }
    if let Some(seed) = number("KV_SEED") {
        return println!("seed {seed}: {}", run_seed(seed));
    }
    let count = number("KV_SEEDS").unwrap_or(SEEDS);
    let started = Instant::now();
    let seeds: Vec<u64> = kept().into_iter().chain(1..=count).collect();
    assert!(seeds.len() as u64 > count, "some seeds are kept");
    let mut all = Report::default();
    let style =
        ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {elapsed}, {eta} left").expect("a template");
    for seed in ProgressBar::new(seeds.len() as u64).with_style(style).wrap_iter(seeds.iter()) {
        all.add(&run_seed(*seed));
    }
    let (simulated, took) = (all.simulated.as_secs_f64(), started.elapsed().as_secs_f64());
    println!(
        "{} seeds in {took:.1} s, {:.0} times faster than the time they simulate: {all}",
        seeds.len(),
        simulated / took
    );
    assert_eq!(all.missing(), [], "kinds of faults that never happened");
    assert!(all.concurrent > all.operations / 20, "hardly anything happened at the same time");
    assert!(all.leased > 0, "nobody has read by a lease");
    assert!(all.operations as f64 > simulated * 20.0, "hardly anything was done");
}
