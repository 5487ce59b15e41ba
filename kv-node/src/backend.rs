//! What the server needs from replication, as one small trait.
//!
//! The one real implementation is the replica; the tests of the commands bring a plain store, so that exact replies can
//! be checked without a cluster.

use bytes::Bytes;
use futures::future::BoxFuture;
use kv_repl::{Mark, ReadError, Replica, Status, WriteError};
use kv_store::{Index, Outcome, ReadView, Store};

/// A replicated store.
pub trait Backend: Send + Sync + 'static {
    /// Replicates ops in this order; one answer for each.
    fn submit(&self, ops: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<Outcome, WriteError>>>;

    /// Returns when [`Backend::read`] sees every write that was confirmed, anywhere, before this call.
    fn barrier(&self) -> BoxFuture<'_, Result<Index, ReadError>>;

    /// Shows the local state. Must be short: it holds up apply.
    fn read(&self, look: &mut dyn FnMut(&ReadView));

    /// Puts a mark into the log: every replica notes its state hash there.
    fn mark(&self) -> BoxFuture<'_, Result<Index, WriteError>>;

    /// What this replica noted at a mark, if it has applied it and still keeps it.
    fn marked(&self, index: Index) -> Option<Mark<Store>>;

    /// Where the replica stands.
    fn status(&self) -> Status;
}

impl Backend for Replica<Store> {
    fn submit(&self, ops: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<Outcome, WriteError>>> {
        Box::pin(Replica::submit(self, ops))
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Index, ReadError>> {
        Box::pin(Replica::barrier(self))
    }

    fn read(&self, look: &mut dyn FnMut(&ReadView)) {
        Replica::read(self, |store| look(store));
    }

    fn mark(&self) -> BoxFuture<'_, Result<Index, WriteError>> {
        Box::pin(Replica::mark(self))
    }

    fn marked(&self, index: Index) -> Option<Mark<Store>> {
        Replica::marked(self, index)
    }

    fn status(&self) -> Status {
        Replica::status(self)
    }
}
