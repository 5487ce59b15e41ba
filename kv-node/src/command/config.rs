//! `CONFIG GET`: the settings that clients and tools ask for.

use bytes::Bytes;

use super::table::{ADMIN, Argument, Command, help};
use super::{Action, CommandError, glob};
use crate::client::Client;
use crate::node::{CLIENTS_COUNT_MAX, Node, split_address};
use crate::resp::{BULK_BYTES_MAX, Frame};

const CONFIG: Command = Command { flags: ADMIN, group: "server", since: "2.0.0", ..Command::DEFAULT };

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "config",
    arity: -2,
    flags: &[],
    summary: "Commands about the configuration.",
    subcommands: &[
        Command {
            name: "config|get",
            arity: -3,
            complexity: "O(settings)",
            summary: "Answers the settings whose names match.",
            arguments: &[Argument::string("parameter").multiple()],
            run: get,
            ..CONFIG
        },
        Command { name: "config|help", arity: 2, since: "5.0.0", summary: "Answers this text.", run: help, ..CONFIG },
    ],
    ..CONFIG
}];

/// Every write is durable on a majority before it is confirmed, which in the words of Redis is an append-only file with
/// a sync at every write, and no snapshots by time.
fn settings(node: &Node) -> [(&'static str, String); 14] {
    [
        ("appendfsync", "always".into()),
        ("appendonly", "yes".into()),
        ("bind", split_address(&node.about.client_address).0.into()),
        ("cluster-enabled", "no".into()),
        ("databases", "1".into()),
        ("dir", node.about.dir.display().to_string()),
        ("maxclients", CLIENTS_COUNT_MAX.to_string()),
        ("maxmemory", "0".into()),
        ("maxmemory-policy", "noeviction".into()),
        ("port", node.client_port().to_string()),
        ("proto-max-bulk-len", BULK_BYTES_MAX.to_string()),
        ("replica-read-only", "no".into()),
        ("save", String::new()),
        ("timeout", "0".into()),
    ]
}

fn get(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let patterns: Vec<Vec<u8>> = request[2..].iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let wanted = |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes()));
    let pairs = settings(&client.node)
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (Frame::text(name), Frame::text(value)))
        .collect();
    Ok(Action::Reply(Frame::Map(pairs)))
}
