//! State shared by all requests: the route table in force, the limits, the counters.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tucano_api::{balancer::MAX_DRAINED, ids::ProcessId, routes::RouteTable};

use crate::{
    core::{backend::Backend, table::Table, waiting::Waiting},
    limits::Limits,
    metrics::ClientStats,
};

/// The data plane's shared state. Requests read the table without a lock.
#[derive(Debug)]
pub struct DataPlane {
    /// Limits.
    pub limits: Limits,
    /// Whether clients' `X-Forwarded-*` headers are trusted.
    pub trust_forwarded: bool,
    /// Number of threads that serve clients.
    pub threads: usize,
    /// Counters that belong to no service.
    pub clients: ClientStats,
    /// Open tunnels.
    pub tunnels: TaskTracker,
    /// Requests without routes or without a process to go to.
    pub waiting: Arc<Waiting>,
    table: ArcSwap<Table>,
    changed: watch::Sender<()>,
    /// Processes that have left the table with requests in flight. One may enter it again, at another address or as
    /// another backend.
    departed: Mutex<Vec<Arc<Backend>>>,
}

/// How far the draining processes of a table are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    /// The table's version.
    pub table: Option<String>,
    /// Those that have nothing in flight.
    pub drained: Vec<ProcessId>,
    /// Whether others have.
    pub some_in_flight: bool,
}

impl DataPlane {
    /// A data plane without routes.
    pub fn new(limits: Limits, trust_forwarded: bool, threads: usize) -> Self {
        Self {
            limits,
            trust_forwarded,
            threads,
            clients: ClientStats::new(threads),
            tunnels: TaskTracker::new(),
            waiting: Arc::default(),
            table: ArcSwap::default(),
            changed: watch::Sender::new(()),
            departed: Mutex::default(),
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

    /// Puts new routes in force, then tells all threads: they wake requests that wait for a lost process, which look up the
    /// new routes when they choose another one. Must be called from one task only.
    pub fn publish(&self, routes: RouteTable) {
        let previous = self.table.load_full();
        let next = Arc::new(Table::compile(routes, &previous, self.threads));
        self.table.store(next.clone());
        next.mark_draining();
        for backend in previous.lost_in(&next) {
            backend.mark_lost();
        }
        // Once marked, they get no new requests.
        self.note_departed(&previous, &next);
        self.changed.send_replace(());
    }

    /// Which draining processes have nothing in flight.
    pub fn drains(&self) -> Drains {
        let table = self.table.load();
        let departed = self.departed();
        let mut drains = Drains {
            table: table.version().map(str::to_owned),
            ..Drains::default()
        };
        for backend in table.draining() {
            let again = departed.iter().filter(|it| it.process == backend.process);
            match backend.is_drained() && !again.into_iter().any(|it| it.is_used()) {
                true => drains.drained.push(backend.process.clone()),
                false => drains.some_in_flight = true,
            }
        }
        drains.drained.truncate(MAX_DRAINED);
        drains
    }

    fn note_departed(&self, previous: &Table, next: &Table) {
        let kept: HashSet<_> = next.backends().map(Arc::as_ptr).collect();
        let left = previous.backends();
        let left = left.filter(|backend| !kept.contains(&Arc::as_ptr(backend)));
        let mut departed = self.departed();
        departed.extend(left.cloned());
        departed.retain(|backend| backend.is_used());
    }

    fn departed(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
