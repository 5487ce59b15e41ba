//! Commands on values.

use bytes::Bytes;
use kv_store::{Condition, Deadline, Op, Outcome, PutManyCondition};

use super::table::{Argument, Command, Keys, READ_FAST, WRITE, WRITE_FAST};
use super::{Action, CommandError, integer};
use crate::client::Client;
use crate::resp::Frame;

const READ_ONE: Command =
    Command { flags: READ_FAST, keys: Keys::ONE, group: "string", complexity: "O(log n)", ..Command::DEFAULT };
const WRITE_ONE: Command = Command { flags: WRITE_FAST, ..READ_ONE };

const KEY: Argument = Argument::key("key");
const VALUE: Argument = Argument::string("value");

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "get", arity: 2, summary: "Answers the value of a key.", arguments: &[KEY], run: get, ..READ_ONE },
    Command {
        name: "set",
        arity: -3,
        flags: WRITE,
        summary: "Sets the value of a key.",
        arguments: &[
            KEY,
            VALUE,
            Argument::one_of("condition", &[Argument::word("nx", "NX"), Argument::word("xx", "XX")]).optional(),
            Argument::word("get", "GET").optional(),
        ],
        run: set,
        ..WRITE_ONE
    },
    Command {
        name: "mget",
        arity: -2,
        keys: Keys::ALL,
        complexity: "O(k log n) for k keys",
        summary: "Answers the values of keys, all at one moment.",
        arguments: &[KEY.multiple()],
        run: mget,
        ..READ_ONE
    },
    Command {
        name: "mset",
        arity: -3,
        flags: WRITE,
        keys: Keys::PAIRS,
        since: "1.0.1",
        complexity: "O(k log n) for k keys",
        summary: "Sets the values of keys, all or none.",
        arguments: &[Argument::block("data", &[KEY, VALUE]).multiple()],
        run: mset,
        ..WRITE_ONE
    },
    Command {
        name: "append",
        arity: 3,
        since: "2.0.0",
        complexity: "O(log n + length of the new value)",
        summary: "Adds to the end of a value, and answers its new length.",
        arguments: &[KEY, VALUE],
        run: append,
        ..WRITE_ONE
    },
    Command {
        name: "strlen",
        arity: 2,
        since: "2.2.0",
        summary: "Answers the length of a value, in bytes.",
        arguments: &[KEY],
        run: strlen,
        ..READ_ONE
    },
    Command {
        name: "incr",
        arity: 2,
        summary: "Adds one to a number.",
        arguments: &[KEY],
        run: |_, request| increment(&request[1], 1),
        ..WRITE_ONE
    },
    Command {
        name: "decr",
        arity: 2,
        summary: "Subtracts one from a number.",
        arguments: &[KEY],
        run: |_, request| increment(&request[1], -1),
        ..WRITE_ONE
    },
    Command {
        name: "incrby",
        arity: 3,
        summary: "Adds to a number.",
        arguments: &[KEY, Argument::integer("increment")],
        run: |_, request| increment(&request[1], integer(&request[2])?),
        ..WRITE_ONE
    },
    Command {
        name: "decrby",
        arity: 3,
        summary: "Subtracts from a number.",
        arguments: &[KEY, Argument::integer("decrement")],
        run: decrby,
        ..WRITE_ONE
    },
];

fn get(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let key = request[1].clone();
    Ok(Action::read(1, move |view| value_or_null(view.get(&key).map(|pair| pair.value_bytes()))))
}

fn mget(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let keys = request[1..].to_vec();
    Ok(Action::read(keys.len(), move |view| {
        Frame::Array(keys.iter().map(|key| value_or_null(view.get(key).map(|pair| pair.value_bytes()))).collect())
    }))
}

fn strlen(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let key = request[1].clone();
    Ok(Action::read(1, move |view| Frame::count(view.get(&key).map_or(0, |pair| pair.value.len()))))
}

fn value_or_null(value: Option<Bytes>) -> Frame {
    value.map_or(Frame::Null, Frame::Bulk)
}

fn set(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let mut condition = Condition::Always;
    let mut want_previous = false;
    for option in &request[3..] {
        let given = match option.to_ascii_uppercase().as_slice() {
            b"GET" => {
                want_previous = true;
                continue;
            }
            b"NX" => Condition::IfAbsent,
            b"XX" => Condition::IfPresent,
            b"EX" | b"PX" | b"EXAT" | b"PXAT" | b"KEEPTTL" => {
                return Err(CommandError::other("ERR syntax error: this server has no expiry of keys yet"));
            }
            _ => return Err(CommandError::Syntax),
        };
        if condition != Condition::Always && condition != given {
            return Err(CommandError::Syntax);
        }
        condition = given;
    }
    let (key, value, deadline) = (&request[1], &request[2], Deadline::None);
    Action::write(&Op::Put { key, value, condition, deadline, want_previous }, reply_to_write)
}

fn mset(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let (pairs, []) = request[1..].as_chunks::<2>() else { return Err(CommandError::Arity("mset")) };
    let pairs = pairs.iter().map(|[key, value]| (&key[..], &value[..])).collect();
    Action::write(&Op::PutMany { pairs, condition: PutManyCondition::Always }, reply_to_write)
}

fn append(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    Action::write(&Op::Append { key: &request[1], value: &request[2] }, reply_to_write)
}

fn increment(key: &Bytes, by: i64) -> Result<Action, CommandError> {
    Action::write(&Op::Increment { key, by }, reply_to_write)
}

fn decrby(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let by = integer(&request[2])?.checked_neg();
    increment(&request[1], by.ok_or(CommandError::other("ERR decrement would overflow"))?)
}

/// Words an outcome as Redis words the reply of the command it came from: no two commands give one outcome another
/// meaning.
pub(super) fn reply_to_write(outcome: Outcome) -> Frame {
    match outcome {
        Outcome::Done => Frame::OK,
        Outcome::NotDone => Frame::Null,
        Outcome::Previous { value, .. } => value_or_null(value),
        Outcome::Count(count) | Outcome::Length(count) => Frame::count(count),
        Outcome::Integer(number) => Frame::Integer(number),
        Outcome::Decimal(number) => Frame::Bulk(number.to_string().into()),
        Outcome::Value(pair) => value_or_null(pair.map(|pair| pair.value)),
        Outcome::Pairs(pairs) => {
            let items = pairs.into_iter().flat_map(|(key, pair)| [key, pair.value]);
            Frame::Array(items.map(Frame::Bulk).collect())
        }
        Outcome::Transaction { outcomes, .. } => Frame::Array(outcomes.into_iter().map(reply_to_write).collect()),
        Outcome::Failed { outcome, .. } => reply_to_write(*outcome),
        Outcome::NotAnInteger => Frame::error("ERR value is not an integer or out of range"),
        Outcome::NotANumber => Frame::error("ERR value is not a valid float"),
        Outcome::NoSource => Frame::error("ERR no such key"),
        Outcome::OutOfMemory => Frame::error("OOM command not allowed when used memory > 'maxmemory'."),
        Outcome::Overflow => Frame::error("ERR increment or decrement would overflow"),
        Outcome::TooLarge => Frame::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        Outcome::Invalid => Frame::error("ERR the replicas do not know this operation; nothing was written"),
    }
}
