use std::net::IpAddr;

use tucano_api::{ids::NodeName, names::ServiceSubnet, service::Labels, units::Span};

/// The planner's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A worker that has not reported for this long is not alive.
    pub lease: Span,
    /// How long a process that gets no new requests may finish those in flight, at most; a service's own `drain` takes
    /// precedence.
    pub drain: Span,
    /// How long the set of alive workers must be the same before processes are moved to spread them evenly.
    pub rebalance_after: Span,
    /// Attempts to restart a missing worker before it is dead.
    pub restart_attempts: u32,
    /// Time between the first two attempts; doubles with each further one.
    pub restart_backoff: Span,
    /// How long a worker may take to report after its restart command succeeded.
    pub restart_grace: Span,
    /// A process that ends this often in a row is alerted as crashing.
    pub crash_alert_after: u32,
    /// How long a process must be healthy to count as recovered.
    pub recovered_after: Span,
    /// Revisions of each service that are kept, including the current one.
    pub revisions_kept: usize,
    /// Runs of each service that are kept after their end.
    pub runs_kept: usize,
    /// Domain below which every service has a host name, `<name>.<domain>`.
    pub domain: String,
    /// The network that services have their addresses in.
    pub service_subnet: ServiceSubnet,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Span::secs(6),
            drain: Span::secs(30),
            rebalance_after: Span::secs(30),
            restart_attempts: 3,
            restart_backoff: Span::secs(5),
            restart_grace: Span::secs(60),
            crash_alert_after: 3,
            recovered_after: Span::secs(30),
            revisions_kept: 5,
            runs_kept: 20,
            domain: "localhost".to_owned(),
            service_subnet: ServiceSubnet::default(),
        }
    }
}

/// A worker of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its canonical name.
    pub name: NodeName,
    /// Its address.
    pub ip: IpAddr,
    /// Its labels.
    pub labels: Labels,
    /// Whether the topology has a `restart` command for it.
    pub can_restart: bool,
}
