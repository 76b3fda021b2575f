//! The cluster's state and `step`.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{NodeName, ServiceName},
    units::Timestamp,
};

use crate::{
    changes::Changes,
    model::{Action, Counters, Event, Settings, Snapshot, Worker},
    nodes::Node,
    processes::Process,
    services::Service,
};

/// How often services may make room for each other within one step; what is left waits for the next event.
const MOST_ROUNDS: usize = 8;

/// All that the controller knows of its cluster.
///
/// Processes are kept under their number, which is unique in the cluster and grows with their age; nodes
/// in the topology's order, found by `node_index`.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) settings: Settings,
    /// When the last step was taken.
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<Node>,
    pub(crate) node_index: BTreeMap<NodeName, usize>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) processes: BTreeMap<u64, Process>,
    pub(crate) counters: Counters,
    /// Workers that are still waited for after the controller's start. While there are any, nothing is
    /// placed, replaced or published: what they run is not known yet.
    pub(crate) awaited: BTreeSet<NodeName>,
    /// Since when the set of alive workers is what it is.
    pub(crate) alive_unchanged_since: Timestamp,
    /// Whether that is long enough ago for processes to be moved.
    pub(crate) may_rebalance: bool,
    /// Whether all leases were prolonged once because the controller itself seemed to have stood still.
    pub(crate) pause_forgiven: bool,
    /// Processes that wait for their drain time to pass.
    pub(crate) draining: BTreeSet<u64>,
    /// Processes that may have to be reported as recovered.
    pub(crate) watched: BTreeSet<u64>,
    pub(crate) changes: Changes,
}

impl Cluster {
    /// The cluster as it was persisted. Nothing is published, and no worker counts as missing, until every worker that
    /// was alive has reported or its lease, counted from `now`, has run out.
    pub fn restore(
        snapshot: Snapshot,
        workers: Vec<Worker>,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let mut cluster = Self::empty(settings, now);
        cluster.take_in(snapshot, workers);
        cluster
    }

    /// Takes one event and says what to do. Total: whatever does not fit is a no-op. Time never goes back: an
    /// event with an earlier `now` than the one before it counts as happening at the same time.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.forgive_pause(now);
        self.now = self.now.max(now);
        self.apply(event);
        self.expire();
        self.reconcile();
        self.reroute();
        self.flush()
    }

    /// The next time at which a `Tick` could change something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [
            self.next_node_deadline(),
            self.next_drain_deadline(),
            self.next_recovery(),
            self.next_rebalance(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The state as its records have it: what [`Cluster::restore`] takes.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            services: self.services.values().map(|s| s.record.clone()).collect(),
            processes: self.processes.values().map(|p| p.record.clone()).collect(),
            nodes: self.nodes.iter().map(|n| n.record.clone()).collect(),
            counters: self.counters.clone(),
        }
    }

    fn empty(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            now,
            nodes: Vec::new(),
            node_index: BTreeMap::new(),
            services: BTreeMap::new(),
            processes: BTreeMap::new(),
            counters: Counters::default(),
            awaited: BTreeSet::new(),
            alive_unchanged_since: now,
            may_rebalance: false,
            pause_forgiven: false,
            draining: BTreeSet::new(),
            watched: BTreeSet::new(),
            changes: Changes::default(),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Configured { workers, settings } => self.configure(workers, settings),
            Event::ServiceConfigured { config, image } => self.configure_service(*config, image),
            Event::ServiceRemoved { name } => self.remove_service(&name),
            Event::NodeReported { node, report } => self.take_report(&node, *report),
            Event::RestartFinished { node, result } => self.restart_finished(&node, result),
            Event::Tick => {}
        }
    }

    /// Whatever the passing of time alone changes.
    fn expire(&mut self) {
        self.expire_nodes();
        self.expire_drains();
        self.expire_recoveries();
        self.open_rebalance();
    }

    /// Brings every service that something happened to nearer to its configuration.
    fn reconcile(&mut self) {
        if !self.awaited.is_empty() {
            return;
        }
        for _ in 0..MOST_ROUNDS {
            let mut names: Vec<_> = std::mem::take(&mut self.changes.reconcile)
                .into_iter()
                .collect();
            // Whoever stopped a process to make room has the first claim on that room.
            names.sort_by_key(|name| {
                !self
                    .services
                    .get(name)
                    .is_some_and(|service| service.making_room)
            });
            for name in &names {
                self.shrink(name);
            }
            for name in &names {
                self.grow(name);
            }
            if std::mem::take(&mut self.changes.capacity) {
                self.reconsider_unfinished();
            }
            if self.changes.reconcile.is_empty() {
                break;
            }
        }
    }

    /// Memory has become free, or a worker more is alive: whoever waits for that tries again.
    fn reconsider_unfinished(&mut self) {
        let unfinished = self
            .services
            .iter()
            .filter(|(_, service)| service.uneven || !service.pending.is_empty())
            .map(|(name, _)| name.clone());
        self.changes.reconcile.extend(unfinished);
    }
}
