//! The cluster's state and `step`.

use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    routes::ServiceRoute,
    state::{NodeView, ServiceView, State},
    units::Timestamp,
};

use crate::model::{Action, Event, Settings, Snapshot, Worker};

/// All that the controller knows of its cluster.
#[derive(Debug, Clone)]
pub struct Cluster {}

impl Cluster {
    /// The cluster as it was persisted. Nothing is published, and no worker counts as missing, until every worker that
    /// was alive has reported or its lease, counted from `now`, has run out.
    pub fn restore(
        snapshot: Snapshot,
        workers: Vec<Worker>,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let _ = (snapshot, workers, settings, now);
        unimplemented!()
    }

    /// Takes one event and says what to do. Total: whatever does not fit is a no-op.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let _ = (now, event);
        unimplemented!()
    }

    /// The next time at which a `Tick` could change something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        unimplemented!()
    }

    /// The four resources.
    pub fn state(&self) -> State {
        unimplemented!()
    }

    /// Every worker of the topology, in its order (the controller's own node is not among them).
    pub fn nodes(&self) -> Vec<NodeView> {
        unimplemented!()
    }

    /// One service, or `None` if none of that name is configured.
    pub fn service(&self, name: &ServiceName) -> Option<ServiceView> {
        let _ = name;
        unimplemented!()
    }

    /// Where a process is placed.
    pub fn node_of(&self, process: &ProcessId) -> Option<&NodeName> {
        let _ = process;
        unimplemented!()
    }

    /// All routes as they are now.
    pub fn routes(&self) -> Vec<ServiceRoute> {
        unimplemented!()
    }

    /// Digests of all images that some kept revision or some process refers to.
    pub fn images_in_use(&self) -> std::collections::BTreeSet<tucano_api::ids::Digest> {
        unimplemented!()
    }
}
