//! redb: a B-tree with one writer at a time; an append is a transaction of its own. Keys ascend, as in a log.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{Database, Durability, TableDefinition, WriteTransaction};

use crate::{Odometer, Rival, Shape};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

struct Redb {
    database: Database,
    last: AtomicU64,
    odometer: Odometer,
}

/// An empty table.
pub fn start(dir: &Path, _: Shape) -> Box<dyn Rival> {
    let database = Database::create(dir.join("redb")).expect("database opens");
    Box::new(Redb { database, last: AtomicU64::new(0), odometer: Odometer::default() })
}

impl Redb {
    fn begin(&self) -> WriteTransaction {
        let mut transaction = self.database.begin_write().expect("transaction begins");
        transaction.set_durability(Durability::Immediate).expect("the default");
        transaction
    }
}

impl Rival for Redb {
    fn append_synced(&self, _: usize, payload: &Bytes) {
        let transaction = self.begin();
        if self.odometer.is_full(payload.len()) {
            transaction.delete_table(TABLE).expect("dropped");
        }
        let key = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        transaction.open_table(TABLE).expect("table opens").insert(key, &payload[..]).expect("inserted");
        transaction.commit().expect("committed");
    }
}
