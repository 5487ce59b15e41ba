//! TCP.
//!
//! A partition that drops packets looks like silence. Connections that carry nothing are probed, so that they end on both
//! sides and are opened anew when the network is whole again.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use tokio::net::{TcpListener, TcpStream};

use super::Transport;

/// A silent connection is probed after this, and then again and again.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection ends when so many probes have no answer, or when what was sent is not acknowledged for as long as they take.
const PROBES: u32 = 3;
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5 + 2 * 3);

/// Connections over TCP; addresses are `host:port`.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
}

impl Tcp {
    /// Accepts peers on a listener that is bound already, so that a port in use is the caller's error to report.
    pub fn new(listener: TcpListener) -> Tcp {
        Tcp { listener }
    }
}

impl Transport for Tcp {
    type Stream = TcpStream;

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        prepared(TcpStream::connect(address).await?)
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept().await?;
        prepared(stream)
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(stream)
}
