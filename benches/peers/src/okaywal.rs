//! okaywal: one log, one writer at a time, one sync for all that have written meanwhile.
//!
//! It checkpoints by itself when a segment is full; there is nothing to keep here, so that only recycles the segment.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use okaywal::{
    Configuration, Entry, EntryChunk, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::{Content, Depth, Opened, Rival, SEGMENT_BYTES, Shape, payload};

/// An entry is refused no room by the end of a segment: the checkpoint begins this much before.
const MARGIN_BYTES: u64 = 1 << 20;

struct OkayWal {
    log: WriteAheadLog,
}

/// Counts what is recovered.
#[derive(Debug)]
struct Counter {
    payload_bytes: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

/// An empty log.
pub fn start(dir: &Path, _: Shape) -> Box<dyn Rival> {
    let configuration = Configuration::default_for(dir)
        .preallocate_bytes(SEGMENT_BYTES as u32)
        .checkpoint_after_bytes(SEGMENT_BYTES - MARGIN_BYTES);
    Box::new(OkayWal { log: configuration.open(LogVoid).expect("log opens") })
}

/// Writes a log to be recovered: one segment, since others would be checkpointed. A batch is an entry, a payload a chunk
/// of it.
pub fn fill(dir: &Path, content: Content) {
    let log = OkayWal { log: one_segment(dir, content).open(LogVoid).expect("log opens") };
    let payload = payload(content.payload_bytes);
    for batch in content.batches() {
        let mut entry = log.log.begin_entry().expect("entry begins");
        for _ in batch {
            entry.write_chunk(&payload).expect("written");
        }
        entry.commit().expect("committed");
    }
}

/// Opens it. That gives out every payload, and we verify its checksum, so the depth makes no difference.
pub fn open(dir: &Path, content: Content, _: Depth) -> Opened {
    let payload_bytes = Arc::new(AtomicU64::new(0));
    let counter = Counter { payload_bytes: payload_bytes.clone(), buffer: Vec::new() };
    let log = OkayWal { log: one_segment(dir, content).open(counter).expect("log opens") };
    Opened { payload_bytes: payload_bytes.load(Ordering::Relaxed), _log: Box::new(log) }
}

fn one_segment(dir: &Path, content: Content) -> Configuration {
    // Ten bytes a chunk beside the payload, and some for each entry.
    let bytes = content.bytes() + 16 * content.payloads + MARGIN_BYTES;
    let bytes = u32::try_from(bytes).expect("a segment below 4 GiB");
    Configuration::default_for(dir).preallocate_bytes(bytes).checkpoint_after_bytes(u64::MAX)
}

impl Rival for OkayWal {
    fn append_synced(&self, _: usize, payload: &Bytes) {
        let mut entry = self.log.begin_entry().expect("entry begins");
        entry.write_chunk(payload).expect("written");
        entry.commit().expect("committed");
    }
}

impl Drop for OkayWal {
    /// Waits for its thread, so that nobody works in the directory any more.
    fn drop(&mut self) {
        // It may have failed only in keeping what nobody needs.
        let _ = self.log.clone().shutdown();
    }
}

impl Counter {
    fn read(&mut self, mut chunk: EntryChunk<'_, '_>) -> io::Result<()> {
        self.buffer.clear();
        chunk.read_to_end(&mut self.buffer)?;
        if !chunk.check_crc()? {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.payload_bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl LogManager for Counter {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        while let ReadChunkResult::Chunk(chunk) = entry.read_chunk()? {
            self.read(chunk)?;
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
