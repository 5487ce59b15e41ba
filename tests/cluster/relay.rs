//! A cable between two nodes that can be cut: a relay on loopback, one for each direction of dialing.
//!
//! Cut, it ends every connection that goes through it and hangs up on new ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Relay {
    from: usize,
    to: usize,
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Relay {
    /// Relays what node `from` sends to node `to`, which listens on `target`.
    pub fn start(from: usize, to: usize, target: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for incoming in listener.incoming().map_while(Result::ok) {
                join(incoming, target, &shared);
            }
        });
        Relay { from, to, port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn joins(&self, one: usize, other: usize) -> bool {
        (self.from, self.to) == (one, other) || (self.from, self.to) == (other, one)
    }

    pub fn cut(&self) {
        let mut state = self.state.lock().expect("no panic under the lock");
        state.cut = true;
        for stream in state.streams.drain(..) {
            // The other side may have been first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn heal(&self) {
        self.state.lock().expect("no panic under the lock").cut = false;
    }
}

fn join(incoming: TcpStream, target: u16, state: &Mutex<State>) {
    let mut state = state.lock().expect("no panic under the lock");
    if state.cut {
        return;
    }
    let Ok(outgoing) = TcpStream::connect(("127.0.0.1", target)) else { return };
    for (from, to) in [(&incoming, &outgoing), (&outgoing, &incoming)] {
        // A relay that adds its own delay to small packets would be measured as the cluster's.
        to.set_nodelay(true).expect("an open socket");
        let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
        thread::spawn(move || copy(from, to));
    }
    state.streams.extend([incoming, outgoing]);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
