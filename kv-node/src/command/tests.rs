//! Exact replies, of the real session on a real store, without a cluster.

mod replies;

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::node::{About, Node};
use crate::session;
use crate::single::Single;

/// Sends these bytes at once over a connection of its own, and gives all that comes back until it is closed.
fn talk_to(backend: Arc<Single>, sent: &[u8]) -> String {
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
fn talk(sent: &str) -> String {
    talk_to(Arc::new(Single::new()), sent.as_bytes())
}
