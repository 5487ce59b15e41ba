//! `COMMAND`: the table, told to clients. They find the keys of a request with it, and interactive ones their hints.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::table::{ANY_TIME, Argument, Command, commands, count, find_any, help, resolve};
use super::{Action, CommandError, glob};
use crate::client::Client;
use crate::resp::Frame;

const SERVER: Command = Command { flags: ANY_TIME, group: "server", since: "2.8.13", ..Command::DEFAULT };

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "command",
    arity: -1,
    complexity: "O(commands)",
    summary: "Answers what is known of every command.",
    run: |_, _| Ok(Action::Reply(Frame::Array(commands().map(info).collect()))),
    subcommands: &[
        Command {
            name: "command|count",
            arity: 2,
            summary: "Answers how many commands there are.",
            run: |_, _| Ok(Action::Reply(Frame::count(count()))),
            ..SERVER
        },
        Command {
            name: "command|info",
            arity: -2,
            summary: "Answers what is known of some commands, or of all.",
            arguments: &[Argument::string("command-name").optional_multiple()],
            run: |_, request| Ok(Action::Reply(Frame::Array(named(request).map(info_or_null).collect()))),
            ..SERVER
        },
        Command {
            name: "command|docs",
            arity: -2,
            since: "7.0.0",
            summary: "Answers the documentation of some commands, or of all.",
            arguments: &[Argument::string("command-name").optional_multiple()],
            run: |_, request| Ok(Action::Reply(Frame::Map(named(request).flatten().map(docs).collect()))),
            ..SERVER
        },
        Command {
            name: "command|list",
            arity: -2,
            since: "7.0.0",
            summary: "Answers the names of the commands.",
            arguments: &[Argument::one_of(
                "filterby",
                &[
                    Argument::string("module-name").after("MODULE"),
                    Argument::string("category").after("ACLCAT"),
                    Argument { kind: "pattern", ..Argument::string("pattern") }.after("PATTERN"),
                ],
            )
            .after("FILTERBY")
            .optional()],
            run: list,
            ..SERVER
        },
        Command {
            name: "command|getkeys",
            arity: -3,
            summary: "Answers the keys of a request.",
            arguments: &[Argument::string("command"), Argument::string("arg").optional_multiple()],
            run: get_keys,
            ..SERVER
        },
        Command { name: "command|help", arity: 2, since: "5.0.0", summary: "Answers this text.", run: help, ..SERVER },
    ],
    ..SERVER
}];

/// The commands a request names; all if it names none.
fn named(request: &[Bytes]) -> Box<dyn Iterator<Item = Option<&'static Command>> + '_> {
    match &request[2..] {
        [] => Box::new(commands().map(Some)),
        names => Box::new(names.iter().map(|name| find_any(name))),
    }
}

fn info_or_null(command: Option<&'static Command>) -> Frame {
    command.map_or(Frame::Null, info)
}

/// Ten fields, in the order of Redis 7.
fn info(command: &'static Command) -> Frame {
    Frame::Array(vec![
        Frame::text(command.name),
        Frame::Integer(command.arity.into()),
        words(command.flags.iter().copied()),
        Frame::count(command.keys.first),
        Frame::Integer(command.keys.last),
        Frame::count(command.keys.step),
        words(categories(command).iter().map(String::as_str)),
        Frame::Array(Vec::new()),
        Frame::Array(Vec::new()),
        Frame::Array(command.subcommands.iter().map(info).collect()),
    ])
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> Frame {
    Frame::Set(words.map(|word| Frame::Simple(word.to_owned().into())).collect())
}

/// As Redis derives them from the flags and the family.
fn categories(command: &Command) -> BTreeSet<String> {
    let family = match command.group {
        "generic" => "keyspace",
        "server" => "admin",
        other => other,
    };
    let speed = if command.flags.contains(&"fast") { "fast" } else { "slow" };
    let mut categories = BTreeSet::from([format!("@{family}"), format!("@{speed}")]);
    for (flag, category) in [("write", "@write"), ("readonly", "@read"), ("admin", "@dangerous")] {
        if command.flags.contains(&flag) {
            categories.insert(category.to_owned());
        }
    }
    categories
}

fn docs(command: &'static Command) -> (Frame, Frame) {
    let mut fields = vec![
        (Frame::text("summary"), Frame::text(command.summary)),
        (Frame::text("since"), Frame::text(command.since)),
        (Frame::text("group"), Frame::text(command.group)),
        (Frame::text("complexity"), Frame::text(command.complexity)),
    ];
    if !command.arguments.is_empty() {
        let arguments = command.arguments.iter().map(argument_docs).collect();
        fields.push((Frame::text("arguments"), Frame::Array(arguments)));
    }
    if !command.subcommands.is_empty() {
        fields.push((Frame::text("subcommands"), Frame::Map(command.subcommands.iter().map(docs).collect())));
    }
    (Frame::text(command.name), Frame::Map(fields))
}

fn argument_docs(argument: &Argument) -> Frame {
    let mut fields =
        vec![(Frame::text("name"), Frame::text(argument.name)), (Frame::text("type"), Frame::text(argument.kind))];
    if argument.kind == "key" {
        fields.push((Frame::text("key_spec_index"), Frame::Integer(0)));
    }
    if let Some(token) = argument.token {
        fields.push((Frame::text("token"), Frame::text(token)));
    }
    if !argument.flags.is_empty() {
        fields.push((Frame::text("flags"), words(argument.flags.iter().copied())));
    }
    if !argument.choices.is_empty() {
        let parts = argument.choices.iter().map(argument_docs).collect();
        fields.push((Frame::text("arguments"), Frame::Array(parts)));
    }
    Frame::Map(fields)
}

fn list(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let names = |wanted: &dyn Fn(&'static Command) -> bool| {
        Frame::Array(commands().filter(|command| wanted(command)).map(|command| Frame::text(command.name)).collect())
    };
    let names = match &request[2..] {
        [] => names(&|_| true),
        [by, kind, what] if by.eq_ignore_ascii_case(b"filterby") => {
            let what = what.to_ascii_lowercase();
            match kind.to_ascii_lowercase().as_slice() {
                b"module" => names(&|_| false),
                b"aclcat" => names(&|command| categories(command).iter().any(|c| c.as_bytes()[1..] == what)),
                b"pattern" => names(&|command| glob::matches(&what, command.name.as_bytes())),
                _ => return Err(CommandError::Syntax),
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Action::Reply(names))
}

fn get_keys(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let request = &request[2..];
    let command = resolve(request).map_err(|_| CommandError::other("ERR Invalid command specified"))?;
    if command.keys.first == 0 {
        return Err(CommandError::other("ERR The command has no key arguments"));
    }
    if !command.accepts(request.len()) {
        return Err(CommandError::other("ERR Invalid number of arguments specified for command"));
    }
    Ok(Action::Reply(Frame::Array(command.keys.of(request).cloned().map(Frame::Bulk).collect())))
}
