//! A listener whose connections pass a [`ProtocolSniffer`] concurrently: a silent client does not delay others.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{ProtocolSniffer, Stream};

/// Pause after a failed accept, such as for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Bounds on connections before their first request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most pending handshakes; beyond, the oldest is closed.
    pub pending: usize,
    /// Longest time until a handshake is complete, or a plain request begins.
    pub handshake_timeout: Duration,
}

/// Accepted connections.
#[derive(Debug)]
pub struct Incoming {
    entered: mpsc::Receiver<(Stream, SocketAddr)>,
    /// Aborts pending handshakes when dropped.
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Starts to accept connections.
    pub fn new(listener: TcpListener, sniffer: ProtocolSniffer, bounds: Bounds) -> Self {
        let (enter, entered) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, sniffer, bounds, enter));
        Self {
            entered,
            _accepting: accepting,
        }
    }

    /// The next accepted connection.
    pub async fn next(&mut self) -> (Stream, SocketAddr) {
        match self.entered.recv().await {
            Some(entered) => entered,
            // Only during shutdown.
            None => std::future::pending().await,
        }
    }
}

async fn accept_all(
    listener: TcpListener,
    sniffer: ProtocolSniffer,
    bounds: Bounds,
    enter: mpsc::Sender<(Stream, SocketAddr)>,
) {
    let mut handshakes = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    oldest_first.retain(|one| !one.is_finished());
                    if oldest_first.len() >= bounds.pending && let Some(oldest) = oldest_first.pop_front() {
                        oldest.abort();
                    }
                    let handshake = handshake(sniffer.clone(), stream, from, bounds.handshake_timeout, enter.clone());
                    oldest_first.push_back(handshakes.spawn(handshake));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn handshake(
    sniffer: ProtocolSniffer,
    stream: TcpStream,
    from: SocketAddr,
    max_wait: Duration,
    enter: mpsc::Sender<(Stream, SocketAddr)>,
) {
    // Answers are small and latency matters.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    match timeout(max_wait, sniffer.accept(stream)).await {
        Ok(Ok(stream)) => drop(enter.send((stream, from)).await),
        Ok(Err(error)) => tracing::debug!(%from, %error, "a connection was refused"),
        Err(_) => tracing::debug!(%from, "a connection sent nothing in time"),
    }
}

#[cfg(test)]
mod tests;
