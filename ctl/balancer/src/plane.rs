//! What requests share: the route table in force, the limits, the counters.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio_util::task::TaskTracker;
use tucano_api::routes::RouteTable;

use crate::{limits::Limits, metrics::ClientStats, table::Table, upstream::health::uptime};

/// The data plane's shared state. Requests read the table without a lock.
#[derive(Debug)]
pub struct Plane {
    /// Bounds.
    pub limits: Limits,
    /// Whether clients' `X-Forwarded-*` headers are believed.
    pub trust_forwarded: bool,
    /// Numbers that belong to no service.
    pub clients: Arc<ClientStats>,
    /// Tunnels under way, which outlive their client connections' HTTP part.
    pub tunnels: TaskTracker,
    table: ArcSwap<Table>,
}

impl Plane {
    /// A data plane without routes.
    pub fn new(limits: Limits, trust_forwarded: bool) -> Self {
        Self {
            limits,
            trust_forwarded,
            clients: Arc::default(),
            tunnels: TaskTracker::new(),
            table: ArcSwap::default(),
        }
    }

    /// The routes in force.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Puts new routes in force, then tells requests that wait for a lost process: they find the new
    /// routes when they look for another one. To be called by one task only.
    pub fn publish(&self, routes: RouteTable) {
        let previous = self.table.load_full();
        let next = Arc::new(Table::compile(routes, &previous));
        self.table.store(next.clone());
        for backend in previous.lost_in(&next) {
            backend.lose();
        }
        // Draining ones that are gone have their pools closed already.
        next.settle_pools();
    }

    /// Closes connections to processes that have been unused for too long.
    pub fn reap(&self) {
        let now = uptime();
        for backend in self.table.load().backends() {
            backend.pool.reap(now, self.limits.upstream_idle_timeout);
        }
    }
}
