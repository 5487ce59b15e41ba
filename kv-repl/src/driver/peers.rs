//! The connections to and from the other nodes.
//!
//! Each node dials every other one and sends on the connection it dialed; what it is sent comes on connections that the
//! others dialed. So a connection has one writer, needs no multiplexing, and dies without taking the other direction
//! with it. A dialer greets first; the acceptor answers with its own greeting or with a refusal that says what to do.
//! Messages may be lost with their connection: the core expects that.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tracing::{debug, info, warn};

use super::identity::{Identity, Relation};
use super::tasks::Tasks;
use crate::codec::{Frame, FrameCodec, Hello, WireError};
use crate::message::Message;
use crate::transport::Transport;
use crate::types::{Member, NodeId};

/// How long a peer may take to connect and to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// A failed connection is tried again after this, then after twice as long, up to the maximum.
const REDIAL_WAIT: Duration = Duration::from_millis(20);
const REDIAL_WAIT_MAX: Duration = Duration::from_millis(500);
/// Accepted connections that are not those of members, at most: they have not greeted yet, or are empty nodes.
const STRANGERS_MAX: usize = 64;
/// Frames that wait for a peer; beyond it they are dropped, as if the network had lost them.
const QUEUE_FRAMES: usize = 1024;
/// A connection on which this much does not get through within the patience is closed, and opened anew.
const PATIENCE_BYTES: usize = 1 << 20;
/// Frames handed to the socket before it is flushed.
const FLUSH_FRAMES: usize = 64;

/// What happens on connections.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// A message of the core.
    Message { from: Member, message: Message },
    /// The connection to this peer is open.
    Connected { peer: Member, connection: u64 },
    /// The connection to this peer has ended.
    Disconnected { peer: Member },
    /// The peer is empty, as this node is.
    Empty { peer: Member },
    /// The founding record, from a peer that has it.
    Found { from: Member, record: Bytes },
}

/// Takes a peer and where its clients connect.
pub(crate) type OnGreeting = Box<dyn Fn(NodeId, &str) + Send + Sync>;

/// What every connection works with.
pub(crate) struct Context<T: Transport> {
    pub(crate) transport: T,
    pub(crate) identity: RwLock<Identity>,
    /// Turns true when the founding record has been stored; greetings are then exchanged anew.
    pub(crate) founded: watch::Sender<bool>,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    /// Told where a peer's clients connect, as it greets.
    pub(crate) on_greeting: OnGreeting,
    /// How long a peer may take to receive [`PATIENCE_BYTES`].
    pub(crate) patience: Duration,
    /// Every task that holds this.
    pub(crate) tasks: Arc<Tasks>,
}

/// The sending ends of the connections.
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    queue: mpsc::Sender<Frame>,
}

impl Link {
    /// A link to nowhere, and what is sent on it.
    #[cfg(feature = "testing")]
    pub(crate) fn to(peer: NodeId) -> (Link, (NodeId, mpsc::Receiver<Frame>)) {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES);
        (Link { peer, queue }, (peer, frames))
    }

    /// Queues a frame; false if the queue is full and the frame is lost.
    pub(crate) fn send(&self, message: Message) -> bool {
        self.queue.try_send(Frame::Message(message)).is_ok()
    }
}

enum Ended {
    /// Greet again at once: something has changed on this side.
    Regreet,
    /// The record was handed over: greet again soon.
    Founded,
    Refused(String),
    Failed(WireError),
    Closed,
}

/// Dials a peer, again and again; and the end to send on.
pub(crate) fn dial<T: Transport>(
    context: Arc<Context<T>>,
    peer: NodeId,
    address: String,
) -> (Link, impl Future<Output = ()> + Send) {
    let (queue, frames) = mpsc::channel(QUEUE_FRAMES);
    let dialer =
        Dialer { context, peer, address, frames, connection: 0, greeted: None, complaint: Mutex::new(String::new()) };
    (Link { peer, queue }, dialer.run())
}

struct Dialer<T: Transport> {
    context: Arc<Context<T>>,
    peer: NodeId,
    address: String,
    frames: mpsc::Receiver<Frame>,
    connection: u64,
    /// Who answered on the last connection.
    greeted: Option<Member>,
    /// What was last complained about, so that a lasting trouble is logged once.
    complaint: Mutex<String>,
}

