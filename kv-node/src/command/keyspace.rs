//! Commands on keys, whatever their values.

use bytes::Bytes;
use kv_store::Op;

use super::string::reply_to_write;
use super::table::{Argument, Command, Keys, READ, READ_FAST, REMOVE};
use super::{Action, CommandError, scan};
use crate::client::Client;
use crate::resp::Frame;

const KEYSPACE: Command = Command { group: "generic", ..Command::DEFAULT };
const SERVER: Command = Command { group: "server", ..Command::DEFAULT };

const FLUSH_MODE: Argument =
    Argument::one_of("flush-type", &[Argument::word("async", "ASYNC"), Argument::word("sync", "SYNC")]).optional();

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "del",
        arity: -2,
        flags: REMOVE,
        keys: Keys::ALL,
        complexity: "O(k log n) for k keys",
        summary: "Removes keys, and answers how many were there.",
        arguments: &[Argument::key("key").multiple()],
        run: del,
        ..KEYSPACE
    },
    Command {
        name: "exists",
        arity: -2,
        flags: READ_FAST,
        keys: Keys::ALL,
        complexity: "O(k log n) for k keys",
        summary: "Answers how many of the keys are there; one named twice counts twice.",
        arguments: &[Argument::key("key").multiple()],
        run: exists,
        ..KEYSPACE
    },
    Command {
        name: "scan",
        arity: -2,
        flags: READ,
        since: "2.8.0",
        complexity: "O(log n + keys looked at) for each call",
        summary: "Walks through all keys, some at a time.",
        arguments: &[
            Argument::integer("cursor"),
            Argument { kind: "pattern", ..Argument::string("pattern") }.after("MATCH").optional(),
            Argument::integer("count").after("COUNT").optional(),
        ],
        run: scan::scan,
        ..KEYSPACE
    },
    Command {
        name: "dbsize",
        arity: 1,
        flags: READ_FAST,
        summary: "Answers how many keys there are.",
        run: |_, _| Ok(Action::read(1, |view| Frame::count(view.len()))),
        ..SERVER
    },
    Command {
        name: "flushall",
        arity: -1,
        flags: REMOVE,
        summary: "Removes all keys.",
        arguments: &[FLUSH_MODE],
        run: clear,
        ..SERVER
    },
    Command {
        name: "flushdb",
        arity: -1,
        flags: REMOVE,
        summary: "Removes all keys.",
        arguments: &[FLUSH_MODE],
        run: clear,
        ..SERVER
    },
];

fn del(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let keys = request[1..].iter().map(|key| &key[..]).collect();
    Action::write(&Op::Delete { keys }, reply_to_write)
}

fn exists(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let keys = request[1..].to_vec();
    Ok(Action::read(keys.len(), move |view| Frame::count(keys.iter().filter(|key| view.get(key).is_some()).count())))
}

/// The mode makes no difference: dropping the tree never holds up clients.
fn clear(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    match &request[1..] {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    Action::write(&Op::Clear, reply_to_write)
}
