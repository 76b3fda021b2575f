//! The processes' side: one [`Backend`] per process, with its connections and what was seen of its health.

pub mod connect;
pub mod health;
pub mod pool;

use std::{net::SocketAddr, sync::Arc};

use hyper::{Request, Response, body::Incoming};
use tokio_util::sync::CancellationToken;
use tucano_api::ids::{NodeName, ProcessId};

use crate::{limits::Limits, request_body::RequestBody};
use health::{Health, uptime};
use pool::{Link, Pool};

/// One process as the balancer knows it, for as long as the route table has it.
#[derive(Debug)]
pub struct Backend {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// Where it answers.
    pub address: SocketAddr,
    /// Whether it takes connections, as seen by requests.
    pub health: Health,
    /// Connections that wait for a request.
    pub pool: Pool,
    lost: CancellationToken,
}

/// One connection to a process, held by the request that uses it.
#[derive(Debug)]
pub struct Connection {
    backend: Arc<Backend>,
    link: Link,
    reused: bool,
}

/// A request that got no response head.
#[derive(Debug)]
pub struct SendFailure {
    /// hyper's error.
    pub error: hyper::Error,
    /// Whether the process cannot have seen any of the request.
    pub unsent: bool,
}

impl Backend {
    /// A process that nothing is known of yet.
    pub fn new(process: ProcessId, node: NodeName, address: SocketAddr) -> Self {
        Self {
            process,
            node,
            address,
            health: Health::default(),
            pool: Pool::default(),
            lost: CancellationToken::new(),
        }
    }

    /// The process is gone from the routes: requests that wait for its answer need not wait longer.
    pub fn lose(&self) {
        self.pool.close();
        self.lost.cancel();
    }

    /// Whether the process is gone from the routes.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Ends when the process is gone from the routes.
    pub async fn until_lost(&self) {
        self.lost.cancelled().await;
    }

    /// A connection whose last exchange is over, if one waits.
    pub async fn pooled(self: &Arc<Self>, limits: &Limits) -> Option<Connection> {
        while let Some(mut link) = self.pool.take(uptime(), limits.upstream_idle_timeout) {
            if link.sender.ready().await.is_ok() {
                return Some(Connection {
                    backend: self.clone(),
                    link,
                    reused: true,
                });
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(self: &Arc<Self>, limits: &Limits) -> Result<Connection, connect::Error> {
        let link = connect::connect(self.address, limits).await?;
        self.health.succeeded();
        Ok(Connection {
            backend: self.clone(),
            link,
            reused: false,
        })
    }
}

impl Connection {
    /// The process at the other end.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whether it has carried another request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends the request and waits for the head of its response. Dropping the future closes the connection.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let sent = self.link.sender.try_send_request(request).await;
        sent.map_err(|mut error| SendFailure {
            unsent: error.take_message().is_some(),
            error: error.into_error(),
        })
    }

    /// Keeps it for the next request: its exchange is complete both ways.
    pub fn keep(self, limits: &Limits) {
        self.backend.pool.put(self.link, uptime(), limits);
    }

    /// Closes it, even while the request's body is still on its way.
    pub fn abort(self) {
        self.link.task.abort();
    }
}
