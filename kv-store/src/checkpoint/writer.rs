//! Writes a view, block by block.

use std::io::{self, Write};

use super::CheckpointMeta;
use super::format::{self, BLOB_BYTES_MAX, BLOCK_BYTES, Kind};
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
    let (header, footer) = (format::header(meta.last, view), format::footer_body(&view.tree.total()));
    out.write_all(&header)?;
    for piece in meta.blob.chunks(BLOCK_BYTES) {
        write_block(Kind::Blob, piece, out)?;
    }
    write_pairs(view, out)?;
    out.write_all(&[Kind::Footer.byte()])?;
    out.write_all(&footer)?;
    out.write_all(&format::hash(&header, &meta.blob, &footer))?;
    out.flush()
}

fn write_pairs(view: &ReadView, out: &mut dyn Write) -> io::Result<()> {
    let mut body = Vec::with_capacity(BLOCK_BYTES);
    for (key, pair) in view.stored() {
        format::write_pair(&mut body, key, &pair);
        if body.len() >= BLOCK_BYTES {
            write_block(Kind::Pairs, &body, out)?;
            body.clear();
        }
    }
    if body.is_empty() { Ok(()) } else { write_block(Kind::Pairs, &body, out) }
}

fn write_block(kind: Kind, body: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&format::block_header(kind, body))?;
    out.write_all(body)
}
