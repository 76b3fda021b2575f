//! What a step has touched, and the actions that follow from it: persist, assign, publish, restart, alert.

use std::collections::BTreeSet;

use tucano_api::{
    agent::{DesiredProcess, DesiredSet},
    ids::{NodeName, ProcessId, ServiceName},
    state::{Alert, AlertKind},
};

use crate::{
    cluster::Cluster,
    model::{Action, Record},
};

/// Everything that the present step has touched. Records are written from the state at the end of the
/// step, so that each key is written once, and with its last value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Records to write or delete.
    pub(crate) services: BTreeSet<ServiceName>,
    pub(crate) processes: BTreeSet<ProcessId>,
    pub(crate) nodes: BTreeSet<NodeName>,
    pub(crate) counters: bool,
    /// Workers whose set of processes is another: their generation grows.
    pub(crate) reassign: BTreeSet<NodeName>,
    /// Workers whose agent lacks the present set.
    pub(crate) resend: BTreeSet<NodeName>,
    /// Last words to workers that have left the topology.
    pub(crate) farewells: Vec<DesiredSet>,
    /// Services that may refer to more revisions than are kept.
    pub(crate) prune: BTreeSet<ServiceName>,
    /// Services to look at again.
    pub(crate) reconcile: BTreeSet<ServiceName>,
    /// Services whose route may be another.
    pub(crate) reroute: BTreeSet<ServiceName>,
    /// Whether the table is to be published.
    pub(crate) publish: bool,
    /// Whether there may be room where there was none.
    pub(crate) capacity: bool,
    pub(crate) restarts: Vec<(NodeName, u32)>,
    pub(crate) alerts: Vec<Alert>,
}

impl Cluster {
    /// The actions of this step, in the order in which they are to be carried out.
    pub(crate) fn flush(&mut self) -> Vec<Action> {
        for name in std::mem::take(&mut self.changes.reassign) {
            self.next_generation(name);
        }
        for name in std::mem::take(&mut self.changes.prune) {
            self.drop_revisions(&name);
        }
        let records = self.take_records();
        let mut actions = Vec::new();
        if !records.is_empty() {
            actions.push(Action::Persist(records));
        }
        let resend = std::mem::take(&mut self.changes.resend);
        let assigns = resend.iter().filter_map(|name| self.desired_set(name));
        actions.extend(assigns.map(Action::Assign));
        actions.extend(self.changes.farewells.drain(..).map(Action::Assign));
        if self.awaited.is_empty() && std::mem::take(&mut self.changes.publish) {
            actions.push(Action::Publish(self.routes()));
        }
        let restarts = self.changes.restarts.drain(..);
        actions.extend(restarts.map(|(node, attempt)| Action::Restart { node, attempt }));
        actions.extend(self.changes.alerts.drain(..).map(Action::Alert));
        actions
    }

    /// Everything that is to run on a worker. `None` for a worker that is not in the topology.
    pub fn desired_set(&self, name: &NodeName) -> Option<DesiredSet> {
        let node = &self.nodes[*self.node_index.get(name)?];
        Some(DesiredSet {
            node: name.clone(),
            generation: node.record.generation,
            processes: node
                .processes
                .iter()
                .filter_map(|number| self.desired_process(*number))
                .collect(),
        })
    }

    pub(crate) fn alert(&mut self, kind: AlertKind, subject: impl ToString, message: String) {
        self.changes.alerts.push(Alert {
            kind,
            subject: subject.to_string(),
            message,
            at: self.now,
        });
    }

    fn desired_process(&self, number: u64) -> Option<DesiredProcess> {
        let process = &self.processes.get(&number)?.record;
        let revision = self
            .services
            .get(&process.service)?
            .revision(process.revision)?;
        Some(DesiredProcess {
            id: process.id.clone(),
            revision: process.revision,
            image: revision.image.clone(),
            config: revision.config.clone(),
        })
    }

    /// Only agents that can be reached are told; the others show that they lack it when they report.
    fn next_generation(&mut self, name: NodeName) {
        let Some(index) = self.node_index.get(&name) else {
            return;
        };
        let node = &mut self.nodes[*index];
        node.record.generation = node.record.generation.next();
        if node.is_alive() {
            self.changes.resend.insert(name.clone());
        }
        self.changes.nodes.insert(name);
    }

    fn take_records(&mut self) -> Vec<Record> {
        let services = std::mem::take(&mut self.changes.services);
        let processes = std::mem::take(&mut self.changes.processes);
        let nodes = std::mem::take(&mut self.changes.nodes);
        let mut records = Vec::new();
        records.extend(services.into_iter().map(|name| self.service_record(name)));
        records.extend(processes.into_iter().map(|id| self.process_record(id)));
        records.extend(nodes.into_iter().map(|name| self.node_record(name)));
        if std::mem::take(&mut self.changes.counters) {
            records.push(Record::Counters(self.counters.clone()));
        }
        records
    }

    fn service_record(&self, name: ServiceName) -> Record {
        match self.services.get(&name) {
            Some(service) => Record::Service(Box::new(service.record.clone())),
            None => Record::ServiceGone(name),
        }
    }

    fn process_record(&self, id: ProcessId) -> Record {
        match self.process(&id) {
            Some(process) => Record::Process(process.record.clone()),
            None => Record::ProcessGone(id),
        }
    }

    fn node_record(&self, name: NodeName) -> Record {
        match self.node_index.get(&name) {
            Some(index) => Record::Node(self.nodes[*index].record.clone()),
            None => Record::NodeGone(name),
        }
    }
}
