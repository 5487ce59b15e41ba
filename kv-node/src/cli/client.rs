//! A small client for the operator's commands: one connection, one request at a time, every wait with a limit.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::resp::{BULK_BYTES_MAX, Frame, parse_integer};

/// How long a connection may take to open.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Longest line of a reply, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Most items of an array.
const ITEMS_COUNT_MAX: usize = 1 << 20;
/// Arrays within arrays.
const DEPTH_MAX: usize = 8;

/// A connection to a node.
#[derive(Debug)]
pub struct Client {
    address: String,
    stream: BufReader<TcpStream>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The node could not be reached, or fell silent.
    #[error("{address}: {source}")]
    Connection {
        /// The node.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// The node refused.
    #[error("{address} answered: {text}")]
    Refused {
        /// The node.
        address: String,
        /// Its words, code first.
        text: String,
    },
    /// What came back is no answer to what was asked.
    #[error("{address} answered something that makes no sense: {what}; is it a kv-node?")]
    Nonsense {
        /// The node.
        address: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Client {
    /// Connects to `address`, such as `127.0.0.1:7001`. An answer may take `answer_time_max`.
    ///
    /// # Errors
    ///
    /// The address means nothing, or nobody listens there.
    pub fn connect(address: &str, answer_time_max: Duration) -> Result<Client, ClientError> {
        let failed = |source| ClientError::Connection { address: address.to_owned(), source };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the address has no meaning");
        for resolved in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIME_MAX) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    stream.set_read_timeout(Some(answer_time_max)).map_err(failed)?;
                    stream.set_write_timeout(Some(answer_time_max)).map_err(failed)?;
                    return Ok(Client { address: address.to_owned(), stream: BufReader::new(stream) });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Where the client is connected.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    ///
    /// The node refused, or gave no answer or none that makes sense.
    pub fn call<A: AsRef<[u8]>>(&mut self, request: &[A]) -> Result<Frame, ClientError> {
        let mut out = format!("*{}\r\n", request.len()).into_bytes();
        for argument in request {
            let argument = argument.as_ref();
            out.extend(format!("${}\r\n", argument.len()).into_bytes());
            out.extend(argument);
            out.extend(b"\r\n");
        }
        let reply = self.stream.get_mut().write_all(&out).map_err(ReplyError::from).and_then(|()| self.reply(0));
        match reply {
            Ok(Frame::Error(text)) => {
                Err(ClientError::Refused { address: self.address.clone(), text: text.into_owned() })
            }
            Ok(frame) => Ok(frame),
            Err(ReplyError::Connection(source)) => {
                Err(ClientError::Connection { address: self.address.clone(), source })
            }
            Err(ReplyError::Nonsense(what)) => Err(self.nonsense(what)),
        }
    }

    /// The error for a reply of another shape than the request has.
    pub(super) fn nonsense(&self, what: &'static str) -> ClientError {
        ClientError::Nonsense { address: self.address.clone(), what }
    }

    fn reply(&mut self, depth: usize) -> Result<Frame, ReplyError> {
        let line = self.line()?;
        let (mark, rest) = line.split_first().ok_or(ReplyError::Nonsense("an empty line"))?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        let number = || parse_integer(rest).ok_or(ReplyError::Nonsense("no number where one belongs"));
        match mark {
            b'+' => Ok(Frame::Simple(text().into())),
            b'-' => Ok(Frame::Error(text().into())),
            b':' => number().map(Frame::Integer),
            b'$' => self.bulk(number()?),
            b'*' if depth < DEPTH_MAX => self.array(number()?, depth),
            _ => Err(ReplyError::Nonsense("no RESP2")),
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, ReplyError> {
        let mut line = Vec::new();
        self.stream.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed").into());
        }
        line.strip_suffix(b"\r\n").map(<[u8]>::to_vec).ok_or(ReplyError::Nonsense("a line without end"))
    }

    fn bulk(&mut self, bytes_count: i64) -> Result<Frame, ReplyError> {
        let Ok(bytes_count) = usize::try_from(bytes_count) else { return Ok(Frame::Null) };
        if bytes_count > BULK_BYTES_MAX {
            return Err(ReplyError::Nonsense("a string above the limit"));
        }
        let mut bytes = vec![0; bytes_count + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(bytes_count);
        Ok(Frame::Bulk(Bytes::from(bytes)))
    }

    fn array(&mut self, count: i64, depth: usize) -> Result<Frame, ReplyError> {
        let Ok(count) = usize::try_from(count) else { return Ok(Frame::Null) };
        if count > ITEMS_COUNT_MAX {
            return Err(ReplyError::Nonsense("an array above the limit"));
        }
        (0..count).map(|_| self.reply(depth + 1)).collect::<Result<_, _>>().map(Frame::Array)
    }
}

enum ReplyError {
    Connection(io::Error),
    Nonsense(&'static str),
}

impl From<io::Error> for ReplyError {
    fn from(error: io::Error) -> Self {
        // The words of the operating system for a time limit are of no help to anybody.
        let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        ReplyError::Connection(if timed_out { silent() } else { error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// What a client makes of these bytes.
    fn answer(bytes: &'static [u8]) -> Result<Frame, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 14];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"*1\r\n$4\r\nPING\r\n");
            stream.write_all(bytes).unwrap();
        });
        let answer = Client::connect(&address, Duration::from_secs(10)).unwrap().call(&["PING"]);
        server.join().unwrap();
        answer
    }

    #[test]
    fn every_kind_of_reply() {
        assert_eq!(answer(b"+PONG\r\n").unwrap(), Frame::Simple("PONG".into()));
        assert_eq!(answer(b":-5\r\n").unwrap(), Frame::Integer(-5));
        assert_eq!(answer(b"$-1\r\n").unwrap(), Frame::Null);
        assert_eq!(answer(b"*-1\r\n").unwrap(), Frame::Null);
        let nested = Frame::Array(vec![Frame::Bulk(Bytes::from_static(b"a\r\n")), Frame::Array(vec![])]);
        assert_eq!(answer(b"*2\r\n$3\r\na\r\n\r\n*0\r\n").unwrap(), nested);
        assert!(matches!(answer(b"-ERR no\r\n"), Err(ClientError::Refused { text, .. }) if text == "ERR no"));
    }

    #[test]
    fn nonsense_is_told_apart_from_silence() {
        for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b":x\r\n", b"$99999999999\r\n", b"\r\n", b"+x"] {
            assert!(matches!(answer(bytes), Err(ClientError::Nonsense { .. })), "{}", bytes.escape_ascii());
        }
        let deep: &[u8] = b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n";
        assert!(matches!(answer(deep), Err(ClientError::Nonsense { .. })));
        assert!(matches!(answer(b""), Err(ClientError::Connection { .. })));
        assert!(matches!(answer(b"$5\r\nab"), Err(ClientError::Connection { .. })));
    }
}
