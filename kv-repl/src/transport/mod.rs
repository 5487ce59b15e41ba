//! How nodes reach each other: anything that gives byte streams in order.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

pub mod memory;
#[cfg(feature = "tcp")]
pub mod tcp;

/// Opens connections to peers and accepts theirs.
///
/// A connection is used in one direction: the node that opened it sends, the other one only answers the greeting. Bytes
/// must arrive in order and complete or the stream must fail; everything else (loss of connections, delay) is expected.
pub trait Transport: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a connection to the peer at `address`.
    ///
    /// # Errors
    ///
    /// The peer cannot be reached; it will be tried again.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Waits for the next connection from a peer.
    ///
    /// # Errors
    ///
    /// The connection failed at once; the next one is waited for after a moment.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}
