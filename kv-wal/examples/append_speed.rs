//! How long an append and its sync take, one after the other: `cargo run --release -p kv-wal --example append_speed DIR`.
//!
//! Every figure is durable: an append counts when `sync` has returned. Run it on the disk you mean.

#![expect(clippy::print_stdout, reason = "the figures are the purpose")]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kv_wal::{Entry, EntryId, Error, Index, Kind, Log, Options, Term, Wal};

const PAYLOAD_BYTES: usize = 128;

fn main() -> Result<(), Error> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from).join("kv-wal-append-speed");
    for (batch, syncs) in [(1, 4000), (100, 2000), (1000, 500)] {
        let mut taken = one_by_one(&dir, batch, syncs)?;
        taken.sort_unstable();
        let total: Duration = taken.iter().sum();
        let rate = f64::from(batch * syncs) / total.as_secs_f64();
        let (median, worst) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
        println!(
            "durable, one appender, {batch:4} x {PAYLOAD_BYTES} B a sync: {rate:9.0} entries/s, median {median:?}, 99 % {worst:?}"
        );
    }
    for threads in [1, 16, 64] {
        let rate = together(&dir, threads, 20_000)?;
        println!("durable, {threads:2} threads, one entry at a time each: {rate:9.0} entries/s");
    }
    Ok(())
}

/// Time of each append and sync of `batch` entries.
fn one_by_one(dir: &Path, batch: u32, syncs: u32) -> Result<Vec<Duration>, Error> {
    let _ = std::fs::remove_dir_all(dir);
    let (mut log, _) = Log::open(dir, Options::default())?;
    let payload = [7; PAYLOAD_BYTES];
    let mut buffer = BytesMut::new();
    let mut taken = Vec::new();
    for _ in 0..syncs {
        let next = log.last().index.next();
        let ids = (0..u64::from(batch)).map(|at| EntryId::new(Term::new(1), next.plus(at)));
        let entries: Vec<Entry> = ids.map(|id| Entry::encode(&mut buffer, id, 0, Kind(1), &payload)).collect();
        let start = Instant::now();
        log.append(&entries, None)?;
        log.sync()?;
        taken.push(start.elapsed());
    }
    assert_eq!(log.reader().last().index, Index::new(u64::from(batch * syncs)));
    Ok(taken)
}

/// Entries a second when `threads` threads each wait for one entry before they submit the next.
fn together(dir: &Path, threads: u32, entries: u32) -> Result<f64, Error> {
    let _ = std::fs::remove_dir_all(dir);
    let (wal, _) = Wal::open(dir, Options::default())?;
    let payload = Bytes::from_static(&[7; PAYLOAD_BYTES]);
    let start = Instant::now();
    thread::scope(|scope| {
        let write = || {
            let handle = wal.handle();
            (0..entries / threads).try_for_each(|_| {
                handle.append_payloads(Term::new(1), 0, Kind(1), vec![payload.clone()]).wait().map(drop)
            })
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(write)).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let rate = f64::from(entries / threads * threads) / start.elapsed().as_secs_f64();
    wal.close()?;
    Ok(rate)
}