impl<T: Transport> Dialer<T> {
    async fn run(mut self) {
        let mut wait = REDIAL_WAIT;
        loop {
            let ended = self.connect().await;
            if let Some(peer) = self.greeted.take() {
                wait = REDIAL_WAIT;
                self.emit(PeerEvent::Disconnected { peer }).await;
            }
            // What was queued for the connection that ended is lost with it.
            while self.frames.try_recv().is_ok() {}
            match ended {
                Ended::Regreet => continue,
                Ended::Founded => {}
                Ended::Refused(reason) => self.complain(&format!("refused by the peer: {reason}")),
                Ended::Failed(error) => self.complain(&error.to_string()),
                Ended::Closed => debug!(peer = %self.peer, "connection closed by the peer"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REDIAL_WAIT_MAX);
        }
    }

    async fn connect(&mut self) -> Ended {
        let mut founded = self.context.founded.subscribe();
        founded.mark_unchanged();
        let greeting = timeout(GREETING_TIMEOUT, self.greet());
        let (mut stream, hello) = match greeting.await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::Failed(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        let relation = match self.context.identity.read().judge(&hello) {
            Ok(relation) => relation,
            Err(reason) => return Ended::Refused(format!("not talking to it: {reason}")),
        };
        (self.context.on_greeting)(self.peer, &hello.client_address);
        match relation {
            Relation::Members => self.send_messages(&mut stream, hello.from).await,
            Relation::PeerEmpty => self.hand_over(&mut stream).await,
            Relation::BothEmpty => {
                self.greeted = Some(hello.from);
                self.emit(PeerEvent::Empty { peer: hello.from }).await;
                wait_for_change(&mut stream, &mut founded).await
            }
            Relation::PeerFounded => wait_for_change(&mut stream, &mut founded).await,
        }
    }

    async fn greet(&self) -> Result<(Framed<T::Stream, FrameCodec>, Hello), Ended> {
        let stream = self.context.transport.connect(&self.address).await.map_err(|e| Ended::Failed(e.into()))?;
        let mut stream = Framed::new(stream, FrameCodec::greeting());
        let hello = self.context.identity.read().hello(self.peer);
        stream.send(Frame::Hello(hello)).await.map_err(Ended::Failed)?;
        match stream.next().await {
            Some(Ok(Frame::Hello(hello))) if hello.from.id == self.peer => Ok((stream, hello)),
            Some(Ok(Frame::Hello(hello))) => {
                Err(Ended::Refused(format!("{} is node {}; check --peers", self.address, hello.from.id)))
            }
            Some(Ok(Frame::Refused(reason))) => Err(Ended::Refused(reason)),
            Some(Ok(_)) => Err(Ended::Refused("it did not greet".to_owned())),
            Some(Err(error)) => Err(Ended::Failed(error)),
            None => Err(Ended::Closed),
        }
    }

    async fn send_messages(&mut self, stream: &mut Framed<T::Stream, FrameCodec>, peer: Member) -> Ended {
        while self.frames.try_recv().is_ok() {}
        self.connection += 1;
        self.greeted = Some(peer);
        self.complaint.lock().clear();
        info!(%peer, "connected");
        self.emit(PeerEvent::Connected { peer, connection: self.connection }).await;
        let mut batch = Vec::with_capacity(FLUSH_FRAMES);
        loop {
            tokio::select! {
                count = self.frames.recv_many(&mut batch, FLUSH_FRAMES) => {
                    if count == 0 {
                        return Ended::Closed;
                    }
                    if let Err(error) = self.send_batch(stream, batch.drain(..)).await {
                        return Ended::Failed(error);
                    }
                }
                frame = stream.next() => return ended_by(frame),
            }
        }
    }

    /// Sends frames, and fails if the peer does not take them in time: a peer that is gone without a word looks the same
    /// as a slow one, and what waits for it is no longer worth sending.
    async fn send_batch(
        &self,
        stream: &mut Framed<T::Stream, FrameCodec>,
        frames: impl Iterator<Item = Frame>,
    ) -> Result<(), WireError> {
        for frame in frames {
            let patience = self.patience(stream);
            in_time(patience, stream.feed(frame)).await?;
        }
        let patience = self.patience(stream);
        in_time(patience, stream.flush()).await
    }

    fn patience(&self, stream: &Framed<T::Stream, FrameCodec>) -> Duration {
        let pieces = 1 + stream.write_buffer().len() / PATIENCE_BYTES;
        self.context.patience * u32::try_from(pieces).unwrap_or(u32::MAX)
    }

    async fn hand_over(&self, stream: &mut Framed<T::Stream, FrameCodec>) -> Ended {
        let record = self.context.identity.read().founding.as_ref().map(|record| record.encode());
        let record = record.expect("only a founded node judges a peer to be an empty member");
        match stream.send(Frame::Found(record)).await {
            Ok(()) => Ended::Founded,
            Err(error) => Ended::Failed(error),
        }
    }

    async fn emit(&self, event: PeerEvent) {
        // The core ends first when the node stops.
        let _ = self.context.events.send(event).await;
    }

    fn complain(&self, trouble: &str) {
        let mut last = self.complaint.lock();
        if *last != trouble {
            warn!(peer = %self.peer, address = %self.address, "no connection: {trouble}");
            trouble.clone_into(&mut last);
        }
    }
}

/// Waits for `sending`, with a timer only if there is something to wait for.
async fn in_time(patience: Duration, sending: impl Future<Output = Result<(), WireError>>) -> Result<(), WireError> {
    let mut sending = std::pin::pin!(sending);
    if let Poll::Ready(sent) = futures::poll!(&mut sending) {
        return sent;
    }
    timeout(patience, sending).await.map_err(std::io::Error::from)?
}

async fn wait_for_change<S>(stream: &mut Framed<S, FrameCodec>, founded: &mut watch::Receiver<bool>) -> Ended
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    tokio::select! {
        _ = founded.changed() => Ended::Regreet,
        frame = stream.next() => ended_by(frame),
    }
}

/// An acceptor says nothing after its greeting but, perhaps, why it hangs up.
fn ended_by(frame: Option<Result<Frame, WireError>>) -> Ended {
    match frame {
        None => Ended::Closed,
        Some(Ok(Frame::Refused(reason))) => Ended::Refused(reason),
        Some(Ok(_)) => Ended::Refused("it spoke out of turn".to_owned()),
        Some(Err(error)) => Ended::Failed(error),
    }
}

/// Accepts peers.
pub(crate) async fn accept<T: Transport>(context: Arc<Context<T>>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    for number in 0.. {
        match context.transport.accept().await {
            Ok(stream) => {
                let Ok(stranger) = strangers.clone().try_acquire_owned() else {
                    warn!("a connection to the peer port was dropped: {STRANGERS_MAX} others have not greeted yet");
                    continue;
                };
                let serving = context.clone();
                context.tasks.spawn(async move { serve(&serving, stream, number, stranger).await });
            }
            Err(error) => {
                warn!(%error, "a peer's connection could not be accepted");
                tokio::time::sleep(REDIAL_WAIT).await;
            }
        }
    }
}

async fn serve<T: Transport>(context: &Context<T>, stream: T::Stream, number: u64, stranger: OwnedSemaphorePermit) {
    let mut stream = Framed::new(stream, FrameCodec::greeting());
    let hello = match timeout(GREETING_TIMEOUT, stream.next()).await {
        Ok(Some(Ok(Frame::Hello(hello)))) => hello,
        Ok(Some(Ok(_))) => return refuse(&mut stream, "greet first".to_owned()).await,
        Ok(Some(Err(error))) => return refuse(&mut stream, error.to_string()).await,
        Ok(None) | Err(_) => return,
    };
    let judged = context.identity.read().judge(&hello);
    let relation = match judged {
        Ok(relation) => relation,
        Err(reason) => return refuse(&mut stream, reason).await,
    };
    (context.on_greeting)(hello.from.id, &hello.client_address);
    let answer = context.identity.write().answer(hello.from, number);
    if stream.send(Frame::Hello(answer)).await.is_err() {
        return;
    }
    // A member is no stranger; the others go on counting as such.
    let _stranger = (relation != Relation::Members).then_some(stranger);
    stream.codec_mut().greeted();
    while let Some(frame) = stream.next().await {
        let event = match (frame, relation) {
            (Ok(Frame::Message(message)), Relation::Members) => PeerEvent::Message { from: hello.from, message },
            (Ok(Frame::Found(record)), Relation::PeerFounded) => PeerEvent::Found { from: hello.from, record },
            (Ok(_), _) => return refuse(&mut stream, "that does not belong here".to_owned()).await,
            (Err(error), _) => return refuse(&mut stream, error.to_string()).await,
        };
        if context.events.send(event).await.is_err() {
            return;
        }
    }
}

async fn refuse<S>(stream: &mut Framed<S, FrameCodec>, reason: String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    warn!(%reason, "a connection to the peer port was refused");
    // Whoever it is may have hung up.
    let _ = stream.send(Frame::Refused(reason)).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::driver::founding::FoundingRecord;
    use crate::message::{Forward, Proposal};
    use crate::transport::memory::MemoryNetwork;
    use crate::types::{Configuration, Incarnation, Term, kind};

    /// Each connection is a pipe whose far end the test holds.
    struct Pipes(mpsc::Sender<DuplexStream>);

    impl Transport for Pipes {
        type Stream = DuplexStream;

        async fn connect(&self, _address: &str) -> std::io::Result<DuplexStream> {
            let (near, far) = tokio::io::duplex(1024);
            self.0.send(far).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok(near)
        }

        async fn accept(&self) -> std::io::Result<DuplexStream> {
            std::future::pending().await
        }
    }

    fn member(id: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(id))
    }

