//! Commands about the connection itself.

use bytes::Bytes;
use kv_repl::Role;

use super::table::{ANY_TIME, ANY_TIME_FAST, Argument, Command, help};
use super::{Action, CommandError, integer, quote};
use crate::client::Client;
use crate::resp::{Frame, Protocol, parse_integer};
use crate::{REDIS_VERSION, SERVER_NAME};

const CONNECTION: Command = Command { group: "connection", flags: ANY_TIME_FAST, ..Command::DEFAULT };

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        arity: -1,
        summary: "Answers PONG, or the message.",
        arguments: &[Argument::string("message").optional()],
        run: ping,
        ..CONNECTION
    },
    Command {
        name: "echo",
        arity: 2,
        summary: "Answers the message.",
        arguments: &[Argument::string("message")],
        run: |_, request| Ok(Action::Reply(Frame::Bulk(request[1].clone()))),
        ..CONNECTION
    },
    Command {
        name: "quit",
        arity: -1,
        summary: "Closes the connection.",
        run: |_, _| Ok(Action::Close(Frame::OK)),
        ..CONNECTION
    },
    Command {
        name: "select",
        arity: 2,
        summary: "Chooses the database; there is only number 0.",
        arguments: &[Argument::integer("index")],
        run: select,
        ..CONNECTION
    },
    Command {
        name: "hello",
        arity: -1,
        since: "6.0.0",
        summary: "Chooses the version of the protocol and tells about the server.",
        arguments: &[
            Argument::integer("protover").optional(),
            Argument::block("auth", &[Argument::string("username"), Argument::string("password")])
                .after("AUTH")
                .optional(),
            Argument::string("clientname").after("SETNAME").optional(),
        ],
        run: hello,
        ..CONNECTION
    },
    Command {
        name: "auth",
        arity: -2,
        summary: "Refused: no password is configured.",
        arguments: &[Argument::string("username").optional(), Argument::string("password")],
        run: |_, _| Err(no_password()),
        ..CONNECTION
    },
    Command {
        name: "reset",
        since: "6.2.0",
        summary: "Gives the connection the state of a new one.",
        run: reset,
        ..CONNECTION
    },
    Command {
        name: "client",
        arity: -2,
        flags: &[],
        since: "2.4.0",
        summary: "Commands about connections.",
        subcommands: CLIENT,
        ..CONNECTION
    },
];

const CLIENT_SUB: Command = Command { flags: ANY_TIME, ..CONNECTION };

const CLIENT: &[Command] = &[
    Command {
        name: "client|id",
        arity: 2,
        since: "5.0.0",
        summary: "Answers the number of the connection.",
        run: |client, _| Ok(Action::Reply(Frame::count(client.id))),
        ..CLIENT_SUB
    },
    Command {
        name: "client|getname",
        arity: 2,
        since: "2.6.9",
        summary: "Answers the name of the connection.",
        run: |client, _| Ok(Action::Reply(client.name.clone().map_or(Frame::Null, Frame::Bulk))),
        ..CLIENT_SUB
    },
    Command {
        name: "client|setname",
        arity: 3,
        since: "2.6.9",
        summary: "Gives the connection a name.",
        arguments: &[Argument::string("connection-name")],
        run: |client, request| {
            set_name(client, &request[2])?;
            Ok(Action::Reply(Frame::OK))
        },
        ..CLIENT_SUB
    },
    Command {
        name: "client|setinfo",
        arity: 4,
        since: "7.2.0",
        summary: "Tells the server which library the client uses.",
        arguments: &[Argument::one_of(
            "attr",
            &[Argument::string("libname").after("LIB-NAME"), Argument::string("libver").after("LIB-VER")],
        )],
        run: set_info,
        ..CLIENT_SUB
    },
    Command { name: "client|help", arity: 2, since: "5.0.0", summary: "Answers this text.", run: help, ..CLIENT_SUB },
];

fn ping(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    match request {
        [_] => Ok(Action::Reply(Frame::Simple("PONG".into()))),
        [_, message] => Ok(Action::Reply(Frame::Bulk(message.clone()))),
        _ => Err(CommandError::Arity("ping")),
    }
}

fn select(_: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    match integer(&request[1])? {
        0 => Ok(Action::Reply(Frame::OK)),
        _ => Err(CommandError::other("ERR DB index is out of range")),
    }
}

/// What Redis says without a password; clients that have one configured know the text and go on.
fn no_password() -> CommandError {
    CommandError::other(
        "ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?",
    )
}

/// Changes nothing unless all of the request is good.
fn hello(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let protocol = match request.get(1) {
        None => client.protocol,
        Some(version) => match parse_integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(CommandError::other("NOPROTO unsupported protocol version")),
            None => return Err(CommandError::other("ERR Protocol version is not an integer or out of range")),
        },
    };
    let mut name = None;
    let mut options = request.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [_, _, ..] if option.eq_ignore_ascii_case(b"AUTH") => return Err(no_password()),
            [new_name, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(new_name);
                rest
            }
            _ => return Err(CommandError::other(format!("ERR Syntax error in HELLO option '{}'", quote(option, 128)))),
        };
    }
    if let Some(name) = name {
        set_name(client, name)?;
    }
    client.protocol = protocol;
    Ok(Action::Reply(greeting(client)))
}

/// Some clients read this by position: nothing may be inserted, only appended.
fn greeting(client: &Client) -> Frame {
    let role = if client.node.backend.status().role == Role::Leader { "master" } else { "replica" };
    Frame::map([
        ("server", Frame::text(SERVER_NAME)),
        ("version", Frame::text(REDIS_VERSION)),
        ("proto", Frame::Integer(client.protocol.number())),
        ("id", Frame::count(client.id)),
        ("mode", Frame::text("standalone")),
        ("role", Frame::text(role)),
        ("modules", Frame::Array(Vec::new())),
        ("kv_version", Frame::text(env!("CARGO_PKG_VERSION"))),
    ])
}

fn reset(client: &mut Client, _: &[Bytes]) -> Result<Action, CommandError> {
    client.protocol = Protocol::Resp2;
    client.name = None;
    Ok(Action::Reply(Frame::Simple("RESET".into())))
}

/// Names and library texts go into lists that are split at blanks.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn set_name(client: &mut Client, name: &Bytes) -> Result<(), CommandError> {
    if !is_plain(name) {
        return Err(CommandError::other("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    // Copied, because a slice would keep the whole read buffer in memory as long as the connection lives.
    client.name = (!name.is_empty()).then(|| Bytes::copy_from_slice(name));
    Ok(())
}

fn set_info(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let (attribute, value) = (&request[2], &request[3]);
    let (name, field) = if attribute.eq_ignore_ascii_case(b"lib-name") {
        ("lib-name", &mut client.library_name)
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        ("lib-ver", &mut client.library_version)
    } else {
        return Err(CommandError::other(format!("ERR Unrecognized option '{}'", quote(attribute, 128))));
    };
    if !is_plain(value) {
        return Err(CommandError::other(format!("ERR {name} cannot contain spaces, newlines or special characters.")));
    }
    *field = Bytes::copy_from_slice(value);
    Ok(Action::Reply(Frame::OK))
}
