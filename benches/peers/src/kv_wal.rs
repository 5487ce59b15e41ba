//! Ours: `Log`, which the appending thread drives itself, and `Wal`, whose thread gathers what many submit.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use kv_wal::record::HEADER_BYTES;
use kv_wal::{Entry, EntryId, Handle, Index, Kind, Log, Options, Term, Wal};

use crate::{Content, Depth, Odometer, Opened, Rival, SEGMENT_BYTES, Shape, payload};

const TERM: Term = Term::new(1);
const KIND: Kind = Kind(1);

struct OneThread {
    log: Mutex<(Log, BytesMut)>,
    odometer: Odometer,
}

struct ManyThreads {
    handle: Handle,
    odometer: Odometer,
    _wal: Wal,
}

/// A log without a thread that writes.
pub fn start_log(dir: &Path, _: Shape) -> Box<dyn Rival> {
    let (log, _) = Log::open(dir, options()).expect("log opens");
    Box::new(OneThread { log: Mutex::new((log, BytesMut::new())), odometer: Odometer::default() })
}

/// A log with a thread that writes.
pub fn start_wal(dir: &Path, _: Shape) -> Box<dyn Rival> {
    let (wal, _) = Wal::open(dir, options()).expect("log opens");
    Box::new(ManyThreads { handle: wal.handle(), odometer: Odometer::default(), _wal: wal })
}

/// Writes a log to be recovered.
pub fn fill(dir: &Path, content: Content) {
    let (mut log, _) = Log::open(dir, options()).expect("log opens");
    let payload = payload(content.payload_bytes);
    for batch in content.batches() {
        let bytes = batch.clone().count() * (HEADER_BYTES + payload.len());
        let mut buffer = BytesMut::with_capacity(bytes);
        let entries: Vec<_> = batch.map(|index| encode(&mut buffer, Index::new(index), &payload)).collect();
        log.append(&entries, None).expect("appended");
        log.sync().expect("synced");
    }
    log.close().expect("closed");
}

/// Opens it. Every checksum is verified by that.
pub fn open(dir: &Path, content: Content, depth: Depth) -> Opened {
    let (log, recovery) = Log::open(dir, options()).expect("log opens");
    let payload_bytes = match depth {
        Depth::Open => recovery.entries_recovered * content.payload_bytes as u64,
        Depth::ReadAll => {
            let all = log.base().index.next()..log.last().index.next();
            log.reader().iter(all).map(|entry| entry.expect("sound").payload().len() as u64).sum()
        }
    };
    Opened { payload_bytes, _log: Box::new(log) }
}

/// Bytes that the log writes for one synced append, as it counts them itself.
pub(crate) fn batch_bytes(dir: &Path, payload_bytes: usize) -> u64 {
    let options = Options { segment_bytes: 16 << 20, prepare_ahead: false, ..options() };
    let (mut log, _) = Log::open(dir, options).expect("log opens");
    let before = log.stats().bytes_written;
    let entry = encode(&mut BytesMut::new(), Index::new(1), &payload(payload_bytes));
    log.append(&[entry], None).expect("appended");
    log.sync().expect("synced");
    log.stats().bytes_written - before
}

impl Rival for OneThread {
    fn append_synced(&self, _: usize, payload: &Bytes) {
        let (log, buffer) = &mut *self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if self.odometer.is_full(payload.len()) {
            log.truncate_prefix(log.last()).expect("truncated");
        }
        let entry = encode(buffer, log.last().index.next(), payload);
        log.append(&[entry], None).expect("appended");
        log.sync().expect("synced");
    }
}

impl Rival for ManyThreads {
    fn append_synced(&self, _: usize, payload: &Bytes) {
        let ticket = self.handle.append_payloads(TERM, 0, KIND, vec![payload.clone()]);
        let receipt = ticket.wait().expect("appended and synced");
        if self.odometer.is_full(payload.len()) {
            let upto = EntryId::new(TERM, receipt.last);
            self.handle.truncate_prefix(upto).wait().expect("truncated");
        }
    }
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::default() }
}

fn encode(buffer: &mut BytesMut, index: Index, payload: &Bytes) -> Entry {
    Entry::encode(buffer, EntryId::new(TERM, index), 0, KIND, payload)
}
