//! One connection: requests in, replies out, in order.
//!
//! A session takes all the requests that have arrived, never waiting for more, and runs them as one batch:
//!
//! ```text
//! SET a 1 | SET b 2 | GET a | PING | GET b | SET c 3
//! \___ one submit _/ \__ one barrier, one look _/ \_ one submit
//! ```
//!
//! Each run of writes is handed to the replica together, each run of reads shares one barrier; a run ends where the
//! other kind begins, so a read sees the writes before it and not those after it. What needs neither is answered on the
//! way. The replies are sent in the order of the requests, at the end of the batch. While a batch runs nothing is read,
//! so a client that sends faster than it is served, or does not read its replies, is held up by its own connection.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use kv_repl::{ReadError, WriteError};
use kv_store::{Outcome, ReadView};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, copy, sink};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::command::{Action, dispatch};
use crate::node::Node;
use crate::resp::{Frame, Protocol, RequestDecoder, RequestError};

/// Most requests of a batch.
const BATCH_REQUESTS_MAX: usize = 4096;
/// No request is added to a batch that has so many bytes already.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Reads of up to so many keys are done in place; longer ones on a view, so that they don't hold up apply.
const READ_IN_PLACE_KEYS_MAX: usize = 256;
/// Replies are sent before the end of the batch when there are so many bytes of them.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// How long a client that broke the protocol may go on sending before the connection is closed under it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// What the read buffer begins with.
const READ_BUFFER_BYTES: usize = 16 << 10;

type Requests<S> = FramedRead<ReadHalf<S>, RequestDecoder>;

/// Serves one connection until the client leaves, breaks the protocol or is asked to go, or `stop` is cancelled; then
/// the batch at hand is finished and answered first.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite>(stream: S, mut client: Client, stop: CancellationToken) {
    let (input, mut output) = tokio::io::split(stream);
    let mut requests = FramedRead::with_capacity(input, RequestDecoder::default(), READ_BUFFER_BYTES);
    let mut broken = false;
    loop {
        let received = tokio::select! {
            received = receive(&mut requests) => received,
            () = stop.cancelled() => break,
        };
        let mut batch = Batch::default();
        let mut goes_on = batch.run(&mut client, &received.requests).await;
        if goes_on && let Some(end) = received.end {
            if let RequestError::Protocol(_) = end {
                broken = true;
                batch.replies.push((Frame::error(format!("ERR {end}")), client.protocol));
            }
            goes_on = false;
        }
        if send(&mut output, batch.replies).await.is_err() || !goes_on {
            break;
        }
    }
    // Nothing is lost if the client is gone already.
    let _ = output.shutdown().await;
    if broken {
        // To close with input unread resets the connection, and the client may never see why.
        let mut input = requests.into_inner();
        let _ = timeout(LINGER_TIME_MAX, copy(&mut input, &mut sink())).await;
    }
}

/// Requests that arrived together, and how the connection ended if it did.
#[derive(Default)]
struct Received {
    requests: Vec<Vec<Bytes>>,
    end: Option<RequestError>,
}

/// Waits for one request, and takes those that are there as well.
async fn receive<S: AsyncRead>(requests: &mut Requests<S>) -> Received {
    let mut received = Received::default();
    let mut bytes = 0;
    let mut next = requests.next().await;
    loop {
        match next {
            Some(Ok(request)) => {
                bytes += request.iter().map(Bytes::len).sum::<usize>();
                received.requests.push(request);
            }
            Some(Err(error)) => received.end = Some(error),
            None => received.end = Some(RequestError::Connection(std::io::ErrorKind::UnexpectedEof.into())),
        }
        if received.end.is_some() || received.requests.len() >= BATCH_REQUESTS_MAX || bytes >= BATCH_BYTES_MAX {
            return received;
        }
        next = match requests.next().now_or_never() {
            Some(next) => next,
            None => return received,
        };
    }
}

type Wording = fn(Outcome) -> Frame;
type Look = Box<dyn FnOnce(&ReadView) -> Frame + Send>;

/// Replies so far, and the run of reads or of writes that is being gathered: one of the two is empty.
#[derive(Default)]
struct Batch {
    replies: Vec<(Frame, Protocol)>,
    ops: Vec<Bytes>,
    /// For each op, which reply it is and how its outcome is worded.
    ops_replies: Vec<(usize, Wording)>,
    looks: Vec<(usize, Look)>,
    looks_keys_count: usize,
}

