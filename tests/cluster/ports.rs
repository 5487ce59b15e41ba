//! Free ports on loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that nobody listens on. Below those that the kernel hands out by itself, or an outgoing connection might have
/// it before the node does; and another for each caller.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    let start = (std::process::id() % 100) as u16 * 100;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
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
