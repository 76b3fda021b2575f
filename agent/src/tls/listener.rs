//! The listening socket of the agent's API, with the TLS handshake done before a connection is accepted.

use std::net::SocketAddr;

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::TcpListener;
use tucano_tls::{Identity, Incoming, Lingering, ProtocolSniffer, Stream, incoming::Bounds};

use super::connections::{Connections, Evictable};
use crate::settings::Limits;

/// Accepts the controller's connections, for [`axum::serve`].
#[derive(Debug)]
pub struct SniffingListener {
    incoming: Incoming,
    connections: Connections,
    local: SocketAddr,
}

impl SniffingListener {
    /// Starts to accept; handshakes are bounded by `limits.handshakes` and `limits.handshake_timeout`, connections of other
    /// clients than the controller by `limits.connections`.
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
        Ok(Self {
            incoming,
            connections: Connections::new(limits.connections),
            local,
        })
    }
}

/// The client of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The identity of its certificate.
    pub identity: Option<Identity>,
}

impl Connected<IncomingStream<'_, SniffingListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, SniffingListener>) -> Self {
        Self {
            address: *stream.remote_addr(),
            identity: stream.io().get_ref().get_ref().identity(),
        }
    }
}

impl Listener for SniffingListener {
    type Io = Lingering<Evictable<Stream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, from) = self.incoming.next().await;
        let stream = match stream.identity() {
            Some(Identity::Controller) => Connections::reserved(stream),
            _ => self.connections.admit(stream),
        };
        (Lingering::new(stream), from)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}
