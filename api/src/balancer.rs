//! What a balancer reports to the controller whose routes it follows: which draining processes it has no request in
//! flight to, and its counters. A report is a level: the whole state, so that lost and doubled ones do no harm.

use serde::{Deserialize, Serialize};

use utoipa::ToSchema;

use crate::ids::{BalancerId, BalancerName, ProcessId, ServiceName};

/// Header with the [`BalancerId`] in requests for the route table. Balancers of earlier versions do not send it, and
/// earlier controllers ignore it.
pub const BALANCER_HEADER: &str = "x-tucano-balancer";

/// Most processes that a report names.
pub const MAX_DRAINED: usize = 10_000;

/// Body of `POST /v1/balancer_certificates` on the controller: a balancer on another machine asks for its next certificate,
/// or the sysadmin for its first one. The answer is a [`Certificate`](crate::agent::Certificate).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BalancerCertificateRequest {
    /// The balancer's name, one of `api.balancers` in `ctl.toml`.
    #[schema(value_type = String)]
    pub name: BalancerName,
    /// The balancer's key, which signs this (PKCS #10, in PEM).
    pub request: String,
}

/// Body of `POST /v1/balancer_reports` on the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerReport {
    /// The balancer.
    pub balancer: BalancerId,
    /// Version of the table in force; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Processes that drain in that table and have no request in flight: none whose body is being sent, none whose
    /// response is not read to its end, no upgraded connection.
    #[serde(default)]
    pub drained: Vec<ProcessId>,
    /// Whether this is its last report: it has exited, with all its connections.
    #[serde(default)]
    pub leaving: bool,
    /// Its counters.
    #[serde(default)]
    pub metrics: BalancerMetrics,
}

/// A balancer's counters since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerMetrics {
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests that were malformed or matched no service.
    pub refused: u64,
    /// Open client connections.
    pub connections: i64,
    /// By service.
    pub services: Vec<ServiceMetrics>,
}

/// The counters of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceMetrics {
    /// The service.
    pub service: ServiceName,
    /// Responses to clients by status class, 1xx to 5xx.
    #[serde(default)]
    pub responses: [u64; 5],
    /// Retried requests.
    #[serde(default)]
    pub retries: u64,
    /// Ejections of processes that refused a connection.
    #[serde(default)]
    pub ejections: u64,
    /// Requests in flight.
    #[serde(default)]
    pub in_flight: i64,
    /// Upgraded connections, such as WebSockets.
    #[serde(default)]
    pub tunnels: i64,
}
