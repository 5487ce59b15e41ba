//! One store without replication, and a conversation with it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kv_repl::types::{Incarnation, Member};
use kv_repl::{Mark, NodeId, ReadError, Role, Status, WriteError};
use kv_store::{Index, Outcome, ReadView, Store, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::client::Client;
use crate::node::{About, Node};
use crate::session;

/// A replicated store of one, in memory.
pub(super) struct Single {
    state: Mutex<State>,
    /// What every request is refused with, if it is.
    refusal: Option<(WriteError, ReadError)>,
}

struct State {
    store: Store,
    applied: Index,
    marks: Vec<Mark<Store>>,
    /// How many ops each submit had, and 0 for each barrier.
    calls: Vec<usize>,
}

impl Single {
    pub(super) fn new() -> Single {
        let state = State { store: Store::new([7; 32]), applied: Index::ZERO, marks: Vec::new(), calls: Vec::new() };
        Single { state: Mutex::new(state), refusal: None }
    }

    /// One that is not founded and refuses everything with this.
    pub(super) fn refusing(write: WriteError, read: ReadError) -> Single {
        Single { refusal: Some((write, read)), ..Single::new() }
    }

    pub(super) fn calls(&self) -> Vec<usize> {
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
                Ok(state.store.apply(index, op))
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
        let (digest, blob_hash) = (view.digest(), [3; 32]);
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
            me: Member::new(NodeId::new(1), Incarnation::new(5)),
            role: Role::Leader,
            term: Term::new(2),
            leader: Some(NodeId::new(1)),
            last: applied,
            committed: applied,
            applied,
            hash_index: applied,
            state_hash: [9; 32],
            cluster: self.refusal.is_none().then_some([1; 32]),
            peers: Vec::new(),
        }
    }
}

/// Sends these bytes at once over a connection of its own, and gives all that comes back until it is closed.
pub(super) fn talk_to(backend: Arc<Single>, sent: &[u8]) -> String {
    let about = About {
        client_address: "127.0.0.1:7001".to_owned(),
        peer_address: "127.0.0.1:7101".to_owned(),
        dir: "/data".into(),
    };
    let node = Node::new(backend, about);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(8 << 20);
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut received = Vec::new();
        let session = session::serve(far, Client::new(42, node), CancellationToken::new());
        let (_, read) = tokio::join!(session, near.read_to_end(&mut received));
        read.unwrap();
        String::from_utf8_lossy(&received).into_owned()
    })
}

/// As [`talk_to`], with a store of its own.
pub(super) fn talk(sent: &str) -> String {
    talk_to(Arc::new(Single::new()), sent.as_bytes())
}
