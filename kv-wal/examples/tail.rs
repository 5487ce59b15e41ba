//! Some threads append to one log, and a follower prints each entry as soon as it is durable:
//! `cargo run -p kv-wal --example tail [DIR]`. In a directory of yours the log stays, and the next run goes on with it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::ops::Range;
use std::path::PathBuf;
use std::thread;

use bytes::Bytes;
use kv_wal::{EntryId, Error, Handle, Index, Kind, Options, Term, Wal};

const APPENDERS: u64 = 4;
const APPENDS_EACH: u64 = 5;
/// So many entries are kept for the next run.
const KEPT: u64 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let (wal, recovery) = Wal::open(&dir, Options { segment_bytes: 1 << 20, ..Options::default() })?;
    println!("{} entries recovered, the last is {}", recovery.entries_recovered, recovery.last.index);

    let handle = wal.handle();
    let first = recovery.last.index.next();
    thread::scope(|scope| {
        let handle = &handle;
        let follower = scope.spawn(move || follow(handle, first..first.plus(APPENDERS * APPENDS_EACH)));
        let appenders: Vec<_> = (0..APPENDERS).map(|name| scope.spawn(move || append(handle, name))).collect();
        appenders.into_iter().chain([follower]).try_for_each(|thread| thread.join().expect("no panic"))
    })?;

    let upto = Index::new(wal.reader().last().index.get().saturating_sub(KEPT));
    if let Some(term) = wal.reader().term(upto) {
        handle.truncate_prefix(EntryId::new(term, upto)).wait()?;
    }
    wal.close()?;
    let stats = handle.stats();
    println!("{} entries made durable by {} syncs", stats.entries_appended, stats.syncs);
    Ok(())
}

/// One entry after the other, each durable before the next. They get their indexes in the order in which they arrive.
fn append(handle: &Handle, name: u64) -> Result<(), Error> {
    for append in 0..APPENDS_EACH {
        let payload = Bytes::from(format!("append {append} of thread {name}"));
        handle.append_payloads(Term::new(1), 0, Kind(1), vec![payload]).wait()?;
    }
    Ok(())
}

/// Sleeps until the next entry is durable, then takes all that are.
fn follow(handle: &Handle, range: Range<Index>) -> Result<(), Error> {
    let mut next = range.start;
    while next < range.end {
        handle.durable(next).wait()?;
        let durable = handle.reader().last().index;
        println!("durable up to {durable}:");
        for entry in handle.reader().iter(next..durable.next()) {
            let entry = entry?;
            println!("  {} {}", entry.index(), String::from_utf8_lossy(&entry.payload()));
        }
        next = durable.next();
    }
    Ok(())
}
