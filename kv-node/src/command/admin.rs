//! The server's own commands: for operators and for `kv-node status` and `kv-node verify`.
//!
//! A mark is an entry at which every replica notes its state hash and keeps the state it was computed from. Hashes noted
//! at one mark are comparable, because they belong to one index. Where they differ, the range commands let the asker
//! find the keys by bisection over the states that were kept.

use std::sync::Arc;

use bytes::Bytes;
use kv_repl::Mark;
use kv_store::diff::{DigestSource, KeyRange, PairSummary};
use kv_store::{Index, ReadView, Store};

use super::table::{ADMIN, Argument, Command};
use super::{Action, CommandError, integer};
use crate::client::Client;
use crate::hex::hex;
use crate::node::Node;
use crate::node_status::NodeStatus;
use crate::resp::Frame;
use crate::session::write_error;

const OWN: Command = Command { flags: ADMIN, group: "server", since: "0.1.0", ..Command::DEFAULT };

const RANGE: &[Argument] = &[Argument::integer("index"), Argument::string("from"), Argument::string("to").optional()];

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "kv.status", summary: "Answers where this node stands, as JSON.", run: status, ..OWN },
    Command {
        name: "kv.mark",
        summary: "Makes every replica note its state hash, and answers the index where.",
        run: mark,
        ..OWN
    },
    Command {
        name: "kv.hash",
        arity: -2,
        complexity: "O(1); O(bytes stored) with AUDIT",
        summary: "Answers the state hash noted at a mark; AUDIT computes it again from every stored byte.",
        arguments: &[Argument::integer("index"), Argument::word("audit", "AUDIT").optional()],
        run: hash,
        ..OWN
    },
    Command {
        name: "kv.digest",
        arity: -3,
        complexity: "O(log n)",
        summary: "Answers count, bytes and sum of a range of keys, as they were at a mark.",
        arguments: RANGE,
        run: |client, request| in_range(client, request, digest),
        ..OWN
    },
    Command {
        name: "kv.split",
        arity: -3,
        complexity: "O(log n)",
        summary: "Answers the key in the middle of a range, as it was at a mark.",
        arguments: RANGE,
        run: |client, request| in_range(client, request, split),
        ..OWN
    },
    Command {
        name: "kv.pairs",
        arity: -3,
        complexity: "O(log n)",
        summary: "Answers the first keys of a range with version and digest, as they were at a mark.",
        arguments: RANGE,
        run: |client, request| in_range(client, request, pairs),
        ..OWN
    },
];

fn status(client: &mut Client, _: &[Bytes]) -> Result<Action, CommandError> {
    let node = Arc::clone(&client.node);
    Action::later(async move {
        let json = serde_json::to_string(&NodeStatus::of(&node));
        json.map(Frame::text).map_err(|error| CommandError::other(format!("ERR {error}")))
    })
}

fn mark(client: &mut Client, _: &[Bytes]) -> Result<Action, CommandError> {
    let node = Arc::clone(&client.node);
    Action::later(async move {
        let index = node.backend.mark().await;
        Ok(index.map_or_else(|error| write_error(&node, error), |index| Frame::count(index.get())))
    })
}

fn mark_index(request: &[Bytes]) -> Result<Index, CommandError> {
    u64::try_from(integer(&request[1])?).map(Index::new).map_err(|_| CommandError::NotAnInteger)
}

/// What this node noted at the mark at `index`; `None` if it has not got there yet.
fn marked(node: &Node, index: Index) -> Result<Option<Mark<Store>>, CommandError> {
    if let Some(mark) = node.backend.marked(index) {
        return Ok(Some(mark));
    }
    // The node goes on meanwhile, hence asked in this order: a mark that has been applied has been noted.
    let applied = node.backend.status().applied;
    match node.backend.marked(index) {
        Some(mark) => Ok(Some(mark)),
        None if applied < index => Ok(None),
        None => Err(CommandError::other(format!(
            "NOMARK no mark is kept at index {index}: there was none, or many more have followed"
        ))),
    }
}

fn hash(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let audit = match &request[2..] {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"audit") => true,
        _ => return Err(CommandError::Syntax),
    };
    let (node, index) = (Arc::clone(&client.node), mark_index(request)?);
    Action::later(async move {
        let Some(mark) = marked(&node, index)? else { return Ok(Frame::Null) };
        if !audit {
            return Ok(Frame::Map(hash_fields(&mark)));
        }
        // Reads every stored byte: a matter of seconds for large states, hence not on the runtime's own threads.
        let audited = tokio::task::spawn_blocking(move || {
            let mut fields = hash_fields(&mark);
            fields.push((Frame::text("audit"), Frame::text(hex(&mark.view.digest_with(&mark.view.audit())))));
            Frame::Map(fields)
        });
        audited.await.map_err(|error| CommandError::other(format!("ERR the audit failed: {error}")))
    })
}

fn hash_fields(mark: &Mark<Store>) -> Vec<(Frame, Frame)> {
    vec![
        (Frame::text("index"), Frame::count(mark.index.get())),
        (Frame::text("hash"), Frame::text(hex(&mark.hash))),
        (Frame::text("replication"), Frame::text(hex(&mark.blob_hash))),
        (Frame::text("digest"), Frame::text(hex(&mark.view.digest()))),
        (Frame::text("keys"), Frame::count(mark.view.len())),
    ]
}

fn in_range(
    client: &mut Client,
    request: &[Bytes],
    answer: fn(&mut ReadView, &KeyRange) -> Frame,
) -> Result<Action, CommandError> {
    let range = match &request[2..] {
        [from] => KeyRange { from: from.clone(), to: None },
        [from, to] => KeyRange { from: from.clone(), to: Some(to.clone()) },
        _ => return Err(CommandError::Syntax),
    };
    let (node, index) = (Arc::clone(&client.node), mark_index(request)?);
    Action::later(async move {
        let mark = marked(&node, index)?;
        Ok(mark.map_or(Frame::Null, |mut mark| answer(&mut mark.view, &range)))
    })
}

fn digest(view: &mut ReadView, range: &KeyRange) -> Frame {
    let Ok(digest) = view.digest_of(range);
    Frame::Array(vec![Frame::count(digest.count), Frame::count(digest.bytes), Frame::text(digest.sum.to_string())])
}

fn split(view: &mut ReadView, range: &KeyRange) -> Frame {
    let Ok(key) = view.middle_of(range);
    key.map_or(Frame::Null, Frame::Bulk)
}

fn pairs(view: &mut ReadView, range: &KeyRange) -> Frame {
    let Ok(pairs) = view.pairs_of(range);
    Frame::Array(pairs.into_iter().map(pair_summary).collect())
}

/// Version and sum are what `kv_store::diff` compares.
fn pair_summary(pair: PairSummary) -> Frame {
    Frame::Array(vec![
        Frame::Bulk(pair.key),
        Frame::count(pair.version.index.get()),
        Frame::Integer(pair.version.op.into()),
        Frame::text(pair.contribution.to_string()),
    ])
}
