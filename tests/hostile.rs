//! Bad input to real processes: each gets a clear answer, and nobody else notices.

#[path = "cluster/mod.rs"]
mod cluster;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Cluster, PATIENCE, Setup, eventually, free_port, installed, kv_node, run_kv_node, say};
use redis::Commands;

/// Sends bytes and reads until the server hangs up.
fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // A reset after the answer is a way to hang up, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn malformed_requests_end_their_own_connection_only() {
    let cluster = Cluster::start();
    let mut bystander = cluster.client(1);
    for (bytes, words) in [
        (&b"*1\r\n+PING\r\n"[..], "expected '$', got '+'"),
        (b"*99999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$9999999999\r\n", "invalid bulk length"),
        (b"GET \"unbalanced\r\n", "unbalanced quotes"),
        (&vec![b'x'; 200_000], "too big inline request"),
    ] {
        let answer = exchange(&cluster.address(1), bytes);
        assert!(answer.starts_with("-ERR Protocol error") && answer.contains(words), "{words}: {answer:?}");
    }
    let wrong: redis::RedisResult<()> = redis::cmd("GET").query(&mut bystander);
    assert!(wrong.expect_err("arity").to_string().contains("wrong number of arguments for 'get' command"));
    let unknown: redis::RedisResult<()> = redis::cmd("LPUSH").arg("list").arg("x").query(&mut bystander);
    assert!(unknown.expect_err("unknown").to_string().contains("unknown command 'LPUSH'"));
    let _: () = bystander.set("still", "served").expect("confirmed");
}

#[test]
fn garbage_on_the_peer_port_disturbs_nobody() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let term = cluster.ask(leader).expect("it answers")["term"].clone();
    let arguments = cluster.arguments(leader);
    let position = arguments.iter().position(|word| word == "--peer-listen").expect("given");
    let peer_address = arguments[position + 1].clone();
    let noise: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[0; 64], &noise] {
        let mut stream = TcpStream::connect(&peer_address).expect("the node listens");
        stream.write_all(bytes).expect("sent");
        // Short garbage is waited for until the greeting is overdue; hang up ourselves.
        drop(stream);
    }
    let _: () = cluster.client(1).set("still", "served").expect("confirmed");
    assert_eq!(cluster.ask(leader).expect("it answers")["term"], term, "no election was caused");
    assert!(eventually("a line in the log", || {
        let log = cluster.log(leader);
        if log.contains("refused") { Ok(true) } else { Err(log) }
    }));
}

