//! Appends a number of times and ends, for a look at the system calls: `append_some DIR ENGINE APPENDS THREADS`.
//!
//! Counted once for no appends and once for some, the difference is what the appends have cost.

use std::path::PathBuf;
use std::thread;

use kv_peers::{ALONE, APPENDERS_MAX, Engine, Shape, TOGETHER, payload};

const PAYLOAD_BYTES: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, name, appends, threads] = &arguments[..] else {
        panic!("arguments: DIR ENGINE APPENDS THREADS");
    };
    let appends: u64 = appends.parse().expect("a number of appends");
    let threads: usize = threads.parse().expect("a number of threads");
    assert!((1..=APPENDERS_MAX).contains(&threads), "from 1 to {APPENDERS_MAX} threads");
    let engines: &[Engine] = if threads == 1 { &ALONE } else { &TOGETHER };
    let engine = engines.iter().find(|engine| engine.name == name).expect("the name of an engine");
    let dir = tempfile::tempdir_in(PathBuf::from(dir)).expect("a directory to work in");
    let rival = engine.start_settled(dir.path(), Shape { payload_bytes: PAYLOAD_BYTES, appenders: threads });
    let payload = payload(PAYLOAD_BYTES);
    thread::scope(|scope| {
        for appender in 0..threads {
            let (rival, payload) = (&rival, &payload);
            scope.spawn(move || (0..appends / threads as u64).for_each(|_| rival.append_synced(appender, payload)));
        }
    });
}
