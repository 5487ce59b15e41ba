//! A network where a request is a call.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use openraft::error::{Fatal, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, OptionalSend, Raft, Snapshot, Vote};
use parking_lot::RwLock;

use super::Types;

/// The nodes by number.
#[derive(Clone, Default)]
pub(super) struct Network(Arc<RwLock<BTreeMap<u64, Raft<Types>>>>);

impl Network {
    pub(super) fn add(&self, id: u64, node: Raft<Types>) {
        self.0.write().insert(id, node);
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Connection {
        Connection { target, network: self.clone() }
    }
}

/// Calls one node.
pub(super) struct Connection {
    target: u64,
    network: Network,
}

impl Connection {
    fn node(&self) -> Raft<Types> {
        self.network.0.read()[&self.target].clone()
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer = self.node().append_entries(request).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let answer = self.node().vote(request).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let answer = self.node().install_full_snapshot(vote, snapshot).await;
        answer.map_err(|error| StreamingError::RemoteError(RemoteError::new(self.target, error)))
    }
}
