//! State shared by all requests: the route table in force, the limits, the counters.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tucano_api::routes::RouteTable;

use crate::{
    limits::Limits, metrics::ClientStats, table::Table, upstream::health::uptime, waiting::Waiting,
};

/// The data plane's shared state. Requests read the table without a lock.
#[derive(Debug)]
pub struct DataPlane {
    /// Limits.
    pub limits: Limits,
    /// Whether clients' `X-Forwarded-*` headers are trusted.
    pub trust_forwarded: bool,
    /// Counters that belong to no service.
    pub clients: Arc<ClientStats>,
    /// Open tunnels. A tunnel outlives the HTTP part of its client connection.
    pub tunnels: TaskTracker,
    /// Requests without routes or without a process to go to.
    pub waiting: Arc<Waiting>,
    table: ArcSwap<Table>,
    changed: watch::Sender<()>,
}

impl DataPlane {
    /// A data plane without routes.
    pub fn new(limits: Limits, trust_forwarded: bool) -> Self {
        Self {
            limits,
            trust_forwarded,
            clients: Arc::default(),
            tunnels: TaskTracker::new(),
            waiting: Arc::default(),
            table: ArcSwap::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// The routes in force.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Tells when new routes have been put in force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Puts new routes in force, then wakes requests that wait for a lost process: they look up the new
    /// routes when they choose another one. Must be called from one task only.
    pub fn publish(&self, routes: RouteTable) {
        let previous = self.table.load_full();
        let next = Arc::new(Table::compile(routes, &previous));
        self.table.store(next.clone());
        self.changed.send_replace(());
        for backend in previous.lost_in(&next) {
            backend.mark_lost();
        }
        // The pools of draining processes are closed already when they leave the table.
        next.update_pools();
    }

    /// Closes pooled connections that have been idle for too long.
    pub fn reap(&self) {
        let now = uptime();
        for backend in self.table.load().backends() {
            backend.pool.reap(now, self.limits.upstream_idle_timeout);
        }
    }
}
