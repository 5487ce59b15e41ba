//! The quality gate: one line for each promise of the first specification, green or red, with the test behind it.
//!
//! `cargo test --release --test gate` runs all rows; words after `--` choose rows whose name contains one of them. In a
//! release build the replication row uses 100,000 keys, otherwise 100. The exit status is 1 if any row is red.

#[path = "../cluster/mod.rs"]
mod cluster;

mod durability;
mod replication;
mod roles;
mod tools;
mod verification;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// A promise and the test behind it. The test panics if it is broken; what it gives is shown beside the green row.
struct Row {
    number: usize,
    promise: &'static str,
    name: &'static str,
    test: fn() -> String,
}

/// This row is always red. Only the row about the gate itself asks for it.
const PLANTED: &str = "planted_red";

fn rows() -> Vec<Row> {
    let row = |number, promise, name, test: fn() -> String| Row { number, promise, name, test };
    vec![
        row(1, "three-node cluster, from one command", "one_command_starts_three_nodes", tools::one_command),
        row(1, "three-node cluster, as three processes", "three_serve_processes", roles::three_serve_processes),
        row(2, "leader and follower roles by election", "roles_come_from_elections", roles::roles_come_from_elections),
        row(3, "AppendEntries ships WAL records", "logs_hold_the_same_bytes", replication::logs_hold_the_same_bytes),
        row(4, "quorum commit", "no_majority_no_confirmation", durability::no_majority_no_confirmation),
        row(5, "follower catch-up from the log", "catch_up_from_the_log", replication::catch_up_from_the_log),
        row(
            5,
            "follower catch-up from a checkpoint",
            "catch_up_from_a_checkpoint",
            replication::catch_up_from_a_checkpoint,
        ),
        row(
            6,
            "partition recovery of a follower",
            "cut_off_follower_catches_up",
            durability::cut_off_follower_catches_up,
        ),
        row(
            6,
            "partition recovery of a leader",
            "cut_off_leader_confirms_nothing",
            durability::cut_off_leader_confirms_nothing,
        ),
        row(7, "state hash verification, equal", "verify_says_match", verification::verify_says_match),
        row(
            7,
            "state hash verification, different",
            "verify_names_what_differs",
            verification::verify_names_what_differs,
        ),
        row(8, "keys replicate to every node", "every_key_on_every_node", replication::every_key_on_every_node),
        row(9, "benchmark", "cargo_bench_prints_throughput", tools::cargo_bench_prints_throughput),
        row(10, "quality gate", "a_red_row_fails_the_gate", tools::a_red_row_fails_the_gate),
        row(
            11,
            "kill -9 at any moment loses nothing confirmed",
            "kill_nine_loses_nothing",
            durability::kill_nine_loses_nothing,
        ),
    ]
}

fn main() -> ExitCode {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::args().any(|word| word == "--list") {
        rows().iter().for_each(|row| cluster::say(&format!("{}: test", row.name)));
        return ExitCode::SUCCESS;
    }
    let mut all = rows();
    if chosen.iter().any(|word| word == PLANTED) {
        all = vec![Row { number: 0, promise: "always red", name: PLANTED, test: || panic!("planted") }];
    }
    let all: Vec<Row> = all
        .into_iter()
        .filter(|row| chosen.is_empty() || chosen.iter().any(|word| row.name.contains(word.as_str())))
        .collect();
    let red = all.iter().filter(|row| !run(row)).count();
    report(&format!("{} passed, {red} failed", all.len() - red));
    if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a row and prints its line; true if it is green.
fn run(row: &Row) -> bool {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(row.test));
    let colour = if outcome.is_ok() { "green" } else { "RED  " };
    let shown = outcome.unwrap_or_default();
    let seconds = started.elapsed().as_secs_f64();
    report(&format!("{colour} {:>2}  {:<46} {:<32} {seconds:>6.1} s  {shown}", row.number, row.promise, row.name));
    colour == "green"
}

#[expect(clippy::print_stdout, reason = "the checklist is what the gate is for")]
fn report(line: &str) {
    println!("{line}");
}
