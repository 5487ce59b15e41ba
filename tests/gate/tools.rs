//! Rows about the commands that a user types.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use redis::Commands;
use rustix::process::{Pid, Signal, kill_process};

use crate::PLANTED;
use crate::cluster::{eventually, free_port_block, kv_node};

/// `kv-node cluster` starts three nodes, names ports and leader, stops all with Ctrl-C, and finds its data again.
pub(crate) fn one_command() -> String {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
    let port = free_port_block();
    for (start, before) in [None, Some("kept".to_owned())].into_iter().enumerate() {
        let mut cluster = Running::start(&dir.path().join("cluster"), port);
        let shown = cluster.read_until_leader();
        for number in 0..3 {
            assert!(shown.contains(&(port + number).to_string()), "client port {number} is not shown:\n{shown}");
            assert!(shown.contains(&(port + 100 + number).to_string()), "peer port {number} is not shown:\n{shown}");
        }
        assert!(shown.contains(&format!("redis-cli -p {port}")), "no line to paste:\n{shown}");
        for number in 0..3 {
            let mut client = connect(port + number);
            assert_eq!(client.get::<_, Option<String>>("greeting").expect("readable"), before, "start {start}");
        }
        let _: () = connect(port + 1).set("greeting", "kept").expect("confirmed");
        cluster.interrupt();
        for number in 0..3 {
            let address = format!("127.0.0.1:{}", port + number);
            assert!(std::net::TcpStream::connect(&address).is_err(), "a node still listens on {address}");
        }
    }
    format!("ports {port} to {}", port + 2)
}

struct Running(Child);

impl Running {
    fn start(dir: &std::path::Path, port: u16) -> Running {
        let mut command = Command::new(kv_node());
        command.arg("cluster").arg("--dir").arg(dir).args(["--port", &port.to_string()]);
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kv-node starts"))
    }

    fn read_until_leader(&mut self) -> String {
        let mut shown = String::new();
        let mut lines = BufReader::new(self.0.stdout.take().expect("piped")).lines();
        while let Some(Ok(line)) = lines.next() {
            shown += &line;
            shown.push('\n');
            if line.contains("redis-cli") && shown.contains("leader") {
                // The rest is read so that the pipe never fills up.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return shown;
            }
        }
        panic!("the cluster ended before it named its leader:\n{shown}");
    }

    fn interrupt(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("it runs");
        let status = self.0.wait().expect("it ends");
        assert!(status.success(), "{status} after Ctrl-C");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Its own children end when it is asked to end.
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

fn connect(port: u16) -> redis::Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).expect("valid address");
    eventually("a connection", || client.get_connection().map_err(|error| error.to_string()))
}

/// `cargo bench` prints throughput for the log, the store and a cluster. Here each bench runs briefly.
pub(crate) fn cargo_bench_prints_throughput() -> String {
    let mut figures = Vec::new();
    for bench in ["wal_append", "store_ops", "cluster_write"] {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["bench", "--quiet", "-p", "kv", "--bench", bench]);
        if cfg!(debug_assertions) {
            command.args(["--profile", "dev"]);
        }
        command.args(["--", "--quick", "--noplot"]).env("KV_BENCH_BRIEF", "1");
        let output = command.output().expect("cargo runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{bench}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let count = text.lines().filter(|line| line.contains("thrpt:")).count();
        assert!(count > 0, "{bench} prints no throughput:\n{text}");
        figures.push(format!("{bench} {count}"));
    }
    format!("figures: {}", figures.join(", "))
}

/// The gate, asked for a row that is always red, says so and exits with 1.
pub(crate) fn a_red_row_fails_the_gate() -> String {
    let gate = std::env::current_exe().expect("this program has a path");
    let output = Command::new(gate).arg(PLANTED).output().expect("the gate runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("RED") && text.contains("0 passed, 1 failed"), "{text}");
    "exit status 1 on red".into()
}
