//! The route table: what discovery gives to the balancer, as a whole, each time it changes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{NodeName, ProcessId, ServiceName};

/// All routes. Body of `GET /v1/routes?after=VERSION` on the controller, which answers as soon as
/// its table's version differs from VERSION, or with 204 after 20 s without a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteTable {
    /// Opaque; differs whenever the table does, across restarts of the controller too.
    pub version: String,
    /// Every configured service, ordered by name; also those without endpoints, which answer 503.
    pub services: Vec<ServiceRoute>,
}

/// How requests reach one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRoute {
    /// The service.
    pub service: ServiceName,
    /// Host names, in lower case, `<name>.<domain>` among them.
    pub hosts: Vec<String>,
    /// Only paths that begin with this, on a `/` boundary; the longest one that matches wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Where its processes answer, ordered by process. An endpoint that leaves the table is
    /// abandoned at once: requests that wait for its answer and may be repeated are sent to another.
    pub endpoints: Vec<Endpoint>,
}

/// Where one process answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// The node's address and the port that is forwarded to the process.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// Share of requests relative to the service's other endpoints: 1 to 100.
    pub weight: u32,
    /// It gets no new requests; those in progress may finish.
    #[serde(default)]
    pub draining: bool,
}
