//! Accepts client connections, up to the limit.

use std::{
    io,
    net::{self, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_local,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    admission::{Admission, Admitted},
    client::Client,
    connection,
    state::ConnectionState,
};
use crate::{back::connect::tune, metrics::ConnectionCount, plane::DataPlane, worker::Worker};

/// Pause after a failed accept: descriptors must become free first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Clients that are still accepted from the queue of a socket that is about to be closed.
const QUEUE_MAX: usize = 1024;

/// Time after which a client that acknowledges nothing counts as gone: those of mobile networks come back after a while.
const UNREACHABLE_CLIENT: Duration = Duration::from_secs(60);

/// How often clients that wait for a slot are looked for.
const RECYCLE_INTERVAL: Duration = Duration::from_millis(50);

/// A listening socket that one thread accepts from, on its own or with others.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: net::TcpListener,
    /// Whether it stays open elsewhere when the balancer closes it, and clients wait in it.
    pub is_inherited: bool,
}

/// Accepts clients, each in a task of its own. The limits of connections hold over all threads: slots and addresses are
/// counted once for each connection, not for each request.
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
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub async fn run(self, worker: Rc<Worker>, listener: Listener) -> io::Result<()> {
        let owns_queue = !listener.is_inherited;
        let listener = TcpListener::from_std(listener.socket)?;
        // While no slot is free nothing is accepted: clients wait in the kernel's accept queue, and idle
        // connections are closed for them.
        while let Some(free) = self.slot(|| has_waiting(&listener)).await {
            // Other threads need it while there is nobody to be accepted.
            drop(free);
            let Some(connection) = self.next(&listener).await else {
                break;
            };
            // Another thread may have taken it meanwhile. Then this client waits, one for each thread.
            match self.slot(|| true).await {
                Some(slot) => self.spawn(&worker, connection, slot),
                None => self.spawn_last(&worker, connection).await,
            }
        }
        for _ in 0..QUEUE_MAX {
            let (Ok(slot), true) = (self.slots.clone().try_acquire_owned(), owns_queue) else {
                break;
            };
            match listener.accept().now_or_never() {
                Some(Ok(connection)) => self.spawn(&worker, connection, slot),
                _ => break,
            }
        }
        Ok(())
    }

    /// What all threads share.
    pub fn plane(&self) -> &Arc<DataPlane> {
        &self.plane
    }

    /// Asks all connections to close once they are idle.
    pub fn stop_all(&self) {
        self.admission.stop_all();
    }

    /// Returns when all connections have ended.
    pub async fn drained(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// A client that was accepted just before the end gets a slot if one becomes free in time.
    async fn spawn_last(&self, worker: &Rc<Worker>, connection: (TcpStream, SocketAddr)) {
        let patience = self.plane.limits.first_request_timeout;
        if let Ok(Ok(slot)) = timeout(patience, self.slots.clone().acquire_owned()).await {
            self.spawn(worker, connection, slot);
        }
    }

    /// A free slot; none if stopped. While there is none, and `is_needed`, an idle connection is asked to make room.
    async fn slot(&self, is_needed: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        let mut slot = std::pin::pin!(self.slots.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                slot = &mut slot => return slot.ok(),
                () = self.stop.cancelled() => return None,
                () = sleep(RECYCLE_INTERVAL) => {
                    if is_needed() {
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

    fn spawn(
        &self,
        worker: &Rc<Worker>,
        (stream, address): (TcpStream, SocketAddr),
        slot: OwnedSemaphorePermit,
    ) {
        let counted = ConnectionCount::new(&self.plane, worker.thread);
        let open = self.connections.token();
        tune(&stream, UNREACHABLE_CLIENT);
        let state = ConnectionState::new();
        let admitted = self.admit(address, &state);
        if self.stop.is_cancelled() {
            state.stop();
        }
        let mut client = Client::new(stream, address, state);
        client.is_over_limit = !admitted.is_within_limit;
        let worker = worker.clone();
        spawn_local(async move {
            connection::run(&worker, &mut client).await;
            // The descriptor is free before the slot is.
            drop(client);
            drop((admitted, slot, counted, open));
        });
    }

    fn admit(&self, address: SocketAddr, state: &Arc<ConnectionState>) -> Admitted {
        let limit = match self.plane.trust_forwarded {
            true => usize::MAX,
            false => self.plane.limits.max_connections_per_address,
        };
        self.admission.admit(address.ip(), state.clone(), limit)
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
