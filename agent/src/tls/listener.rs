//! The listening socket of the agent's API, with the TLS handshake done before a connection is accepted.

use std::net::SocketAddr;

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::TcpListener;
use tucano_tls::{Incoming, ProtocolSniffer, Stream, incoming::Bounds};

use crate::settings::Limits;

/// Accepts the controller's connections, for [`axum::serve`].
#[derive(Debug)]
pub struct SniffingListener {
    incoming: Incoming,
    local: SocketAddr,
}

impl SniffingListener {
    /// Starts to accept; handshakes are bounded by `limits.handshakes` and `limits.handshake_timeout`.
    ///
    /// # Errors
    /// The socket has no local address.
    pub fn open(
        listener: TcpListener,
        sniffer: ProtocolSniffer,
        limits: &Limits,
    ) -> std::io::Result<Self> {
        let local = listener.local_addr()?;
        let bounds = Bounds {
            pending: limits.handshakes,
            handshake_timeout: limits.handshake_timeout.0,
        };
        let incoming = Incoming::new(listener, sniffer, bounds);
        Ok(Self { incoming, local })
    }
}

/// The address of a client.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, SniffingListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, SniffingListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener for SniffingListener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        self.incoming.next().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}
