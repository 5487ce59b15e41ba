//! What it costs to hand over a record when nothing waits for the disk: into the map, by a `pwrite` each, or into a buffer
//! that goes by one `pwrite` when it is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kv_peers::SEGMENT_BYTES;

use crate::segment::Prepared;
use crate::way::map;

const RECORD_BYTES: usize = 256;
const BUFFER_BYTES: usize = 1 << 20;
const PASSES: usize = 5;

/// A pass over a segment.
type Pass = fn(&File, &[u8]) -> io::Result<Duration>;

/// Prints nanoseconds a record, the median of some passes, each over a fresh segment. The pages of the map are touched
/// for the first time, as those of a segment are.
pub(crate) fn print(path: &Path) -> io::Result<()> {
    let ways: [(&str, Pass); 3] = [
        ("store into the map", by_map),
        ("`pwrite` each", by_call),
        ("into a buffer of 1 MiB, then `pwrite`", by_buffer),
    ];
    println!("Records of {RECORD_BYTES} B without a sync, into a segment that is in the cache:\n");
    println!("| way | ns a record |");
    println!("|---|---|");
    let record = kv_peers::payload(RECORD_BYTES);
    for (name, pass) in ways {
        let times = (0..PASSES).map(|_| pass(&Prepared::RecycledWarm.make(path)?, &record));
        let mut times = times.collect::<io::Result<Vec<_>>>()?;
        times.sort_unstable();
        println!("| {name} | {} |", times[PASSES / 2].as_nanos() / (SEGMENT_BYTES as u128 / RECORD_BYTES as u128));
    }
    Ok(())
}

fn by_map(file: &File, record: &[u8]) -> io::Result<Duration> {
    let mut map = map(file)?;
    let start = Instant::now();
    map.chunks_exact_mut(RECORD_BYTES).for_each(|place| place.copy_from_slice(record));
    Ok(start.elapsed())
}

fn by_call(file: &File, record: &[u8]) -> io::Result<Duration> {
    let start = Instant::now();
    (0..SEGMENT_BYTES).step_by(RECORD_BYTES).try_for_each(|offset| file.write_all_at(record, offset))?;
    Ok(start.elapsed())
}

fn by_buffer(file: &File, record: &[u8]) -> io::Result<Duration> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let start = Instant::now();
    for offset in (0..SEGMENT_BYTES).step_by(BUFFER_BYTES) {
        buffer.clear();
        (0..BUFFER_BYTES / RECORD_BYTES).for_each(|_| buffer.extend_from_slice(record));
        file.write_all_at(&buffer, offset)?;
    }
    Ok(start.elapsed())
}
