//! How long a durable put takes, with one caller and with many, and how long opening takes.
//!
//! `cargo run --release -p kv-store --example measure_durable -- DIRECTORY [SECONDS]`

#![expect(clippy::print_stdout, reason = "it reports")]

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kv_store::{DurableError, DurableOptions, DurableStore};

const VALUE: [u8; 128] = [b'x'; 128];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("name a directory on the disk to be measured")?;
    let seconds = std::env::args().nth(2).map_or(Ok(3), |text| text.parse())?;
    let dir = tempfile::tempdir_in(dir)?;
    for threads in [1, 8, 64] {
        let path = dir.path().join(threads.to_string());
        measure(&path, threads, Duration::from_secs(seconds))?;
    }
    Ok(())
}

fn measure(dir: &Path, threads: u64, duration: Duration) -> Result<(), DurableError> {
    let (store, _) = DurableStore::open(dir, DurableOptions::default())?;
    let (over, puts) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for nth in 0..threads {
            let (store, over, puts) = (&store, &over, &puts);
            scope.spawn(move || {
                let mut key = *b"key-0000-0000000";
                let mut at = nth;
                while !over.load(Ordering::Relaxed) {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    key[8..].copy_from_slice(&(at >> 44).to_be_bytes());
                    store.put(&key, &VALUE).expect("the disk works");
                    puts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(duration);
        over.store(true, Ordering::Relaxed);
    });
    let (took, puts) = (start.elapsed(), puts.into_inner());
    let each = took.as_secs_f64() * 1e6 / puts as f64;
    println!("{threads} threads: {each:.1} us a put, {:.0} puts a second", 1e6 / each);
    let status = store.status();
    println!(
        "  pairs {}, checkpoint {:?}, failure {:?}",
        store.view().len(),
        status.checkpoint,
        status.checkpoint_failure
    );
    store.close()?;
    let start = Instant::now();
    let (_, recovered) = DurableStore::open(dir, DurableOptions::default())?;
    println!("  opened in {} ms, {} entries replayed", start.elapsed().as_millis(), recovered.entries_replayed);
    Ok(())
}
