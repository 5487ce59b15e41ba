//! Reads requests from a byte stream.
//!
//! ```text
//! *2\r\n $3\r\n GET\r\n $1\r\n k\r\n        an array of bulk strings: what programs send
//! GET k\r\n                                 a line: what people type
//! ```
//!
//! The decoder keeps the arguments it has, so that no byte is looked at twice however the stream is cut, except in a
//! header line that is not complete yet. An argument is split off the read buffer and shares its memory. Every length
//! is checked against its limit before memory is taken for it, and a claimed length takes none: the buffer grows with
//! the bytes that arrive.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio_util::codec::Decoder;

use super::inline::split_words;
use super::parse_integer;

/// Longest argument, in bytes. Above the largest value by enough for a value that is too long to be refused by the
/// command, with the connection kept.
pub const BULK_BYTES_MAX: usize = (16 << 20) + (64 << 10);
/// Most arguments of one request.
pub const ARGUMENTS_COUNT_MAX: usize = 1 << 20;
/// Longest header line or inline request, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of all arguments of one request together.
pub const REQUEST_BYTES_MAX: usize = 48 << 20;

/// How much the read buffer may be enlarged ahead of the bytes of a long argument.
const RESERVE_BYTES_MAX: usize = 256 << 10;

/// What a client did that is no RESP. The text is the one of Redis where Redis has one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A line without end.
    #[error("too big inline request")]
    InlineTooLong,
    /// Quotes that do not match.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The line after `*` has no end.
    #[error("too big mbulk count string")]
    CountTooLong,
    /// What follows `*` is no number, or above [`ARGUMENTS_COUNT_MAX`].
    #[error("invalid multibulk length")]
    InvalidCount,
    /// The line after `$` has no end.
    #[error("too big bulk count string")]
    BulkHeaderTooLong,
    /// An argument does not begin with `$`.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    NotBulk(u8),
    /// What follows `$` is no number, or above [`BULK_BYTES_MAX`], or does not match the bytes.
    #[error("invalid bulk length")]
    InvalidBulkLength,
    /// The arguments are longer than [`REQUEST_BYTES_MAX`] together.
    #[error("too big request")]
    RequestTooLong,
}

/// Why there are no more requests.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The client broke the protocol: it is told so, and the connection ends.
    #[error("Protocol error: {0}")]
    Protocol(#[from] ProtocolError),
    /// The connection broke.
    #[error(transparent)]
    Connection(#[from] std::io::Error),
}

/// Decodes requests: the name of a command and its arguments, at least one item.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    partial: Option<Partial>,
}

/// An array whose last arguments are still to come.
#[derive(Debug)]
struct Partial {
    arguments: Vec<Bytes>,
    /// Arguments to come, the one at hand included.
    missing_count: usize,
    /// Bytes of the argument at hand, once its header has been read.
    bulk_bytes: Option<usize>,
    /// Bytes of all arguments announced so far.
    request_bytes: usize,
}

impl Decoder for RequestDecoder {
    type Item = Vec<Bytes>;
    type Error = RequestError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Vec<Bytes>>, RequestError> {
        loop {
            if let Some(partial) = &mut self.partial {
                if !partial.fill(source)? {
                    return Ok(None);
                }
                return Ok(self.partial.take().map(|complete| complete.arguments));
            }
            match source.first() {
                None => return Ok(None),
                Some(b'*') => match take_array_header(source)? {
                    None => return Ok(None),
                    Some(0) => {}
                    Some(count) => self.partial = Some(Partial::new(count)),
                },
                Some(_) => match take_inline(source)? {
                    None => return Ok(None),
                    Some(words) if words.is_empty() => {}
                    Some(words) => return Ok(Some(words)),
                },
            }
        }
    }

    /// A client may go away in the middle of a request; that is no error of anybody.
    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Vec<Bytes>>, RequestError> {
        self.decode(source)
    }
}

impl Partial {
    fn new(count: usize) -> Self {
        // A claimed count is cheap to send: take memory for few, let the vector grow with what arrives.
        let arguments = Vec::with_capacity(count.min(16));
        Partial { arguments, missing_count: count, bulk_bytes: None, request_bytes: 0 }
    }

    /// Takes what `source` has; whether the request is complete.
    fn fill(&mut self, source: &mut BytesMut) -> Result<bool, ProtocolError> {
        while self.missing_count > 0 {
            let bulk_bytes = match self.bulk_bytes {
                Some(bulk_bytes) => bulk_bytes,
                None => match self.take_bulk_header(source)? {
                    None => return Ok(false),
                    Some(bulk_bytes) => bulk_bytes,
                },
            };
            let needed = bulk_bytes + 2;
            if source.len() < needed {
                source.reserve((needed - source.len()).min(RESERVE_BYTES_MAX));
                return Ok(false);
            }
            let argument = source.split_to(bulk_bytes).freeze();
            if source[..2] != *b"\r\n" {
                return Err(ProtocolError::InvalidBulkLength);
            }
            source.advance(2);
            self.arguments.push(argument);
            self.bulk_bytes = None;
            self.missing_count -= 1;
        }
        Ok(true)
    }

    fn take_bulk_header(&mut self, source: &mut BytesMut) -> Result<Option<usize>, ProtocolError> {
        match source.first() {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::NotBulk(other)),
        }
        let Some(length) = take_header(source, ProtocolError::BulkHeaderTooLong, ProtocolError::InvalidBulkLength)?
        else {
            return Ok(None);
        };
        let bulk_bytes = usize::try_from(length).map_err(|_| ProtocolError::InvalidBulkLength)?;
        if bulk_bytes > BULK_BYTES_MAX {
            return Err(ProtocolError::InvalidBulkLength);
        }
        self.request_bytes += bulk_bytes;
        if self.request_bytes > REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooLong);
        }
        self.bulk_bytes = Some(bulk_bytes);
        Ok(Some(bulk_bytes))
    }
}

/// The count of an array; negative and zero mean no request at all, as in Redis.
fn take_array_header(source: &mut BytesMut) -> Result<Option<usize>, ProtocolError> {
    let Some(count) = take_header(source, ProtocolError::CountTooLong, ProtocolError::InvalidCount)? else {
        return Ok(None);
    };
    let count = usize::try_from(count).unwrap_or(0);
    if count > ARGUMENTS_COUNT_MAX {
        return Err(ProtocolError::InvalidCount);
    }
    Ok(Some(count))
}

/// Takes a line of one mark and a number.
fn take_header(
    source: &mut BytesMut,
    too_long: ProtocolError,
    invalid: ProtocolError,
) -> Result<Option<i64>, ProtocolError> {
    let window = &source[..source.len().min(LINE_BYTES_MAX)];
    let Some(line_bytes) = window.iter().position(|byte| *byte == b'\n') else {
        return if source.len() >= LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
    };
    let number = match &source[1..line_bytes.max(1)] {
        [digits @ .., b'\r'] => parse_integer(digits),
        _ => None,
    };
    source.advance(line_bytes + 1);
    number.map(Some).ok_or(invalid)
}

fn take_inline(source: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let window = &source[..source.len().min(LINE_BYTES_MAX)];
    let Some(line_bytes) = window.iter().position(|byte| *byte == b'\n') else {
        return if source.len() >= LINE_BYTES_MAX { Err(ProtocolError::InlineTooLong) } else { Ok(None) };
    };
    let words = split_words(&source[..line_bytes]).ok_or(ProtocolError::UnbalancedQuotes)?;
    source.advance(line_bytes + 1);
    Ok(Some(words))
}

#[cfg(test)]
mod tests;
