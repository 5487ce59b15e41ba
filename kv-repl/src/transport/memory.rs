//! A network inside one process, with cables that can be cut: for tests, examples and embedding several nodes.
//!
//! A cut fails every connection between the two nodes at its next write and refuses new ones, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

use super::Transport;

const BUFFER_BYTES: usize = 1 << 20;
const BACKLOG: usize = 64;

/// The network: hands out a [`Memory`] transport for each address.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    wiring: Arc<Mutex<Wiring>>,
}

#[derive(Debug, Default)]
struct Wiring {
    listeners: BTreeMap<String, mpsc::Sender<MemoryStream>>,
    cuts: BTreeSet<(String, String)>,
}

/// One node's end of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct Memory {
    network: MemoryNetwork,
    address: String,
    incoming: tokio::sync::Mutex<mpsc::Receiver<MemoryStream>>,
}

/// A connection within a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryStream {
    inner: DuplexStream,
    network: MemoryNetwork,
    ends: (String, String),
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// Listens at `address`, in place of whoever listened there before.
    pub fn transport(&self, address: &str) -> Memory {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.wiring.lock().listeners.insert(address.to_owned(), sender);
        Memory { network: self.clone(), address: address.to_owned(), incoming: tokio::sync::Mutex::new(incoming) }
    }

    /// Cuts the cable between two addresses.
    pub fn cut(&self, one: &str, other: &str) {
        self.wiring.lock().cuts.insert(ordered(one, other));
    }

    /// Repairs the cable between two addresses.
    pub fn heal(&self, one: &str, other: &str) {
        self.wiring.lock().cuts.remove(&ordered(one, other));
    }

    fn is_cut(&self, ends: &(String, String)) -> bool {
        self.wiring.lock().cuts.contains(ends)
    }
}

fn ordered(one: &str, other: &str) -> (String, String) {
    if one <= other { (one.to_owned(), other.to_owned()) } else { (other.to_owned(), one.to_owned()) }
}

impl Transport for Memory {
    type Stream = MemoryStream;

    async fn connect(&self, address: &str) -> io::Result<MemoryStream> {
        let ends = ordered(&self.address, address);
        if self.network.is_cut(&ends) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let listener = self.network.wiring.lock().listeners.get(address).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (mine, theirs) = duplex(BUFFER_BYTES);
        let stream = |inner| MemoryStream { inner, network: self.network.clone(), ends: ends.clone() };
        listener.send(stream(theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(stream(mine))
    }

    async fn accept(&self) -> io::Result<MemoryStream> {
        self.incoming.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl MemoryStream {
    fn check(&self) -> io::Result<()> {
        if self.network.is_cut(&self.ends) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
