//! Accepts client connections, up to the limit.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Client, io::ClientIo, state::ConnectionState};
use crate::{
    plane::DataPlane,
    proxy,
    upstream::connect::{READ_BUFFER_MAX, tune},
};

/// Pause after a failed accept: descriptors must become free first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients, each in a task of its own.
#[derive(Debug, Clone)]
pub struct Acceptor {
    plane: Arc<DataPlane>,
    slots: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    /// Accepts no more clients and requests once `stop` is cancelled.
    pub fn new(plane: Arc<DataPlane>, stop: CancellationToken) -> Self {
        // The semaphore's maximum is far above the number of ports.
        let slots = plane.limits.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            plane,
            slots: Arc::new(Semaphore::new(slots)),
            connections: TaskTracker::new(),
            stop,
        }
    }

    /// Accepts clients from `listener` until stopped.
    pub async fn run(self, listener: TcpListener) {
        // While no slot is free nothing is accepted: clients wait in the kernel's accept queue.
        while let Some(place) = self.slot().await {
            let Some((stream, address)) = self.next(&listener).await else {
                return;
            };
            let acceptor = self.clone();
            self.connections.spawn(async move {
                acceptor.serve(stream, address).await;
                drop(place);
            });
        }
    }

    /// Returns when all connections have ended.
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            place = self.slots.clone().acquire_owned() => place.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return None,
            };
            match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => handle_accept_error(error).await,
            }
        }
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        let _counted = self.plane.clients.connected();
        tune(&stream);
        let state = Arc::new(ConnectionState::default());
        let client = Client {
            address,
            state: state.clone(),
        };
        let service = service_fn(|request: Request<Incoming>| {
            let (plane, client) = (self.plane.clone(), client.clone());
            async move { Ok::<_, Infallible>(proxy::answer(&plane, &client, request).await) }
        });
        let io = ClientIo::new(stream, state.clone(), &self.plane.limits);
        let connection = self.http().serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopped(&state) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(client = %address, %error, "client connection ended");
        }
    }

    /// Waits until this connection must accept no more requests. The first request of a connection is still
    /// accepted for a while: it may be in flight already, and closing now would lose it.
    async fn stopped(&self, state: &ConnectionState) {
        self.stop.cancelled().await;
        let patience = self.plane.limits.first_request_timeout;
        timeout(patience, state.first_request()).await.ok();
    }

    fn http(&self) -> http1::Builder {
        let limits = &self.plane.limits;
        let mut http = http1::Builder::new();
        http.max_headers(limits.max_headers)
            .max_buf_size(limits.head_len().max(READ_BUFFER_MAX))
            // `ClientIo` has its own timeouts, which distinguish a slow head from an idle connection.
            .header_read_timeout(None);
        http
    }
}

/// A failed accept concerns one client, or resolves once descriptors are free again.
async fn handle_accept_error(error: io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
            debug!(%error, "a client disconnected before it was accepted");
        }
        _ => {
            warn!(%error, "cannot accept connections, trying again");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
