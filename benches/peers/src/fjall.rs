//! fjall: a journal and an LSM tree; an append is a batch of its own. Keys ascend, as in a log, and the oldest tables are
//! dropped unread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::compaction::Fifo;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{Rival, Shape, TRUNCATE_BYTES};

struct Fjall {
    database: Database,
    keyspace: Keyspace,
    last: AtomicU64,
}

/// An empty keyspace.
pub fn start(dir: &Path, _: Shape) -> Box<dyn Rival> {
    let database = Database::builder(dir).open().expect("database opens");
    let oldest_first = || Arc::new(Fifo::new(TRUNCATE_BYTES, None));
    let options = || KeyspaceCreateOptions::default().compaction_strategy(oldest_first());
    let keyspace = database.keyspace("log", options).expect("keyspace opens");
    Box::new(Fjall { database, keyspace, last: AtomicU64::new(0) })
}

impl Rival for Fjall {
    fn append_synced(&self, _: usize, payload: &Bytes) {
        let key = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.keyspace, key.to_be_bytes(), &payload[..]);
        batch.commit().expect("committed");
    }
}
