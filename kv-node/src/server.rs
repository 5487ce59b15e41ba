//! Accepts clients and gives each a session.
//!
//! Shutdown: no more clients are accepted, every session finishes the batch it has begun and answers it, and whoever is
//! not done in time is cut off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::client::Client;
use crate::node::{CLIENTS_COUNT_MAX, Node, count_one};
use crate::session;

/// How long sessions may take to finish when the server stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, so that a lack of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves clients until `stop` is cancelled and the sessions have ended.
pub async fn run(listener: TcpListener, node: Arc<Node>, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(CLIENTS_COUNT_MAX));
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => match Arc::clone(&seats).try_acquire_owned() {
                Ok(seat) => drop(sessions.spawn(serve(stream, Arc::clone(&node), stop.clone(), seat))),
                Err(_) => refuse(&stream, &node),
            },
            Err(error) => {
                warn!(%error, "could not accept a client");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all_ended = timeout(STOP_TIME_MAX, async { while sessions.join_next().await.is_some() {} });
    if all_ended.await.is_err() {
        warn!(sessions = sessions.len(), "cut off clients whose requests were not done in time");
    }
    info!("clients are served no more");
}

async fn serve(stream: TcpStream, node: Arc<Node>, stop: CancellationToken, _seat: OwnedSemaphorePermit) {
    let id = count_one(&node.counters.connections_accepted);
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, id, "client left at once");
        return;
    }
    count_one(&node.counters.connections_open);
    session::serve(stream, Client::new(id, Arc::clone(&node)), stop).await;
    node.counters.connections_open.fetch_sub(1, Relaxed);
}

/// Sends a client away with the words of Redis, without waiting for it.
fn refuse(stream: &TcpStream, node: &Node) {
    count_one(&node.counters.connections_refused);
    match stream.try_write(b"-ERR max number of clients reached\r\n") {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => debug!(%error, "client left before it was sent away"),
    }
}
