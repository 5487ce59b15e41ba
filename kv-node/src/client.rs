//! What the server knows of one connection.

use std::sync::Arc;

use bytes::Bytes;

use crate::node::Node;
use crate::resp::Protocol;

/// The state of a connection. Commands change it; the session owns it.
pub(crate) struct Client {
    /// Counted from 1 since the node started.
    pub(crate) id: u64,
    /// Version of the protocol for replies.
    pub(crate) protocol: Protocol,
    /// What the client called itself.
    pub(crate) name: Option<Bytes>,
    /// Which library it uses, as it says.
    pub(crate) library_name: Bytes,
    /// And of which version.
    pub(crate) library_version: Bytes,
    /// The node it is connected to.
    pub(crate) node: Arc<Node>,
}

impl Client {
    pub(crate) fn new(id: u64, node: Arc<Node>) -> Client {
        Client {
            id,
            protocol: Protocol::default(),
            name: None,
            library_name: Bytes::new(),
            library_version: Bytes::new(),
            node,
        }
    }
}
