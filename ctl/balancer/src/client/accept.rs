//! Accepts client connections, up to the limit.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    Client,
    admission::{Admission, Admitted},
    io::ClientIo,
    state::ConnectionState,
};
use crate::{
    plane::DataPlane,
    proxy,
    upstream::connect::{READ_BUFFER_MAX, tune},
};

/// Pause after a failed accept: descriptors must become free first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Clients that are still accepted from the queue of a socket that is about to be closed.
const QUEUE_MAX: usize = 1024;

/// Time after which a client that acknowledges nothing counts as gone: those of mobile networks come back after a while.
const UNREACHABLE_CLIENT: Duration = Duration::from_secs(60);

/// How often clients that wait for a slot are looked for.
const RECYCLE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a connection over the limit of its address is kept for its request, which gets the reason.
const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts clients, each in a task of its own.
#[derive(Debug, Clone)]
pub struct Acceptor {
    plane: Arc<DataPlane>,
    slots: Arc<Semaphore>,
    admission: Arc<Admission>,
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
            admission: Arc::default(),
            connections: TaskTracker::new(),
            stop,
        }
    }

    /// Accepts clients from `listener` until stopped. If the balancer owns the socket, those that wait in its queue
    /// then are accepted too: closing it would reset them.
    pub async fn run(self, listener: TcpListener, owns_queue: bool) {
        // While no slot is free nothing is accepted: clients wait in the kernel's accept queue, and idle
        // connections are closed for them.
        while let Some(slot) = self.slot(&listener).await {
            let Some(connection) = self.next(&listener).await else {
                break;
            };
            self.spawn(connection, slot);
        }
        for _ in 0..QUEUE_MAX {
            let (Ok(slot), true) = (self.slots.clone().try_acquire_owned(), owns_queue) else {
                return;
            };
            match listener.accept().now_or_never() {
                Some(Ok(connection)) => self.spawn(connection, slot),
                _ => return,
            }
        }
    }

    fn spawn(&self, (stream, address): (TcpStream, SocketAddr), slot: OwnedSemaphorePermit) {
        let acceptor = self.clone();
        self.connections.spawn(async move {
            acceptor.serve(stream, address).await;
            drop(slot);
        });
    }

    /// Returns when all connections have ended.
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    async fn slot(&self, listener: &TcpListener) -> Option<OwnedSemaphorePermit> {
        let mut slot = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                slot = &mut slot => return slot.ok(),
                () = self.stop.cancelled() => return None,
                () = sleep(RECYCLE_INTERVAL) => {
                    if has_waiting(listener) {
                        self.admission.recycle();
                    }
                }
            }
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
        tune(&stream, UNREACHABLE_CLIENT);
        let state = ConnectionState::new();
        let stream = Arc::new(stream);
        let client = Client {
            address,
            state: state.clone(),
            stream: stream.clone(),
        };
        let _admitted = self.admit(address, &state);
        if self.has_begun(&stream, &state).await {
            // Boxed, so that a connection costs little until its first bytes.
            Box::pin(self.serve_http(client)).await;
        }
    }

    fn admit(&self, address: SocketAddr, state: &Arc<ConnectionState>) -> Admitted {
        let limit = match self.plane.trust_forwarded {
            true => usize::MAX,
            false => self.plane.limits.max_connections_per_address,
        };
        let admitted = self.admission.admit(address.ip(), state.clone(), limit);
        if !admitted.is_within_limit {
            state.set_over_limit();
        }
        admitted
    }

    async fn serve_http(&self, client: Client) {
        let (state, address) = (client.state.clone(), client.address);
        let io = ClientIo::new(client.stream.clone(), state.clone(), &self.plane.limits);
        let service = service_fn(|request: Request<Incoming>| {
            let (plane, client) = (self.plane.clone(), client.clone());
            async move { Ok::<_, Infallible>(proxy::answer(&plane, &client, request).await) }
        });
        let connection = self.http().serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopped_or_recycled(&state) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(client = %address, %error, "client connection ended");
        }
    }

    async fn stopped_or_recycled(&self, state: &ConnectionState) {
        tokio::select! {
            () = self.stopped(state) => {}
            () = state.wait_recycled() => {}
        }
    }

    /// Waits for the client's first bytes. Until then a connection costs little memory. Returns false if it is to
    /// be closed instead.
    async fn has_begun(&self, stream: &TcpStream, state: &ConnectionState) -> bool {
        let patience = match state.is_over_limit() {
            true => OVER_LIMIT_TIMEOUT,
            false => self.plane.limits.idle_timeout,
        };
        tokio::select! {
            biased;
            ready = timeout(patience, stream.readable()) => {
                matches!(ready, Ok(Ok(())))
            }
            () = self.stopped_or_recycled(state) => false,
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

/// Whether a client waits to be accepted.
fn has_waiting(listener: &TcpListener) -> bool {
    let mut waiting = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut waiting, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
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
