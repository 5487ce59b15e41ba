//! The one table of commands: it finds the handler, checks the number of arguments, and is what `COMMAND` tells
//! clients, so that what is documented is what is there.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;

use super::{Action, CommandError, Handler, admin, command_info, config, connection, info, keyspace, quote, string};
use crate::client::Client;
use crate::resp::Frame;

/// One row of the table.
pub(crate) struct Command {
    /// In lower case; a subcommand is `container|name`.
    pub(super) name: &'static str,
    /// Number of items of a request, the name included; negative: at least so many.
    pub(super) arity: i32,
    /// As Redis names them.
    pub(super) flags: &'static [&'static str],
    /// Which arguments are keys.
    pub(super) keys: Keys,
    /// Family, as Redis names it.
    pub(super) group: &'static str,
    /// What it does, in one sentence.
    pub(super) summary: &'static str,
    /// Version of Redis that had it first; for our own commands the version of this server.
    pub(super) since: &'static str,
    /// Cost, n being the number of keys stored.
    pub(super) complexity: &'static str,
    /// For the hints of interactive clients.
    pub(super) arguments: &'static [Argument],
    /// The handler.
    pub(super) run: Handler,
    /// Empty but for containers.
    pub(super) subcommands: &'static [Command],
}

/// Positions of the keys in a request.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    /// The first one; 0 if there is none.
    pub(super) first: usize,
    /// The last one; negative counts from the end.
    pub(super) last: i64,
    /// From one to the next.
    pub(super) step: usize,
}

/// One argument, or a choice of several.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) token: Option<&'static str>,
    pub(super) flags: &'static [&'static str],
    pub(super) choices: &'static [Argument],
}

pub(super) const WRITE: &[&str] = &["write", "denyoom"];
pub(super) const WRITE_FAST: &[&str] = &["write", "denyoom", "fast"];
pub(super) const REMOVE: &[&str] = &["write"];
pub(super) const READ: &[&str] = &["readonly"];
pub(super) const READ_FAST: &[&str] = &["readonly", "fast"];
pub(super) const ANY_TIME: &[&str] = &["loading", "stale"];
pub(super) const ANY_TIME_FAST: &[&str] = &["loading", "stale", "fast"];
pub(super) const ADMIN: &[&str] = &["admin", "loading", "stale"];

impl Keys {
    pub(super) const NONE: Keys = Keys { first: 0, last: 0, step: 0 };
    pub(super) const ONE: Keys = Keys { first: 1, last: 1, step: 1 };
    pub(super) const ALL: Keys = Keys { first: 1, last: -1, step: 1 };
    pub(super) const PAIRS: Keys = Keys { first: 1, last: -1, step: 2 };

    /// The keys of a request that the command accepts.
    pub(super) fn of<'a>(&self, request: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
        let last = if self.last < 0 { request.len() as i64 + self.last } else { self.last };
        let count = if self.first == 0 { 0 } else { usize::try_from(last + 1).unwrap_or(0) };
        request.iter().take(count).skip(self.first).step_by(self.step.max(1))
    }
}

impl Argument {
    const fn new(name: &'static str, kind: &'static str) -> Argument {
        Argument { name, kind, token: None, flags: &[], choices: &[] }
    }

    pub(super) const fn key(name: &'static str) -> Argument {
        Argument::new(name, "key")
    }

    pub(super) const fn string(name: &'static str) -> Argument {
        Argument::new(name, "string")
    }

    pub(super) const fn integer(name: &'static str) -> Argument {
        Argument::new(name, "integer")
    }

    /// A word that stands for itself.
    pub(super) const fn word(name: &'static str, token: &'static str) -> Argument {
        Argument { token: Some(token), ..Argument::new(name, "pure-token") }
    }

    pub(super) const fn one_of(name: &'static str, choices: &'static [Argument]) -> Argument {
        Argument { choices, ..Argument::new(name, "oneof") }
    }

    pub(super) const fn block(name: &'static str, parts: &'static [Argument]) -> Argument {
        Argument { choices: parts, ..Argument::new(name, "block") }
    }

