//! `INFO`: the state of the node for people and monitors, in the words of Redis where it has some, and in a section
//! `Raft` of its own.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use kv_repl::{Role, Status};

use super::table::{ANY_TIME, Argument, Command};
use super::{Action, CommandError};
use crate::client::Client;
use crate::hex::hex;
use crate::node::{CLIENTS_COUNT_MAX, Node, split_address};
use crate::node_status::role_name;
use crate::resp::Frame;
use crate::{REDIS_VERSION, SERVER_NAME};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "info",
    arity: -1,
    flags: ANY_TIME,
    group: "server",
    summary: "Answers the state of the node.",
    arguments: &[Argument::string("section").optional_multiple()],
    run: info,
    ..Command::DEFAULT
}];

type Section = fn(&mut String, &Node, &Status);

const SECTIONS: [(&str, Section); 8] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Raft", raft),
    ("Keyspace", keyspace),
];

fn info(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let node = Arc::clone(&client.node);
    let asked: Vec<Vec<u8>> = request[1..].iter().map(|section| section.to_ascii_lowercase()).collect();
    Action::later(async move { Ok(Frame::text(report(&node, &asked))) })
}

/// The sections asked for, in lower case; all if none is.
fn report(node: &Node, asked: &[Vec<u8>]) -> String {
    let all =
        asked.is_empty() || asked.iter().any(|section| matches!(&section[..], b"all" | b"everything" | b"default"));
    let status = node.backend.status();
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if all || asked.iter().any(|asked| asked.eq_ignore_ascii_case(name.as_bytes())) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            line(&mut text, format_args!("# {name}"));
            section(&mut text, node, &status);
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    write!(text, "{line}\r\n").expect("a string takes all that is written to it");
}

fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    line(text, format_args!("{name}:{value}"));
}

fn server(text: &mut String, node: &Node, _: &Status) {
    let uptime = node.uptime().as_secs();
    field(text, "redis_version", REDIS_VERSION);
    field(text, "server_name", SERVER_NAME);
    field(text, "kv_version", env!("CARGO_PKG_VERSION"));
    field(text, "redis_mode", "standalone");
    field(text, "os", std::env::consts::OS);
    field(text, "arch_bits", usize::BITS);
    field(text, "process_id", std::process::id());
    field(text, "tcp_port", node.client_port());
    field(text, "uptime_in_seconds", uptime);
    field(text, "uptime_in_days", uptime / 86_400);
}

fn clients(text: &mut String, node: &Node, _: &Status) {
    field(text, "connected_clients", node.counters.connections_open.load(Relaxed));
    field(text, "maxclients", CLIENTS_COUNT_MAX);
    field(text, "blocked_clients", 0);
}

fn memory(text: &mut String, node: &Node, _: &Status) {
    let mut data_bytes = 0;
    node.backend.read(&mut |view| data_bytes = view.bytes());
    let used_bytes = resident_bytes();
    field(text, "used_memory", used_bytes);
    field(text, "used_memory_human", format_args!("{:.2}M", used_bytes as f64 / f64::from(1 << 20)));
    field(text, "used_memory_rss", used_bytes);
    field(text, "used_memory_dataset", data_bytes);
    field(text, "maxmemory", 0);
    field(text, "maxmemory_policy", "noeviction");
}

/// Memory of the process, as the kernel counts it; 0 where it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.and_then(|kib| kib.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok()).unwrap_or(0) << 10
}

fn persistence(text: &mut String, _: &Node, status: &Status) {
    field(text, "loading", u8::from(status.cluster.is_none()));
    field(text, "rdb_bgsave_in_progress", 0);
    field(text, "aof_enabled", 1);
    field(text, "aof_rewrite_in_progress", 0);
}

fn stats(text: &mut String, node: &Node, _: &Status) {
    let counters = &node.counters;
    field(text, "total_connections_received", counters.connections_accepted.load(Relaxed));
    field(text, "total_commands_processed", counters.commands.load(Relaxed));
    field(text, "rejected_connections", counters.connections_refused.load(Relaxed));
}

/// A follower tells where the leader is, although it takes writes itself and hands them on.
fn replication(text: &mut String, _: &Node, status: &Status) {
    let followers: Vec<_> = status.peers.iter().filter(|peer| peer.connected).collect();
    if status.role == Role::Leader {
        field(text, "role", "master");
        field(text, "connected_slaves", followers.len());
        for (number, peer) in followers.iter().enumerate() {
            let (host, port) = split_address(peer.client_address.as_deref().unwrap_or_default());
            line(text, format_args!("slave{number}:ip={host},port={port},state=online"));
        }
    } else {
        let leader = status.peers.iter().find(|peer| Some(peer.id) == status.leader);
        let (host, port) = split_address(leader.and_then(|peer| peer.client_address.as_deref()).unwrap_or_default());
        let link = if leader.is_some_and(|peer| peer.connected) { "up" } else { "down" };
        field(text, "role", "slave");
        field(text, "master_host", host);
        field(text, "master_port", port);
        field(text, "master_link_status", link);
        field(text, "slave_repl_offset", status.applied);
        field(text, "slave_read_only", 0);
        field(text, "connected_slaves", 0);
    }
    field(text, "master_repl_offset", status.committed);
}

fn raft(text: &mut String, node: &Node, status: &Status) {
    field(text, "node_id", status.me.id);
    field(text, "state", if status.cluster.is_some() { "up" } else { "waiting for the other nodes" });
    field(text, "role", role_name(status.role));
    field(text, "is_voting", if status.cluster.is_some() { "yes" } else { "no" });
    field(text, "leader_id", status.leader.map_or(-1, |id| id.get().try_into().unwrap_or(i64::MAX)));
    field(text, "current_term", status.term);
    field(text, "num_nodes", status.peers.len() + 1);
    field(text, "num_voting_nodes", status.peers.len() + 1);
    for (number, peer) in status.peers.iter().enumerate() {
        let (host, port) = split_address(peer.client_address.as_deref().unwrap_or_default());
        let state = if peer.connected { "connected" } else { "disconnected" };
        line(text, format_args!("node{number}:id={},state={state},voting=yes,addr={host},port={port}", peer.id));
    }
    field(text, "current_index", status.last);
    field(text, "commit_index", status.committed);
    field(text, "last_applied_index", status.applied);
    field(text, "hash_index", status.hash_index);
    field(text, "state_hash", hex(&status.state_hash));
    field(text, "peer_address", &node.about.peer_address);
}

fn keyspace(text: &mut String, node: &Node, _: &Status) {
    let mut keys_count = 0;
    node.backend.read(&mut |view| keys_count = view.len());
    if keys_count > 0 {
        field(text, "db0", format_args!("keys={keys_count},expires=0,avg_ttl=0"));
    }
}
