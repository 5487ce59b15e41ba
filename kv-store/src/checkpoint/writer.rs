//! Writes a view, block by block.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::CheckpointMeta;
use super::format::{self, BLOB_BYTES_MAX, BLOCK_BYTES, FOOTER_BODY_BYTES, Kind};
use crate::read_view::ReadView;

/// Writes the state of `view`, which must be the one after the entry `meta.last`, as a checkpoint.
///
/// Pairs that have expired and are not removed yet are part of the state, and are written too.
///
/// The bytes are a function of state and `meta`: two replicas write the same. They go out in pieces of about 64 KiB, so
/// `out` needs no buffer; making them durable is the caller's.
///
/// ```
/// use kv_store::{CheckpointMeta, Index, Op, Store, checkpoint};
///
/// let mut store = Store::new([7; 32]);
/// store.apply(Index::new(1), 0, &Op::Append { key: b"k", value: b"v" }.encode().unwrap());
///
/// let mut file = Vec::new();
/// checkpoint::write(&store.view(), &CheckpointMeta::default(), &mut file).unwrap();
/// let (again, _) = checkpoint::read(&mut &file[..]).unwrap();
/// assert_eq!(again.digest(), store.digest());
/// ```
///
/// # Errors
///
/// Writing failed, or the blob is above [`BLOB_BYTES_MAX`] ([`io::ErrorKind::InvalidInput`]).
pub fn write(view: &ReadView, meta: &CheckpointMeta, out: &mut dyn Write) -> io::Result<()> {
    if meta.blob.len() > BLOB_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the blob of a checkpoint is above its limit"));
    }
    let mut out = Hashing { out, hash: Sha256::new() };
    out.write(&format::header(meta.last, view))?;
    for piece in meta.blob.chunks(BLOCK_BYTES) {
        out.write_block(Kind::Blob, piece)?;
    }
    write_pairs(view, &mut out)?;
    out.finish(&format::footer_body(&view.tree.total()))
}

fn write_pairs(view: &ReadView, out: &mut Hashing<'_>) -> io::Result<()> {
    let mut body = Vec::with_capacity(BLOCK_BYTES);
    for (key, pair) in view.stored() {
        format::write_pair(&mut body, key, &pair);
        if body.len() >= BLOCK_BYTES {
            out.write_block(Kind::Pairs, &body)?;
            body.clear();
        }
    }
    if body.is_empty() { Ok(()) } else { out.write_block(Kind::Pairs, &body) }
}

/// Hashes all that it writes.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn write_block(&mut self, kind: Kind, body: &[u8]) -> io::Result<()> {
        self.write(&format::block_header(kind, body))?;
        self.write(body)
    }

    fn finish(mut self, footer: &[u8; FOOTER_BODY_BYTES]) -> io::Result<()> {
        self.write(&[Kind::Footer.byte()])?;
        self.write(footer)?;
        self.out.write_all(&self.hash.finalize())?;
        self.out.flush()
    }
}
