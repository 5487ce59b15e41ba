//! Replies and their bytes.
//!
//! One [`Frame`] serves both versions of the protocol. What version 2 has no form for is written as clients of that
//! version expect it: a map as an array of alternating keys and values, a set as an array, null as the null bulk string.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_util::codec::Encoder;

/// Version of the protocol that a connection speaks. Connections begin with 2 and change it with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A short text such as `OK`.
    Simple(Cow<'static, str>),
    /// A refusal. The first word is the code that clients look at.
    Error(Cow<'static, str>),
    /// A signed number.
    Integer(i64),
    /// Bytes of any kind.
    Bulk(Bytes),
    /// Nothing there.
    Null,
    /// A sequence.
    Array(Vec<Frame>),
    /// Members in no particular order.
    Set(Vec<Frame>),
    /// Keys with values, in the order given.
    Map(Vec<(Frame, Frame)>),
}

impl Protocol {
    /// The number clients know it by.
    pub fn number(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

impl Frame {
    /// `+OK`.
    pub const OK: Frame = Frame::Simple(Cow::Borrowed("OK"));

    /// A bulk string that holds a text.
    pub fn text(text: impl Into<String>) -> Frame {
        Frame::Bulk(Bytes::from(text.into()))
    }

    /// A refusal with this text, code first.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Frame {
        Frame::Error(text.into())
    }

    /// A number; what does not fit is shown as the greatest that does.
    pub fn count(count: impl TryInto<i64>) -> Frame {
        Frame::Integer(count.try_into().unwrap_or(i64::MAX))
    }

    /// A map with texts for keys.
    pub fn map<const N: usize>(pairs: [(&'static str, Frame); N]) -> Frame {
        Frame::Map(
            pairs.into_iter().map(|(key, value)| (Frame::Bulk(Bytes::from_static(key.as_bytes())), value)).collect(),
        )
    }

    /// Writes the frame at the end of `out`.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Frame::Simple(text) => put_line(out, b'+', text),
            Frame::Error(text) => put_line(out, b'-', text),
            Frame::Integer(number) => put_number(out, b':', *number),
            Frame::Bulk(bytes) => put_bulk(out, bytes),
            Frame::Null if protocol == Protocol::Resp3 => out.put_slice(b"_\r\n"),
            Frame::Null => out.put_slice(b"$-1\r\n"),
            Frame::Array(items) => put_items(out, b'*', items, protocol),
            Frame::Set(items) => put_items(out, if protocol == Protocol::Resp3 { b'~' } else { b'*' }, items, protocol),
            Frame::Map(pairs) => put_map(out, pairs, protocol),
        }
    }

    /// Writes what comes before the items of an array with this many of them, so that a long one can be sent in pieces.
    pub(crate) fn encode_array_header(count: usize, out: &mut BytesMut) {
        put_number(out, b'*', count as i64);
    }
}

/// Writes replies of one connection, in the version of the protocol given with each.
#[derive(Debug, Default)]
pub struct ReplyEncoder;

impl Encoder<(Frame, Protocol)> for ReplyEncoder {
    type Error = std::io::Error;

    fn encode(&mut self, (frame, protocol): (Frame, Protocol), out: &mut BytesMut) -> Result<(), Self::Error> {
        frame.encode(protocol, out);
        Ok(())
    }
}

/// A line must stay a line, also when it quotes what a client sent.
fn put_line(out: &mut BytesMut, mark: u8, text: &str) {
    out.reserve(text.len() + 3);
    out.put_u8(mark);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.put_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, mark: u8, number: i64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.reserve(24);
    out.put_u8(mark);
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[start..]);
    out.put_slice(b"\r\n");
}

fn put_bulk(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, b'$', bytes.len() as i64);
    out.reserve(bytes.len() + 2);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn put_items(out: &mut BytesMut, mark: u8, items: &[Frame], protocol: Protocol) {
    put_number(out, mark, items.len() as i64);
    for item in items {
        item.encode(protocol, out);
    }
}

fn put_map(out: &mut BytesMut, pairs: &[(Frame, Frame)], protocol: Protocol) {
    match protocol {
        Protocol::Resp3 => put_number(out, b'%', pairs.len() as i64),
        Protocol::Resp2 => put_number(out, b'*', 2 * pairs.len() as i64),
    }
    for (key, value) in pairs {
        key.encode(protocol, out);
        value.encode(protocol, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(frame: Frame, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = BytesMut::new();
            frame.encode(protocol, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected, "{protocol:?}");
        }
    }

    #[test]
    fn every_kind_in_both_versions() {
        check(Frame::OK, "+OK\r\n", "+OK\r\n");
        check(Frame::error("ERR no"), "-ERR no\r\n", "-ERR no\r\n");
        check(Frame::Integer(-10), ":-10\r\n", ":-10\r\n");
        check(Frame::text("hi"), "$2\r\nhi\r\n", "$2\r\nhi\r\n");
        check(Frame::Null, "$-1\r\n", "_\r\n");
        check(Frame::Array(vec![Frame::Integer(1), Frame::Null]), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n");
        check(Frame::Set(vec![Frame::Integer(1)]), "*1\r\n:1\r\n", "~1\r\n:1\r\n");
        check(Frame::map([("a", Frame::Integer(1))]), "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n");
    }

    #[test]
    fn a_quoted_line_break_does_not_end_the_line() {
        check(Frame::error("ERR 'a\r\n+OK'"), "-ERR 'a  +OK'\r\n", "-ERR 'a  +OK'\r\n");
    }

    proptest! {
        #[test]
        fn numbers_are_decimal(number in any::<i64>()) {
            let mut out = BytesMut::new();
            Frame::Integer(number).encode(Protocol::Resp2, &mut out);
            prop_assert_eq!(out, format!(":{number}\r\n"));
        }
    }
}