    /// Preceded by a word.
    pub(super) const fn after(self, token: &'static str) -> Argument {
        Argument { token: Some(token), ..self }
    }

    pub(super) const fn optional(self) -> Argument {
        Argument { flags: &["optional"], ..self }
    }

    pub(super) const fn multiple(self) -> Argument {
        Argument { flags: &["multiple"], ..self }
    }

    pub(super) const fn optional_multiple(self) -> Argument {
        Argument { flags: &["optional", "multiple"], ..self }
    }
}

impl Command {
    /// What most rows have in common; a row overrides what it has not.
    pub(super) const DEFAULT: Command = Command {
        name: "",
        arity: 1,
        flags: &[],
        keys: Keys::NONE,
        group: "generic",
        summary: "",
        since: "1.0.0",
        complexity: "O(1)",
        arguments: &[],
        run: container,
        subcommands: &[],
    };

    /// Whether a request may have so many items.
    pub(super) fn accepts(&self, items_count: usize) -> bool {
        let needed = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { items_count >= needed } else { items_count == needed }
    }

    /// The name without the container's.
    fn own_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }
}

/// All commands, by family.
pub(super) fn commands() -> impl Iterator<Item = &'static Command> {
    const FAMILIES: [&[Command]; 7] = [
        connection::COMMANDS,
        command_info::COMMANDS,
        config::COMMANDS,
        info::COMMANDS,
        string::COMMANDS,
        keyspace::COMMANDS,
        admin::COMMANDS,
    ];
    static ALL: [&[Command]; 7] = FAMILIES;
    ALL.iter().copied().flatten()
}

/// How many commands there are; subcommands do not count.
pub(super) fn count() -> usize {
    commands().count()
}

/// Longest name that is looked up; longer ones exist in no table.
const NAME_BYTES_MAX: usize = 32;

/// The command of this name, in any case.
pub(super) fn find(name: &[u8]) -> Option<&'static Command> {
    static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Command>> =
        LazyLock::new(|| commands().map(|command| (command.name.as_bytes(), command)).collect());
    let mut lower = [0u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    BY_NAME.get(&lower[..]).copied()
}

/// The command of this name; `container|name` finds a subcommand.
pub(super) fn find_any(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|byte| *byte == b'|') {
        None => find(name),
        Some(bar) => find_subcommand(find(&name[..bar])?, &name[bar + 1..]),
    }
}

fn find_subcommand(container: &'static Command, name: &[u8]) -> Option<&'static Command> {
    container.subcommands.iter().find(|sub| sub.own_name().as_bytes().eq_ignore_ascii_case(name))
}

/// The row that a request is meant for.
pub(super) fn resolve(request: &[Bytes]) -> Result<&'static Command, CommandError> {
    let command = find(&request[0]).ok_or_else(|| CommandError::unknown(request))?;
    let Some(name) = request.get(1).filter(|_| !command.subcommands.is_empty()) else {
        return Ok(command);
    };
    find_subcommand(command, name).ok_or_else(|| CommandError::UnknownSubcommand {
        name: quote(name, 128),
        container: command.name.to_ascii_uppercase(),
    })
}

/// A container alone, which the number of arguments refuses already.
fn container(_: &mut Client, _: &[Bytes]) -> Result<Action, CommandError> {
    Err(CommandError::Syntax)
}

/// `X HELP`, from the table.
pub(super) fn help(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let container = find(&request[0]).ok_or_else(|| CommandError::unknown(request))?;
    let title = format!("{} <subcommand> [<arg> ...]. Subcommands are:", container.name.to_ascii_uppercase());
    let mut lines = vec![Frame::Simple(title.into())];
    for sub in container.subcommands {
        lines.push(Frame::Simple(sub.own_name().to_ascii_uppercase().into()));
        lines.push(Frame::Simple(format!("    {}", sub.summary).into()));
    }
    Ok(Action::Reply(Frame::Array(lines)))
}
