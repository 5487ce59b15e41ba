//! One store without replication, for tests of everything around it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kv_repl::types::{Incarnation, Member};
use kv_repl::{Mark, NodeId, ReadError, Role, Status, WriteError};
use kv_store::{Index, Outcome, ReadView, Store, Term};

use crate::backend::Backend;

/// A replicated store of one, in memory.
pub(crate) struct Single {
    state: Mutex<State>,
    /// What every request is refused with, if it is.
    refusal: Option<(WriteError, ReadError)>,
    id: NodeId,
    replication: [u8; 32],
}

struct State {
    store: Store,
    applied: Index,
    marks: Vec<Mark<Store>>,
    /// How many ops each submit had, and 0 for each barrier.
    calls: Vec<usize>,
}

impl Single {
    pub(crate) fn new() -> Single {
        Single::node(1, [3; 32])
    }

    /// The node with this number, and this hash of what replication keeps.
    pub(crate) fn node(id: u64, replication: [u8; 32]) -> Single {
        let state = State { store: Store::new([7; 32]), applied: Index::ZERO, marks: Vec::new(), calls: Vec::new() };
        Single { state: Mutex::new(state), refusal: None, id: NodeId::new(id), replication }
    }

    /// One that is not founded and refuses everything with this.
    pub(crate) fn refusing(write: WriteError, read: ReadError) -> Single {
        Single { refusal: Some((write, read)), ..Single::new() }
    }

    pub(crate) fn calls(&self) -> Vec<usize> {
        self.state.lock().unwrap().calls.clone()
    }
}

impl Backend for Single {
    fn submit(&self, ops: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<Outcome, WriteError>>> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(ops.len());
        let apply = |op: &Bytes| match self.refusal {
            Some((error, _)) => Err(error),
            None => {
                state.applied = state.applied.next();
                let index = state.applied;
                Ok(state.store.apply(index, 0, op))
            }
        };
        let outcomes = ops.iter().map(apply).collect();
        async { outcomes }.boxed()
    }

    fn barrier(&self) -> BoxFuture<'_, Result<Index, ReadError>> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(0);
        let applied = state.applied;
        let answer = self.refusal.map_or(Ok(applied), |(_, error)| Err(error));
        async move { answer }.boxed()
    }

    fn read(&self, look: &mut dyn FnMut(&ReadView)) {
        look(&self.state.lock().unwrap().store);
    }

    fn mark(&self) -> BoxFuture<'_, Result<Index, WriteError>> {
        let mut state = self.state.lock().unwrap();
        state.applied = state.applied.next();
        let (index, view) = (state.applied, state.store.view());
        let (digest, blob_hash) = (view.digest(), self.replication);
        let hash = kv_repl::state_hash(index, &digest, &blob_hash);
        state.marks.push(Mark { index, hash, blob_hash, view });
        async move { Ok(index) }.boxed()
    }

    fn marked(&self, index: Index) -> Option<Mark<Store>> {
        self.state.lock().unwrap().marks.iter().find(|mark| mark.index == index).cloned()
    }

    fn status(&self) -> Status {
        let applied = self.state.lock().unwrap().applied;
        Status {
            me: Member::new(self.id, Incarnation::new(5)),
            role: Role::Leader,
            term: Term::new(2),
            leader: Some(self.id),
            last: applied,
            committed: applied,
            applied,
            hash_index: applied,
            state_hash: [9; 32],
            cluster: self.refusal.is_none().then_some([1; 32]),
            configuration: Arc::default(),
            is_damaged: false,
            peers: Vec::new(),
        }
    }
}