    fn identity(id: u64) -> Identity {
        let configuration = Configuration::new(vec![member(1), member(2)]);
        let founding = Some(FoundingRecord { configuration, secret: [7; 32] });
        let listed = vec![NodeId::new(1), NodeId::new(2)];
        Identity::new(member(id), listed, String::new(), founding)
    }

    fn context<T: Transport>(transport: T, events: mpsc::Sender<PeerEvent>) -> Arc<Context<T>> {
        Arc::new(Context {
            transport,
            identity: RwLock::new(identity(1)),
            founded: watch::Sender::new(true),
            events,
            on_greeting: Box::new(|_, _| {}),
            patience: Duration::from_millis(100),
            tasks: Arc::default(),
        })
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_dialed_anew() {
        let (far_sender, mut far_ends) = mpsc::channel(8);
        let (event_sender, mut events) = mpsc::channel(8);
        let context = context(Pipes(far_sender), event_sender);
        let (link, dialing) = dial(context.clone(), NodeId::new(2), "two".to_owned());
        let dialing = tokio::spawn(dialing);
        let mut silent = Vec::new();
        for connection in 1..=2 {
            let mut far = Framed::new(far_ends.recv().await.expect("it dials"), FrameCodec::default());
            assert!(matches!(far.next().await, Some(Ok(Frame::Hello(_)))));
            far.send(Frame::Hello(identity(2).hello(NodeId::new(1)))).await.expect("it listens");
            let connected = events.recv().await;
            assert!(matches!(connected, Some(PeerEvent::Connected { connection: c, .. }) if c == connection));
            let proposals = vec![Proposal { kind: kind::COMMAND, payload: vec![0; 4096].into() }];
            assert!(link.send(Message::Forward(Forward { term: Term::new(1), proposals })));
            let ended = timeout(Duration::from_secs(60), events.recv()).await.expect("it gives up");
            assert!(matches!(ended, Some(PeerEvent::Disconnected { .. })));
            // Neither reads nor hangs up.
            silent.push(far);
        }
        dialing.abort();
    }

    /// On a clock that moves only while everybody waits: whoever is one too many must not wait for the greeting's time.
    #[tokio::test(start_paused = true)]
    async fn strangers_are_few() {
        let network = MemoryNetwork::new();
        let (events, _events) = mpsc::channel(8);
        let context = context(network.transport("one"), events);
        let accepting = tokio::spawn(accept(context.clone()));
        let caller = network.transport("two");
        let mut silent = Vec::new();
        for _ in 0..STRANGERS_MAX {
            silent.push(caller.connect("one").await.expect("it listens"));
        }
        let mut refused = caller.connect("one").await.expect("it listens");
        let read = timeout(GREETING_TIMEOUT / 2, refused.read_u8()).await.expect("hung up on at once");
        assert!(read.is_err(), "not a byte");
        accepting.abort();
        context.tasks.shutdown().await;
    }
}