impl Batch {
    /// Runs the requests; whether the connection goes on.
    async fn run(&mut self, client: &mut Client, requests: &[Vec<Bytes>]) -> bool {
        let node = Arc::clone(&client.node);
        node.counters.commands.fetch_add(requests.len() as u64, Relaxed);
        let mut goes_on = true;
        for request in requests {
            let action = dispatch(client, request);
            let slot = self.replies.len();
            self.replies.push((Frame::Null, client.protocol));
            match action {
                Action::Reply(frame) => self.replies[slot].0 = frame,
                Action::Write { op, reply } => {
                    self.finish_reads(&node).await;
                    self.ops.push(op);
                    self.ops_replies.push((slot, reply));
                }
                Action::Read { keys_count, run } => {
                    self.finish_writes(&node).await;
                    self.looks.push((slot, run));
                    self.looks_keys_count += keys_count;
                }
                Action::Later(answer) => {
                    self.finish_writes(&node).await;
                    self.finish_reads(&node).await;
                    self.replies[slot].0 = answer.await;
                }
                Action::Close(frame) => {
                    self.replies[slot].0 = frame;
                    goes_on = false;
                    break;
                }
            }
        }
        self.finish_writes(&node).await;
        self.finish_reads(&node).await;
        goes_on
    }

    async fn finish_writes(&mut self, node: &Node) {
        if self.ops.is_empty() {
            return;
        }
        let outcomes = node.backend.submit(mem::take(&mut self.ops)).await;
        assert_eq!(outcomes.len(), self.ops_replies.len(), "one answer for each op");
        for ((slot, reply), outcome) in self.ops_replies.drain(..).zip(outcomes) {
            self.replies[slot].0 = outcome.map_or_else(|error| write_error(node, error), reply);
        }
    }

    async fn finish_reads(&mut self, node: &Node) {
        if self.looks.is_empty() {
            return;
        }
        let looks = mem::take(&mut self.looks);
        let keys_count = mem::take(&mut self.looks_keys_count);
        if let Err(error) = node.backend.barrier().await {
            for (slot, _) in looks {
                self.replies[slot].0 = read_error(node, error);
            }
            return;
        }
        let mut looks = looks.into_iter();
        let mut look = |view: &ReadView| {
            for (slot, look) in looks.by_ref() {
                self.replies[slot].0 = look(view);
            }
        };
        if keys_count <= READ_IN_PLACE_KEYS_MAX {
            node.backend.read(&mut look);
        } else {
            let mut view = None;
            node.backend.read(&mut |now| view = Some(now.clone()));
            look(&view.expect("the state has been shown"));
        }
    }
}

/// The code says what a client may do: those that make clients try again stand only where the write is certain to have
/// entered no log.
pub(crate) fn write_error(node: &Node, error: WriteError) -> Frame {
    Frame::error(match error {
        WriteError::NoLeader if node.backend.status().cluster.is_none() => NOT_FOUNDED,
        WriteError::NoLeader => {
            "CLUSTERDOWN no leader: no majority of the nodes could be reached in time; nothing was written"
        }
        WriteError::DiskFull => "MISCONF the disk of the leader is full: free space on it; nothing was written",
        WriteError::Diverged => "CLUSTERDOWN the state of this node is not that of the majority; nothing was written",
        WriteError::Unknown => "UNKNOWN no confirmation in time: the write may or may not have been applied",
        WriteError::Stopped => "UNKNOWN this node is stopping: the write may or may not have been applied",
        WriteError::TooLarge => "ERR the command is too large to be replicated; nothing was written",
    })
}

fn read_error(node: &Node, error: ReadError) -> Frame {
    Frame::error(match error {
        ReadError::NoLeader if node.backend.status().cluster.is_none() => NOT_FOUNDED,
        ReadError::NoLeader => {
            "CLUSTERDOWN no leader: no majority of the nodes could be reached in time; nothing was read"
        }
        ReadError::Diverged => "CLUSTERDOWN the state of this node is not that of the majority; nothing was read",
        ReadError::Stopped => "CLUSTERDOWN this node is stopping; nothing was read",
    })
}

const NOT_FOUNDED: &str = "LOADING the cluster is not founded yet: this node waits until every node has been started";

async fn send<S: AsyncWrite>(output: &mut WriteHalf<S>, replies: Vec<(Frame, Protocol)>) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    for (frame, protocol) in replies {
        match frame {
            // The one kind of reply that may be longer than memory allows: many large values, each a reference so far.
            Frame::Array(items) => {
                Frame::encode_array_header(items.len(), &mut out);
                for item in items {
                    item.encode(protocol, &mut out);
                    send_if_long(output, &mut out).await?;
                }
            }
            frame => frame.encode(protocol, &mut out),
        }
        send_if_long(output, &mut out).await?;
    }
    output.write_all(&out).await
}

async fn send_if_long<S: AsyncWrite>(output: &mut WriteHalf<S>, out: &mut BytesMut) -> std::io::Result<()> {
    if out.len() >= REPLY_BYTES_MAX {
        output.write_all(out).await?;
        out.clear();
    }
    Ok(())
}
