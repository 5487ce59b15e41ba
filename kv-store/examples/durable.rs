//! A store that survives the program: each run counts itself.
//!
//! `cargo run -p kv-store --example durable -- /tmp/visits`

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::path::PathBuf;

use kv_store::{DurableOptions, DurableStore, Op};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("kv-visits"), PathBuf::from);
    let (store, recovered) = DurableStore::open(&dir, DurableOptions::default())?;
    println!("{} entries replayed after checkpoint {:?}", recovered.entries_replayed, recovered.checkpoint);

    let outcome = store.apply(&Op::Increment { key: b"visits", by: 1 })?; // durable when this returns
    println!("visit: {outcome:?}");

    // Any number of threads; calls that meet share one sync.
    std::thread::scope(|scope| {
        for nth in 0..8 {
            let store = store.clone();
            scope.spawn(move || store.put(format!("thread:{nth}").as_bytes(), b"was here"));
        }
    });

    let view = store.view(); // O(1); writes go on
    for (key, _) in view.range(b"thread:", Some(b"thread;")) {
        println!("{key:?}");
    }
    store.close()?;
    Ok(())
}
