//! Reads a checkpoint and believes nothing of it: checksums, limits, order, count, sum and hash, and the end.
//!
//! Memory is taken for what has arrived, not for what a length field claims.

use std::io::{self, BufReader, Read};

use bytes::Bytes;

use super::format::{self, BLOB_BYTES_MAX, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, FOOTER_BODY_BYTES, Kind};
use super::{CheckpointError, CheckpointMeta, Part};
use crate::read_view::ReadView;
use crate::store::Store;
use crate::tree::Builder;
use crate::wire::Reader;

/// Taken from the input at once.
const INPUT_BYTES: usize = 128 << 10;

/// Reads a checkpoint to the end of `input` and verifies every byte of it.
///
/// # Errors
///
/// Reading failed, the stream is not a whole and undamaged checkpoint, or its format is not known to this build.
pub fn read(input: &mut dyn Read) -> Result<(Store, CheckpointMeta), CheckpointError> {
    let mut input = Input(BufReader::with_capacity(INPUT_BYTES, input));
    let header = input.array()?;
    let (last, empty) = format::read_header(&header)?;
    let builder = Builder::new(Some(empty.secret().clone()));
    let mut content = Content { empty, blob: Vec::new(), builder };
    let mut body = Vec::new();
    let mut before = Kind::Blob;
    for part in (0..).map(Part::Block) {
        let malformed = || CheckpointError::Malformed { part };
        let kind = Kind::of_byte(input.array::<1>()?[0]).ok_or_else(malformed)?;
        match (before, kind) {
            (_, Kind::Footer) => break,
            (Kind::Blob, Kind::Blob) | (_, Kind::Pairs) => input.block(part, kind, &mut body)?,
            _ => return Err(malformed()),
        }
        content.take(part, kind, &body)?;
        before = kind;
    }
    let footer = input.array::<FOOTER_BODY_BYTES>()?;
    if input.array()? != format::hash(&header, &content.blob, &footer) {
        return Err(CheckpointError::Hash);
    }
    input.end()?;
    content.finish(&footer).map(|(store, blob)| (store, CheckpointMeta { last, blob }))
}

/// What has been read so far.
struct Content {
    /// The state without its pairs.
    empty: ReadView,
    blob: Vec<u8>,
    builder: Builder,
}

impl Content {
    fn take(&mut self, part: Part, kind: Kind, body: &[u8]) -> Result<(), CheckpointError> {
        match kind {
            Kind::Blob => self.take_blob(part, body),
            Kind::Pairs => self.take_pairs(part, body),
            Kind::Footer => unreachable!("the footer is no block"),
        }
    }

    fn take_blob(&mut self, part: Part, piece: &[u8]) -> Result<(), CheckpointError> {
        if self.blob.len() + piece.len() > BLOB_BYTES_MAX {
            return Err(CheckpointError::Malformed { part });
        }
        self.blob.extend_from_slice(piece);
        Ok(())
    }

    fn take_pairs(&mut self, part: Part, body: &[u8]) -> Result<(), CheckpointError> {
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            let (key, pair) = format::read_pair(&mut reader).ok_or(CheckpointError::Malformed { part })?;
            if self.builder.last_key().is_some_and(|last| last >= key) {
                return Err(CheckpointError::Order { part });
            }
            self.builder.push(key, &pair);
        }
        Ok(())
    }

    fn finish(self, footer: &[u8; FOOTER_BODY_BYTES]) -> Result<(Store, Bytes), CheckpointError> {
        let tree = self.builder.finish();
        format::check_footer(footer, &tree.total())?;
        Ok((Store::of_state(ReadView { tree, ..self.empty }), Bytes::from(self.blob)))
    }
}

struct Input<'a>(BufReader<&'a mut dyn Read>);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the rest of a block of this kind into `body`.
    fn block(&mut self, part: Part, kind: Kind, body: &mut Vec<u8>) -> Result<(), CheckpointError> {
        let rest = self.array::<{ BLOCK_HEADER_BYTES - 1 }>()?;
        let mut reader = Reader::new(&rest);
        let (Some(length), Some(crc)) = (reader.u32(), reader.u32()) else {
            return Err(CheckpointError::Malformed { part });
        };
        if length == 0 || length as usize > BLOCK_BYTES_MAX {
            return Err(CheckpointError::Malformed { part });
        }
        body.clear();
        if self.0.by_ref().take(u64::from(length)).read_to_end(body)? < length as usize {
            return Err(CheckpointError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        format::check(part, crc, format::block_checksum(kind, body))
    }

    fn end(mut self) -> Result<(), CheckpointError> {
        match self.0.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(CheckpointError::Trailing),
        }
    }
}