#[test]
fn a_start_that_cannot_be_right_says_what_to_do() {
    let mut cluster = Cluster::start();
    let refused = |arguments: &[String], words: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run_kv_node(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    };
    let with = |id: usize, changes: &[(&str, String)]| {
        let mut arguments = cluster.arguments(id).to_vec();
        for (flag, value) in changes {
            let position = arguments.iter().position(|word| word == flag).expect("given");
            arguments[position + 1].clone_from(value);
        }
        arguments
    };
    let free = || format!("127.0.0.1:{}", free_port());

    refused(&with(1, &[]), &[&cluster.address(1), "in use"]);
    refused(&with(1, &[("--listen", free()), ("--peer-listen", free())]), &["lock", "node1"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    refused(&with(1, &[("--listen", free()), ("--peer-listen", address.clone())]), &[&address, "in use"]);
    let dir = |id: usize| cluster.dir(id).display().to_string();
    refused(&with(1, &[("--id", "9".into()), ("--listen", free()), ("--peer-listen", free())]), &["not in the list"]);
    let (other, peers) = (dir(2), with(1, &[]));
    cluster.stop(2);
    let mut foreign = peers;
    for (flag, value) in [("--dir", other), ("--listen", free()), ("--peer-listen", free())] {
        let position = foreign.iter().position(|word| word == flag).expect("given");
        foreign[position + 1] = value;
    }
    refused(&foreign, &["belongs to node 2"]);
    cluster.run(2);
    cluster.leader();
}

/// The first log segment of a node claims to be written by a newer release: the node names the file and both versions,
/// changes nothing, and starts again when the file is what it was.
#[test]
fn a_directory_of_a_newer_release_is_refused_by_name() {
    let mut cluster = Cluster::start();
    let _: () = cluster.client(1).set("kept", "through it").expect("confirmed");
    cluster.stop(3);
    let segment = first_segment(&cluster.dir(3).join("log"));
    let before = std::fs::read(&segment).expect("readable");
    std::fs::write(&segment, of_a_newer_release(&before)).expect("written");
    let newer = std::fs::read(&segment).expect("readable");
    let arguments: Vec<&str> = cluster.arguments(3).iter().map(String::as_str).collect();
    let output = run_kv_node(&arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in [&*segment.display().to_string(), "format version 99", "use a newer release"] {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(std::fs::read(&segment).expect("readable") == newer, "a refused start changes nothing");
    std::fs::write(&segment, before).expect("written");
    cluster.run(3);
    cluster.leader();
    let kept: Option<String> = cluster.client(3).get("kept").expect("readable");
    assert_eq!(kept.as_deref(), Some("through it"));
}

fn first_segment(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).expect("the directory exists").map(|file| file.expect("readable").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).min().expect("a segment")
}

/// The same segment with a higher version in each copy of its header. Magic, version and checksum stay where they are in
/// all versions (see `kv-wal/FORMAT.md`).
fn of_a_newer_release(segment: &[u8]) -> Vec<u8> {
    let mut newer = segment.to_vec();
    let mut copies = 0;
    for header in newer.chunks_mut(4096).filter(|page| page.starts_with(b"kv-wal\0S")) {
        header[8..12].copy_from_slice(&99_u32.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..]);
        header[12..16].copy_from_slice(&sum.to_le_bytes());
        copies += 1;
    }
    assert_eq!(copies, 2, "the header is there twice");
    newer
}

/// A node of another cluster that was started with this cluster's addresses is told why it is refused; both clusters go
/// on.
#[test]
fn a_peer_of_another_cluster_is_refused_by_name() {
    let mut ours = Cluster::start();
    let mut theirs = Cluster::start();
    theirs.stop(3);
    ours.stop(3);
    let value = |cluster: &Cluster, flag: &str| {
        let arguments = cluster.arguments(3);
        arguments[arguments.iter().position(|word| word == flag).expect("given") + 1].clone()
    };
    let log = std::fs::File::create(ours.dir(3).join("../stranger.log")).expect("log file");
    let mut stranger = Command::new(kv_node())
        .args(["serve", "--id", "3", "--dir", &value(&theirs, "--dir"), "--listen", &value(&ours, "--listen")])
        .args(["--peer-listen", &value(&ours, "--peer-listen"), "--peers", &value(&ours, "--peers")])
        .stderr(log)
        .spawn()
        .expect("kv-node starts");
    eventually("the refusal in both logs", || {
        let told = std::fs::read_to_string(ours.dir(3).join("../stranger.log")).unwrap_or_default();
        let noticed = ours.log(1) + &ours.log(2);
        let named = told.contains("belongs to cluster") && noticed.contains("belongs to cluster");
        if named { Ok(()) } else { Err(told) }
    });
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
    for cluster in [&ours, &theirs] {
        let _: () = cluster.client(1).set("still", "served").expect("two of three confirm");
    }
}

#[test]
fn redis_tools_work_against_any_node() {
    if !installed("redis-cli") || !installed("redis-benchmark") {
        assert!(std::env::var_os("CI").is_none(), "redis-tools are missing");
        say("skipped: redis_tools_work_against_any_node: redis-cli and redis-benchmark are not installed");
        return;
    }
    let cluster = Cluster::start_with(Setup::default());
    for id in 1..=3 {
        let address = cluster.address(id);
        let port = address.rsplit(':').next().expect("a port");
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(["-p", port]).args(arguments).output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
            assert!(errors.is_empty(), "{program} {arguments:?} warns: {errors}");
            text
        };
        assert_eq!(run("redis-cli", &["SET", "key", "value"]).trim(), "OK");
        assert_eq!(run("redis-cli", &["-3", "GET", "key"]).trim(), "value");
        assert_eq!(run("redis-cli", &["APPEND", "key", " and more"]).trim(), "14");
        let shown = run("redis-benchmark", &["-t", "ping,set,get,incr,mset", "-n", "600", "-c", "8", "-P", "4", "-q"]);
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"] {
            assert!(shown.contains(test), "{test} is missing: {shown}");
        }
        assert!(!shown.to_lowercase().contains("warning") && !shown.contains("ERR"), "{shown}");
    }
    cluster.expect_match();
}
