//! Another driver for the Raft core: three nodes, a thread each, channels for a network, a vector for a disk. No tokio.
//!
//! ```sh
//! cargo run -p kv-repl --example core_driver
//! ```
//!
//! It does what the documentation of [`kv_repl::raft`] asks for: hand in what has happened, carry out every output in order,
//! sleep until `poll_timeout`. A vector is never synced, so nothing here outlasts the process; a real driver calls
//! `into_durable` only when the sync has returned.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_repl::NodeId;
use kv_repl::message::{Message, Proposal};
use kv_repl::raft::{Apply, Boot, LogRead, LogReadResult, Options, Output, Raft, Role, Write};
use kv_repl::types::{Configuration, Entry, Incarnation, Member, kind};

const NODES: u64 = 3;
const COMMANDS: usize = 10;

enum Event {
    Message(Member, Message),
    Command(Bytes),
}

fn member(id: u64) -> Member {
    Member::new(NodeId::new(id), Incarnation::new(1))
}

struct Node {
    raft: Raft,
    started: Instant,
    /// The log, whose first entry has index 1.
    log: Vec<Entry>,
    applied: Vec<String>,
    peers: Vec<Sender<Event>>,
}

impl Node {
    fn new(id: u64, peers: Vec<Sender<Event>>) -> Node {
        let boot = Boot::first(Configuration::new((1..=NODES).map(member).collect()));
        // Another seed at each start.
        let options = Options { seed: u64::from(std::process::id()), ..Options::default() };
        let mut raft = Raft::new(member(id), options, boot, Duration::ZERO);
        for other in (1..=NODES).filter(|other| *other != id) {
            raft.handle_connected(Duration::ZERO, member(other), 1);
        }
        Node { raft, started: Instant::now(), log: Vec::new(), applied: Vec::new(), peers }
    }

    /// Runs until everything has been applied.
    fn run(mut self, events: &Receiver<Event>) -> Vec<String> {
        while self.applied.len() < COMMANDS {
            let wait = self.raft.poll_timeout().unwrap_or(Duration::MAX).saturating_sub(self.started.elapsed());
            let event = events.recv_timeout(wait);
            let now = self.started.elapsed();
            match event {
                Ok(Event::Message(from, message)) => self.raft.handle_message(now, from, message),
                Ok(Event::Command(payload)) if self.raft.role() == Role::Leader => {
                    self.raft.propose(now, 0, &[Proposal { kind: kind::COMMAND, payload }]).expect("there is room");
                }
                Ok(Event::Command(_)) | Err(_) => {}
            }
            self.raft.handle_timeout(now);
            while let Some(output) = self.raft.poll_output() {
                self.carry_out(now, output);
            }
        }
        self.applied
    }

    fn carry_out(&mut self, now: Duration, output: Output) {
        match output {
            // Whoever is done does not listen any more.
            Output::Send { to, message } => {
                let event = Event::Message(self.raft.me(), message);
                let _ = self.peers[to.id.get() as usize - 1].send(event);
            }
            Output::Write(write) => self.write(now, write),
            Output::Apply(Apply::Entries(pieces)) => pieces.iter().flatten().for_each(|entry| self.apply(entry)),
            Output::Apply(Apply::Stored { first, last }) => {
                let stored = self.log[first.get() as usize - 1..last.get() as usize].to_vec();
                stored.iter().for_each(|entry| self.apply(entry));
            }
            Output::ReadLog(request) => {
                let result = LogReadResult::Entries(self.log[request.from.get() as usize - 1..].to_vec().into());
                self.raft.handle_log_read(now, LogRead { peer: request.peer, token: request.token, result });
            }
            Output::Role(change) => println!("node {}: {:?} in term {}", self.raft.me().id, change.role, change.term),
            // Nobody reads, truncates a log, or loses a disk here.
            other => panic!("not asked for: {other:?}"),
        }
    }

    fn write(&mut self, now: Duration, write: Write) {
        if let Some(first) = write.entries.first() {
            self.log.truncate(first.index().get() as usize - 1);
            self.log.extend(write.entries.iter().cloned());
        }
        self.raft.handle_durable(now, write.into_durable());
    }

    fn apply(&mut self, entry: &Entry) {
        if entry.kind() == kind::COMMAND {
            self.applied.push(String::from_utf8_lossy(&entry.payload()).into_owned());
        }
    }
}

fn main() {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (1..=NODES).map(|_| channel()).unzip();
    let start = |(id, inbox): (u64, Receiver<Event>)| {
        let node = Node::new(id, senders.clone());
        thread::spawn(move || node.run(&inbox))
    };
    let nodes: Vec<_> = (1..=NODES).zip(inboxes).map(start).collect();
    // Whoever leads takes them; while nobody does they are lost, and a client would ask again.
    for number in 0.. {
        let command = Bytes::from(format!("command {number}"));
        let sent = senders.iter().filter(|node| node.send(Event::Command(command.clone())).is_ok()).count();
        if sent < NODES as usize {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let applied: Vec<_> = nodes.into_iter().map(|node| node.join().expect("it ends")).collect();
    assert!(applied.iter().all(|other| *other == applied[0]), "the same commands in the same order everywhere");
    println!("{NODES} nodes have applied the same: {:?}", applied[0]);
}
