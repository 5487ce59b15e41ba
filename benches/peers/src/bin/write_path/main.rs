//! How should a log write? Measures, on the disk that holds a directory, how long a batch takes until it is durable, and
//! how much the disk then writes: `write_path DIR [DIVISOR]`. The divisor makes it shorter, by doing fewer rounds.
//!
//! One segment file, written front to back, one batch and one sync at a time, by each way to write into each kind of
//! prepared segment. Each batch begins on a page of its own. The preparation is not timed.

#![expect(clippy::print_stdout, reason = "the figures are the purpose")]

mod place;
mod segment;
mod stores;
mod way;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kv_peers::SEGMENT_BYTES;

use crate::place::Place;
use crate::segment::Prepared;
use crate::way::{Way, pages_of};

/// Batches to measure: name, bytes, rounds.
const BATCHES: [(&str, usize, usize); 4] =
    [("100 B", 100, 2000), ("4 KiB", 4 << 10, 2000), ("64 KiB", 64 << 10, 500), ("1 MiB", 1 << 20, 60)];

/// What a case has taken.
struct Measured {
    /// Of each round, shortest first.
    times: Vec<Duration>,
    /// Written to the device meanwhile, by anybody; `None` if the system does not tell.
    device_bytes: Option<u64>,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().map(PathBuf::from).expect("arguments: DIR [DIVISOR]");
    let divisor = arguments.next().map_or(NonZeroUsize::MIN, |text| {
        text.to_str().and_then(|text| text.parse().ok()).expect("the divisor is a number from 1")
    });
    let place = Place::of(&dir)?;
    let scratch = tempfile::tempdir_in(&dir)?;
    let path = scratch.path().join("segment");
    println!("{}\n", place.describe()?);
    for (name, batch_bytes, rounds) in BATCHES {
        print_batch(&place, &path, name, batch_bytes, (rounds / divisor).max(2))?;
    }
    stores::print(&path)
}

fn print_batch(place: &Place, path: &Path, name: &str, batch_bytes: usize, rounds: usize) -> io::Result<()> {
    println!("Batches of {name}, {rounds} rounds:\n");
    println!("| segment | way | median, us | 99 %, us | to the device, bytes a batch |");
    println!("|---|---|---|---|---|");
    for (prepared, way) in cases(batch_bytes) {
        let Measured { times, device_bytes } = measure(place, path, (prepared, way), batch_bytes, rounds)?;
        let (median, high) = (micros(percentile(&times, 50)), micros(percentile(&times, 99)));
        let device = device_bytes.map_or_else(|| "unknown".to_owned(), |bytes| (bytes / rounds as u64).to_string());
        println!("| {} | {} | {median:.0} | {high:.0} | {device} |", prepared.name(), way.name());
    }
    println!();
    Ok(())
}

/// A part of a page is written only to where it is worst.
fn cases(batch_bytes: usize) -> impl Iterator<Item = (Prepared, Way)> {
    let all = [Way::Pwrite, Way::Map].into_iter().flat_map(|way| Prepared::ALL.map(|prepared| (prepared, way)));
    let is_partial = pages_of(batch_bytes) != batch_bytes;
    all.chain(is_partial.then_some((Prepared::RecycledCold, Way::PwritePart)))
}

fn measure(
    place: &Place,
    path: &Path,
    (prepared, way): (Prepared, Way),
    batch_bytes: usize,
    rounds: usize,
) -> io::Result<Measured> {
    let mut measured = Measured { times: Vec::new(), device_bytes: Some(0) };
    let segment_rounds = SEGMENT_BYTES as usize / pages_of(batch_bytes);
    while measured.times.len() < rounds {
        let file = prepared.make(path)?;
        let before = place.device_bytes();
        measured.times.extend(way.time(&file, batch_bytes, segment_rounds.min(rounds - measured.times.len()))?);
        let written = place.device_bytes().zip(before).map(|(after, before)| after - before);
        measured.device_bytes = measured.device_bytes.zip(written).map(|(sum, written)| sum + written);
    }
    measured.times.sort_unstable();
    Ok(measured)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
