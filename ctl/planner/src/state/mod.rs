//! What the controller knows of its cluster: data and its bookkeeping. Decisions are in the modules above it.

mod changes;
mod duplicates;
mod load;
mod node;
mod process;
mod resources;
mod service;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tucano_api::{
    ids::{Generation, NodeName, ProcessId, SecretName, ServiceName, VolumeId},
    names::NamedService,
    state::{Alert, AlertKind},
    units::Timestamp,
};

use crate::{
    backups::Schedule,
    jobs::Jobs,
    model::{
        BackupRecord, Counters, Identity, ProcessRecord, RevisionRecord, SecretRecord, Settings,
    },
    rules::Neighbours,
};

pub(crate) use changes::Changes;
pub(crate) use node::{MassSilence, Node, NodeRestart, Slot, Undesired};
pub(crate) use process::{Process, unreported};
pub(crate) use resources::Resources;
pub(crate) use service::{Revised, Service, Unplaced, hosts, path_prefix, pending};
pub(crate) use volumes::Volumes;

/// The state that a step works on.
///
/// Processes are kept under their number, which is unique in the cluster and grows with their age. Nodes are kept in
/// the topology's order and found by `node_index`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    /// When the last step was taken.
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<Node>,
    pub(crate) node_index: BTreeMap<NodeName, usize>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) processes: BTreeMap<u64, Process>,
    /// The services as the processes see them that need them.
    pub(crate) named: BTreeMap<ServiceName, Arc<NamedService>>,
    /// Services whose first process waits for other services.
    pub(crate) awaiting_start: BTreeSet<ServiceName>,
    /// Which services' rules name which others.
    pub(crate) neighbours: Neighbours,
    pub(crate) secrets: BTreeMap<SecretName, SecretRecord>,
    pub(crate) volumes: Volumes,
    pub(crate) backups: BTreeMap<VolumeId, BackupRecord>,
    /// When they are due.
    pub(crate) schedule: Schedule,
    pub(crate) jobs: Jobs,
    pub(crate) counters: Counters,
    pub(crate) identity: Identity,
    /// Whether the routes were published since the controller's start.
    pub(crate) published: bool,
    /// Workers whose first report after the controller's start is outstanding. While there are any, nothing is
    /// placed, replaced or published: what they run is not known yet.
    pub(crate) awaited: BTreeSet<NodeName>,
    /// Since when the set of alive workers has been the same.
    pub(crate) alive_workers_since: Timestamp,
    /// Whether that is long enough for processes to be moved.
    pub(crate) may_rebalance: bool,
    /// Whether all leases were extended because the controller itself seems to have been stopped.
    pub(crate) lease_extended: bool,
    /// A mass silence, while there is one.
    pub(crate) mass_silence: Option<MassSilence>,
    /// Processes whose drain time has not passed.
    pub(crate) draining: BTreeSet<u64>,
    /// Processes whose recovery may have to be reported.
    pub(crate) watched: BTreeSet<u64>,
    pub(crate) changes: Changes,
}

impl State {
    pub(crate) fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            now,
            nodes: Vec::new(),
            node_index: BTreeMap::new(),
            services: BTreeMap::new(),
            processes: BTreeMap::new(),
            named: BTreeMap::new(),
            awaiting_start: BTreeSet::new(),
            neighbours: Neighbours::default(),
            secrets: BTreeMap::new(),
            volumes: Volumes::default(),
            backups: BTreeMap::new(),
            schedule: Schedule::default(),
            jobs: Jobs::default(),
            counters: Counters::default(),
            identity: Identity::default(),
            published: false,
            awaited: BTreeSet::new(),
            alive_workers_since: now,
            may_rebalance: false,
            lease_extended: false,
            mass_silence: None,
            draining: BTreeSet::new(),
            watched: BTreeSet::new(),
            changes: Changes::default(),
        }
    }

    /// The process of this identity, if it is desired.
    pub(crate) fn process(&self, id: &ProcessId) -> Option<&Process> {
        let process = self.processes.get(&id.number())?;
        (process.record.id == *id).then_some(process)
    }

    /// The processes with these numbers, in the same order.
    pub(crate) fn processes<'a>(
        &'a self,
        numbers: impl IntoIterator<Item = &'a u64>,
    ) -> impl Iterator<Item = &'a Process> {
        numbers
            .into_iter()
            .filter_map(|number| self.processes.get(number))
    }

    /// The revision that a process is one of, if its service has it still.
    pub(crate) fn revision_of(&self, process: &ProcessRecord) -> Option<&RevisionRecord> {
        let service = self.services.get(&process.service)?;
        service.revision(process.revision)
    }

    pub(crate) fn concurrency(&self, name: &ServiceName) -> usize {
        self.services.get(name).map_or(0, Service::concurrency)
    }

    pub(crate) fn alert(&mut self, kind: AlertKind, subject: impl ToString, message: String) {
        self.changes.alerts.push(Alert {
            kind,
            subject: subject.to_string(),
            message,
            at: self.now,
        });
    }

    /// Processes that could not be placed may fit now, and nothing is moved until the set is stable again.
    pub(crate) fn alive_workers_changed(&mut self) {
        self.alive_workers_since = self.now;
        self.may_rebalance = false;
        self.changes.volume_nodes = true;
        self.changes.reconcile.extend(self.services.keys().cloned());
    }

    /// After the last awaited worker every service is reconciled and the routes are published.
    pub(crate) fn stop_awaiting(&mut self, name: &NodeName) {
        if self.awaited.remove(name) && self.awaited.is_empty() {
            self.changes.publish = true;
            self.changes.reconcile.extend(self.services.keys().cloned());
        }
    }

    /// Generations up to `last` are not used for workers that are added to the topology later.
    pub(crate) fn reserve_generations(&mut self, last: Generation) {
        self.counters.first_generation = self.counters.first_generation.max(last);
        self.changes.counters = true;
    }
}
