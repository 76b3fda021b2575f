//! Connections to processes: one [`Backend`] per process, with its pool and its observed health.

pub mod connect;
pub mod health;
pub mod io;
pub mod pool;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use hyper::{Request, Response, body::Incoming};
use tokio_util::sync::CancellationToken;
use tucano_api::ids::{NodeName, ProcessId};

use crate::{client::edits::is_escaped, limits::Limits, request_body::RequestBody};
use health::{Health, uptime};
use pool::{Link, Pool, Reuse};

/// One process, for as long as the route table contains it.
#[derive(Debug)]
pub struct Backend {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it accepts connections, as observed by requests.
    pub health: Health,
    /// Idle connections.
    pub pool: Pool,
    lost: CancellationToken,
    draining: AtomicBool,
    in_flight: AtomicUsize,
}

/// A request in flight to a process, or an upgraded connection, until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

/// One connection to a process, owned by the request that uses it.
#[derive(Debug)]
pub struct Connection {
    backend: Arc<Backend>,
    link: Link,
    reused: bool,
    in_flight: InFlight,
}

/// A request without a response head.
#[derive(Debug)]
pub struct SendFailure {
    /// hyper's error.
    pub error: hyper::Error,
    /// Whether no byte of the request was sent.
    pub unsent: bool,
}

impl Backend {
    /// A process without history.
    pub fn new(process: ProcessId, node: NodeName, address: SocketAddr) -> Self {
        Self {
            process,
            node,
            address,
            health: Health::default(),
            pool: Pool::default(),
            lost: CancellationToken::new(),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Counts a request; `None` if the process gets no new ones.
    pub fn begin(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, SeqCst);
        let request = InFlight(self.clone());
        // The request is counted before the mark is read, so either it sees the mark or the task that sets the mark counts it.
        (!self.draining.load(SeqCst)).then_some(request)
    }

    /// Whether the process gets new requests from now on. Must be called once the table that says so is in force.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, SeqCst);
    }

    /// Whether it drains and has nothing in flight, and so never will.
    pub fn is_drained(&self) -> bool {
        self.draining.load(SeqCst) && !self.is_used()
    }

    /// Whether a request is in flight to it.
    pub fn is_used(&self) -> bool {
        self.in_flight.load(SeqCst) > 0
    }

    /// The route table no longer contains the process: requests stop waiting for its response.
    pub fn mark_lost(&self) {
        self.pool.close();
        self.lost.cancel();
    }

    /// Whether the route table no longer contains the process.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Returns when the route table no longer contains the process.
    pub async fn wait_lost(&self) {
        self.lost.cancelled().await;
    }

    /// An idle connection whose last exchange is complete, if there is one.
    pub async fn pooled(&self, reuse: Reuse, limits: &Limits) -> Option<Link> {
        while let Some(mut link) = self.pool.take(uptime(), reuse, limits) {
            if link.sender.ready().await.is_ok() {
                link.is_reused = true;
                return Some(link);
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(&self, limits: &Limits) -> Result<Link, connect::Error> {
        let link = connect::connect(self.address, limits).await?;
        self.health.succeeded();
        Ok(link)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Connection {
    /// For one request over `link`.
    pub fn new(link: Link, in_flight: InFlight) -> Self {
        Self {
            backend: in_flight.0.clone(),
            reused: link.is_reused,
            link,
            in_flight,
        }
    }

    /// The upgraded connection stays in flight for as long as the result exists.
    pub fn into_in_flight(self) -> InFlight {
        self.in_flight
    }

    /// The process at the other end.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whether it has carried another request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends the request and waits for the response head. Dropping the future closes the connection.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let target = request.uri().path_and_query();
        if target.is_some_and(|target| is_escaped(target.as_str())) {
            self.link.escaped.announce();
        }
        let sent = self.link.sender.try_send_request(request).await;
        sent.map_err(|mut error| SendFailure {
            unsent: error.take_message().is_some(),
            error: error.into_error(),
        })
    }

    /// Returns it to the pool: its exchange is complete in both directions.
    pub fn keep(self, limits: &Limits) {
        self.backend.pool.put(self.link, uptime(), limits);
    }

    /// Closes it, even while the request's body is being sent.
    pub fn abort(self) {
        self.link.task.abort();
    }
}
