//! The floor: what the disk takes for the bytes that kv-wal writes, without a log. Positioned writes of the same pages
//! into a file that was really written with zeros, from its start to its end and again, each followed by `fdatasync`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::{Rival, SEGMENT_BYTES, Shape, fill, kv_wal, payload};

struct Floor {
    file: File,
    pages: Bytes,
    written: AtomicU64,
}

/// A file of zeros.
pub fn start(dir: &Path, shape: Shape) -> Box<dyn Rival> {
    let pages = payload(kv_wal::batch_bytes(&dir.join("measured"), shape.payload_bytes) as usize);
    let file = File::create_new(dir.join("floor")).expect("file opens");
    fill(&file, 0, 256 << 10).expect("zeros written");
    file.sync_all().expect("zeros synced");
    Box::new(Floor { file, pages, written: AtomicU64::new(0) })
}

impl Rival for Floor {
    fn append_synced(&self, _: usize, _: &Bytes) {
        let bytes = self.pages.len() as u64;
        let turn = self.written.fetch_add(1, Ordering::Relaxed) % (SEGMENT_BYTES / bytes);
        self.file.write_all_at(&self.pages, turn * bytes).expect("written");
        self.file.sync_data().expect("synced");
    }
}
