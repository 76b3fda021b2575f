//! Accepting clients, within the bound on connections.

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

use super::{Client, gate::Gate, io::ClientIo};
use crate::{
    plane::Plane,
    proxy,
    upstream::connect::{READ_BUFFER_MAX, tune},
};

/// Time to wait when the system has no descriptors left: some have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes clients, each in a task of its own.
#[derive(Debug, Clone)]
pub struct Acceptor {
    plane: Arc<Plane>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    /// Stops taking clients, and requests of those it has, when `stop` is cancelled.
    pub fn new(plane: Arc<Plane>, stop: CancellationToken) -> Self {
        // The semaphore's own maximum is far above the number of ports.
        let places = plane.limits.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            plane,
            places: Arc::new(Semaphore::new(places)),
            connections: TaskTracker::new(),
            stop,
        }
    }

    /// Takes clients from `listener` until told to stop.
    pub async fn run(self, listener: TcpListener) {
        // While all places are taken nothing is accepted: clients wait in the kernel's queue.
        while let Some(place) = self.place().await {
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

    /// Ends when all connections have.
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            place = self.places.clone().acquire_owned() => place.ok(),
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
                Err(error) => survive(error).await,
            }
        }
    }

    async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        let _counted = self.plane.clients.connected();
        tune(&stream);
        let gate = Arc::new(Gate::default());
        let client = Client {
            address,
            gate: gate.clone(),
        };
        let service = service_fn(|request: Request<Incoming>| {
            let (plane, client) = (self.plane.clone(), client.clone());
            async move { Ok::<_, Infallible>(proxy::answer(&plane, &client, request).await) }
        });
        let io = ClientIo::new(stream, gate.clone(), &self.plane.limits);
        let connection = self.http().serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopped(&gate) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(client = %address, %error, "client connection ended");
        }
    }

    /// Waits until this connection is to take no more requests. One that was let in a moment ago takes its first, which may be on
    /// its way: closed before it is read, the client would have no answer to it.
    async fn stopped(&self, gate: &Gate) {
        self.stop.cancelled().await;
        let patience = self.plane.limits.first_request_timeout;
        timeout(patience, gate.first_request()).await.ok();
    }

    fn http(&self) -> http1::Builder {
        let limits = &self.plane.limits;
        let mut http = http1::Builder::new();
        http.max_headers(limits.max_headers)
            .max_buf_size(limits.head_len().max(READ_BUFFER_MAX))
            // `ClientIo` has its own, which tell a slow head from an idle connection.
            .header_read_timeout(None);
        http
    }
}

/// A failed accept concerns one client, or passes when descriptors are free again.
async fn survive(error: io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
            debug!(%error, "a client was gone before it was accepted");
        }
        _ => {
            warn!(%error, "cannot accept connections, trying again");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
