//! A cluster of real `kv-node` processes for whole-system tests: start, kill, cut, heal, ask.
//!
//! Everything is on loopback with free ports and in a temporary directory; dropping the cluster ends the processes it
//! started, and only those. Waiting is by condition with a generous bound, never by a fixed time.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "two test programs share it, and each uses a part")]

mod binary;
mod ports;
mod relay;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub use binary::kv_node;
pub use ports::{free_port, free_port_block};
use relay::Relay;

/// Bound for anything that must happen at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a cluster is started.
#[derive(Clone, Default)]
pub struct Setup {
    /// Puts a relay on every connection between nodes, so that it can be cut.
    pub cables: bool,
    /// More arguments for every `serve`.
    pub arguments: Vec<String>,
}

pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
    relays: Vec<Relay>,
}

struct Node {
    id: usize,
    client_port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Cluster {
    /// Three nodes, founded, with a leader.
    pub fn start() -> Cluster {
        Cluster::start_with(Setup::default())
    }

    pub fn start_with(setup: Setup) -> Cluster {
        let mut cluster = Cluster::prepare(setup);
        for id in 1..=3 {
            cluster.run(id);
        }
        cluster.leader();
        cluster
    }

    /// Three nodes, not started.
    pub fn prepare(setup: Setup) -> Cluster {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let peer_ports = [(); 3].map(|()| free_port());
        let mut relays = Vec::new();
        let nodes = (1..=3)
            .map(|id| {
                let seen_from = |other: usize| {
                    if !setup.cables || other == id {
                        return peer_ports[other - 1];
                    }
                    relays.push(Relay::start(id, other, peer_ports[other - 1]));
                    relays.last().expect("just pushed").port()
                };
                let peers: Vec<String> =
                    (1..=3).map(seen_from).zip(1..).map(|(port, id)| format!("{id}=127.0.0.1:{port}")).collect();
                let client_port = free_port();
                let mut arguments = vec!["serve".into(), "--id".into(), id.to_string()];
                arguments.extend(["--dir".into(), dir.path().join(format!("node{id}")).display().to_string()]);
                arguments.extend(["--listen".into(), format!("127.0.0.1:{client_port}")]);
                arguments.extend(["--peer-listen".into(), format!("127.0.0.1:{}", peer_ports[id - 1])]);
                arguments.extend(["--peers".into(), peers.join(",")]);
                // Small files: every start of a node makes two.
                arguments.extend(["--log-segment-bytes".into(), (4 << 20).to_string()]);
                arguments.extend(setup.arguments.iter().cloned());
                Node { id, client_port, arguments, child: None }
            })
            .collect();
        Cluster { dir, nodes, relays }
    }

    /// The directory of a node.
    pub fn dir(&self, id: usize) -> PathBuf {
        self.dir.path().join(format!("node{id}"))
    }

    /// The client address of a node.
    pub fn address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[id - 1].client_port)
    }

    /// The arguments that a node is started with.
    pub fn arguments(&self, id: usize) -> &[String] {
        &self.nodes[id - 1].arguments
    }

    /// Starts a node that is not running.
    pub fn run(&mut self, id: usize) {
        let log_path = self.dir.path().join(format!("node{id}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log_path).expect("log file");
        let node = &mut self.nodes[id - 1];
        assert!(node.child.is_none(), "node {id} is running");
        let mut command = Command::new(kv_node());
        command.args(&node.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().expect("kv-node starts"));
    }

    /// What a node has logged.
    pub fn log(&self, id: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("node{id}.log"))).unwrap_or_default()
    }

    /// Ends a node as a power cut would.
    pub fn kill(&mut self, id: usize) {
        self.signal(id, Signal::KILL);
        self.wait(id);
    }

    /// Asks a node to end and expects it to do so cleanly.
    pub fn stop(&mut self, id: usize) {
        self.signal(id, Signal::TERM);
        let status = self.wait(id);
        assert!(status.success(), "node {id} ended with {status} after SIGTERM:\n{}", self.log(id));
    }

    /// Waits for a node to end by itself.
    pub fn wait(&mut self, id: usize) -> ExitStatus {
        let mut child = self.nodes[id - 1].child.take().expect("the node is running");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("child can be waited for") {
                return status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().expect("child can be killed");
                panic!("node {id} did not end:\n{}", self.log(id));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, id: usize, signal: Signal) {
        let child = self.nodes[id - 1].child.as_ref().expect("the node is running");
        kill_process(Pid::from_child(child), signal).expect("the child exists");
    }

    /// Cuts the cables between two nodes, both ways.
    pub fn cut(&self, one: usize, other: usize) {
        self.cables(one, other).for_each(Relay::cut);
    }

    /// Repairs the cables between two nodes.
    pub fn heal(&self, one: usize, other: usize) {
        self.cables(one, other).for_each(Relay::heal);
    }

    fn cables(&self, one: usize, other: usize) -> impl Iterator<Item = &Relay> {
        assert!(!self.relays.is_empty(), "the cluster was started without cables");
        self.relays.iter().filter(move |relay| relay.joins(one, other))
    }

    /// A connection of a real Redis client to a node; waits until it listens.
    pub fn client(&self, id: usize) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}/", self.address(id))).expect("valid address");
        let connection = eventually(&format!("a connection to node {id}"), || {
            client.get_connection_with_timeout(Duration::from_secs(5)).map_err(|error| error.to_string())
        });
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        connection
    }

    /// What a node says of itself; `None` if it doesn't answer.
    pub fn ask(&self, id: usize) -> Option<Value> {
        let client = redis::Client::open(format!("redis://{}/", self.address(id))).ok()?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let json: String = redis::cmd("KV.STATUS").query(&mut connection).ok()?;
        serde_json::from_str(&json).ok()
    }

    /// Waits until one node leads and everybody that runs follows it in its term; gives its id.
    pub fn leader(&self) -> usize {
        let running: Vec<usize> = self.nodes.iter().filter(|node| node.child.is_some()).map(|node| node.id).collect();
        self.leader_among(&running)
    }

    /// Waits until one of these nodes leads and the others follow it; gives its id.
    pub fn leader_among(&self, ids: &[usize]) -> usize {
        eventually("one leader that all follow", || {
            let all: Option<Vec<Value>> = ids.iter().map(|id| self.ask(*id)).collect();
            let all = all.ok_or("not every node answers")?;
            let leaders: Vec<&Value> = all.iter().filter(|status| status["role"] == "leader").collect();
            let [leader] = leaders[..] else { return Err(format!("{} leaders", leaders.len())) };
            if !all.iter().all(|status| status["term"] == leader["term"]) {
                return Err("terms differ".into());
            }
            Ok(leader["id"].as_u64().expect("a numeric id") as usize)
        })
    }

    /// Waits until all nodes have applied the same index.
    pub fn settle(&self) -> u64 {
        eventually("all nodes at one applied index", || {
            let all: Option<Vec<u64>> = (1..=3).map(|id| self.ask(id)?["applied"].as_u64()).collect();
            let all = all.ok_or("not every node answers")?;
            if all.iter().all(|applied| *applied == all[0]) { Ok(all[0]) } else { Err(format!("{all:?}")) }
        })
    }

    /// Runs `kv-node verify --json` and gives its exit status and what it printed.
    pub fn verify(&self, through: usize) -> (i32, Value) {
        let output = run_kv_node(&["verify", "--addr", &self.address(through), "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("verify printed {text:?}: {error}"));
        (output.status.code().expect("an exit status"), json)
    }

    /// Expects equal states on all nodes, recomputed from every byte.
    pub fn expect_match(&self) {
        let (code, json) = self.verify(1);
        assert_eq!((code, &json["match"]), (0, &Value::Bool(true)), "{json:#}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if failed {
            for id in 1..=3 {
                let log = self.log(id);
                let tail: Vec<&str> = log.lines().rev().take(25).collect();
                say(&format!("--- end of the log of node {id}"));
                tail.iter().rev().for_each(|line| say(line));
            }
        }
    }
}

/// Runs `kv-node` to its end.
pub fn run_kv_node(arguments: &[&str]) -> std::process::Output {
    Command::new(kv_node()).args(arguments).stdin(Stdio::null()).output().expect("kv-node runs")
}

/// Tries until it works.
pub fn eventually<T, E: std::fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if started.elapsed() > PATIENCE => panic!("{what}: not within {PATIENCE:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}

/// Whether a program is on this machine.
pub fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| Path::new(&dir).join(program).is_file())
}

#[expect(clippy::print_stderr, reason = "tests report to the terminal")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
