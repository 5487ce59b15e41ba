//! Free ports on loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// A port such that it, the next two, and those a hundred above are free, as `kv-node cluster` wants them.
pub fn free_port_block() -> u16 {
    // Below the ports that the kernel hands out by itself, and another block for each caller.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 50) as u16 * 200;
    for _ in 0..200 {
        let port = start + NEXT.fetch_add(3, Ordering::Relaxed) % 99;
        let wanted = (port..port + 3).chain(port + 100..port + 103);
        let bound: Result<Vec<TcpListener>, _> = wanted.map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if bound.is_ok() {
            return port;
        }
    }
    panic!("no block of free ports above {start}");
}
