//! TCP.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use super::Transport;

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
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
