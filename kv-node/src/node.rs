//! What all connections of a node share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::command::Cursors;

/// Most clients at a time; more are told so and sent away.
pub const CLIENTS_COUNT_MAX: usize = 10_000;

/// A node, as its connections see it.
pub struct Node {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) about: About,
    pub(crate) counters: Counters,
    pub(crate) cursors: Arc<Cursors>,
    started: Instant,
}

/// How the node was started.
#[derive(Clone, Debug)]
pub struct About {
    /// Where clients connect, as the node was told.
    pub client_address: String,
    /// Where the other nodes connect.
    pub peer_address: String,
    /// Where the data is.
    pub dir: PathBuf,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    pub(crate) commands: AtomicU64,
}

impl Node {
    /// A node on `backend`.
    pub fn new(backend: Arc<dyn Backend>, about: About) -> Arc<Node> {
        Arc::new(Node {
            backend,
            about,
            counters: Counters::default(),
            cursors: Arc::default(),
            started: Instant::now(),
        })
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The port of the client address, as clients ask for it; 0 if the address has none.
    pub(crate) fn client_port(&self) -> u16 {
        split_address(&self.about.client_address).1
    }
}

/// Host and port of an address such as `host:1` or `[::1]:1`; port 0 if there is none.
pub(crate) fn split_address(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

/// Adds one, and gives the new count.
pub(crate) fn count_one(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::split_address;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split_address("127.0.0.1:7001"), ("127.0.0.1", 7001));
        assert_eq!(split_address("[::1]:7001"), ("::1", 7001));
        assert_eq!(split_address("nonsense"), ("nonsense", 0));
    }
}
