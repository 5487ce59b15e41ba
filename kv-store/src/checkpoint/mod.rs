//! A state as a stream of bytes: sorted, checksummed, verified in full when it is read.
//!
//! The same bytes are the checkpoint on a disk and the snapshot that a far-behind replica receives. Writing needs only
//! a view, so the store goes on meanwhile. Naming, syncing and renaming files is the caller's.

mod format;
mod reader;
mod writer;

use std::io;

use bytes::Bytes;
use kv_wal::EntryId;
use thiserror::Error;

pub use format::{BLOB_BYTES_MAX, FORMAT_VERSION};
pub use reader::read;
pub use writer::write;

/// What a checkpoint holds beside the pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The last entry that the state has applied.
    pub last: EntryId,
    /// Whatever the caller keeps with the state, at most [`BLOB_BYTES_MAX`].
    pub blob: Bytes,
}

/// Why a stream is no checkpoint that this build can take. Nothing of it may be used; the replica needs another one.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// Reading failed, or the stream ends too early ([`io::ErrorKind::UnexpectedEof`]).
    #[error("cannot read the checkpoint: {0}")]
    Io(#[from] io::Error),
    /// The stream begins with something else.
    #[error("not a checkpoint: it begins with {found:02x?}")]
    NotACheckpoint {
        /// The first bytes.
        found: [u8; 8],
    },
    /// The checkpoint was written by a build of another format.
    #[error("checkpoint of format version {found}, this build reads version {FORMAT_VERSION} and no other")]
    UnknownVersion {
        /// Its version.
        found: u32,
    },
    /// A checksum does not match.
    #[error("checkpoint damaged: checksum of {part} is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Which part.
        part: Part,
        /// In the stream.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// A part has no meaning, is above a limit, or is where it must not be.
    #[error("checkpoint damaged: {part} is malformed")]
    Malformed {
        /// Which part.
        part: Part,
    },
    /// A key is not after the one before it.
    #[error("checkpoint damaged: keys of {part} do not rise")]
    Order {
        /// Which part.
        part: Part,
    },
    /// The footer tells another number of pairs.
    #[error("checkpoint damaged: {computed} pairs, the footer says {found}")]
    Count {
        /// In the footer.
        found: u64,
        /// Read.
        computed: u64,
    },
    /// The contributions of the pairs have another sum than the footer tells.
    #[error("checkpoint damaged: the sum of its pairs does not match the footer")]
    Sum,
    /// SHA-256 over the stream does not match.
    #[error("checkpoint damaged: SHA-256 does not match")]
    Hash,
    /// There are bytes after the footer.
    #[error("checkpoint damaged: bytes after the footer")]
    Trailing,
}

/// A part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first bytes.
    Header,
    /// A block, counted from 0.
    Block(u64),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Header => f.write_str("the header"),
            Part::Block(number) => write!(f, "block {number}"),
        }
    }
}

#[cfg(test)]
mod tests;
