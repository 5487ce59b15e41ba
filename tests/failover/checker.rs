//! A client that numbers its writes and remembers which were confirmed, and reads them all again afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Commands;

/// What the client was told.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) confirmed: Vec<u64>,
    pub(crate) errors: Vec<String>,
    /// Longest time between a write and its confirmation.
    pub(crate) longest: Duration,
}

/// Writes one numbered key after the other through one node.
pub(crate) fn write_until(done: &AtomicBool, address: &str) -> Checked {
    let client = redis::Client::open(format!("redis://{address}/")).expect("valid address");
    let mut connection = client.get_connection().expect("the node listens");
    let mut checked = Checked::default();
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let asked = Instant::now();
        match connection.set::<_, _, ()>(name(number), number) {
            Ok(()) => checked.confirmed.push(number),
            Err(error) => checked.errors.push(format!("write {number}: {error}")),
        }
        checked.longest = checked.longest.max(asked.elapsed());
    }
    checked
}

/// The confirmed numbers that a node does not have.
pub(crate) fn missing(connection: &mut redis::Connection, confirmed: &[u64]) -> Vec<u64> {
    let mut missing = Vec::new();
    for chunk in confirmed.chunks(1000) {
        let names: Vec<String> = chunk.iter().map(|number| name(*number)).collect();
        let found: Vec<Option<u64>> = connection.mget(&names).expect("readable");
        missing.extend(chunk.iter().zip(found).filter(|(number, value)| *value != Some(**number)).map(|(n, _)| *n));
    }
    missing
}

fn name(number: u64) -> String {
    format!("checked:{number}")
}
