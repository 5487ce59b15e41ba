//! What clients can ask, one small file per family.
//!
//! A handler looks at the arguments and says what is to be done: an [`Action`]. It never waits and never touches the
//! replica's state itself, so the session is free to run many actions as one: writes that follow each other become one
//! batch in the log, reads that follow each other share one barrier.

mod admin;
mod command_info;
mod config;
mod connection;
mod glob;
mod info;
mod keyspace;
mod scan;
mod string;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_store::{Op, OpError, Outcome, ReadView};
use thiserror::Error;

pub(crate) use scan::Cursors;

use crate::client::Client;
use crate::resp::{Frame, parse_integer};

/// What the session has to do for a command.
pub(crate) enum Action {
    /// Answer at once.
    Reply(Frame),
    /// Replicate an op and answer with what became of it.
    Write {
        /// The encoded op.
        op: Bytes,
        /// Words the outcome for the client.
        reply: fn(Outcome) -> Frame,
    },
    /// Look at the state, after a barrier.
    Read {
        /// How many keys it may look at: long reads use a view of their own, so that they do not hold up apply.
        keys_count: usize,
        /// Looks.
        run: Box<dyn FnOnce(&ReadView) -> Frame + Send>,
    },
    /// Answer when this is done. It begins when everything before it is done, so what it finds at the node includes the
    /// writes that the client sent before it.
    Later(BoxFuture<'static, Frame>),
    /// Answer and end the connection.
    Close(Frame),
}

impl Action {
    fn write(op: &Op<'_>, reply: fn(Outcome) -> Frame) -> Result<Action, CommandError> {
        Ok(Action::Write { op: op.encode()?.into(), reply })
    }

    fn later(
        answer: impl Future<Output = Result<Frame, CommandError>> + Send + 'static,
    ) -> Result<Action, CommandError> {
        Ok(Action::Later(Box::pin(async move { answer.await.unwrap_or_else(CommandError::into_frame) })))
    }

    fn read(keys_count: usize, run: impl FnOnce(&ReadView) -> Frame + Send + 'static) -> Action {
        Action::Read { keys_count, run: Box::new(run) }
    }
}

/// A command that is not carried out, in the words clients know. The connection goes on.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum CommandError {
    /// No such command.
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    Unknown {
        /// As the client wrote it, cut to a sensible length.
        name: String,
        /// The first arguments, quoted.
        arguments: String,
    },
    /// No such subcommand.
    #[error("ERR unknown subcommand '{name}'. Try {container} HELP.")]
    UnknownSubcommand {
        /// As the client wrote it.
        name: String,
        /// The command it was meant for, in capitals.
        container: String,
    },
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// Options that do not exist or do not go together.
    #[error("ERR syntax error")]
    Syntax,
    /// Not a decimal 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// Above a limit of the store.
    #[error("ERR {0}")]
    Op(#[from] OpError),
    /// Anything else that a single command says.
    #[error("{0}")]
    Other(Cow<'static, str>),
}

impl CommandError {
    fn other(text: impl Into<Cow<'static, str>>) -> Self {
        CommandError::Other(text.into())
    }

    fn into_frame(self) -> Frame {
        Frame::error(self.to_string())
    }

    fn unknown(request: &[Bytes]) -> Self {
        // As much of the request as Redis quotes: 128 bytes of the name, 128 of the arguments.
        let mut arguments = String::new();
        for argument in &request[1..] {
            if arguments.len() >= 128 {
                break;
            }
            arguments.push_str(&format!("'{}' ", quote(argument, 128 - arguments.len())));
        }
        CommandError::Unknown { name: quote(&request[0], 128), arguments }
    }
}

/// The first bytes of what a client sent, for an error text.
fn quote(text: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(&text[..text.len().min(bytes_max)]).into_owned()
}

type Handler = fn(&mut Client, &[Bytes]) -> Result<Action, CommandError>;

/// Finds the command of a request, which has at least one item, and asks it what to do.
pub(crate) fn dispatch(client: &mut Client, request: &[Bytes]) -> Action {
    run(client, request).unwrap_or_else(|error| Action::Reply(error.into_frame()))
}

fn run(client: &mut Client, request: &[Bytes]) -> Result<Action, CommandError> {
    let command = table::resolve(request)?;
    if !command.accepts(request.len()) {
        return Err(CommandError::Arity(command.name));
    }
    (command.run)(client, request)
}

fn integer(argument: &[u8]) -> Result<i64, CommandError> {
    parse_integer(argument).ok_or(CommandError::NotAnInteger)
}
