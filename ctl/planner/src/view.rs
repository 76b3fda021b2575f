//! What the controller shows of the cluster.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{Digest, NodeName, ProcessId, ServiceName},
    state::{
        ActiveService, AliveNode, ConfiguredService, DeadNode, NodeCondition, NodeView, Pending,
        ProcessView, ServiceView, State,
    },
};

use crate::{
    cluster::Cluster,
    model::RevisionRecord,
    nodes::Node,
    processes::{Process, unreported},
    reasons,
    rollout::pending,
    services::Service,
};

impl Cluster {
    /// The four resources.
    pub fn state(&self) -> State {
        // `node_index` is ordered by name.
        let nodes = || self.node_index.values().map(|index| &self.nodes[*index]);
        State {
            alive_nodes: nodes().filter_map(alive_node).collect(),
            dead_nodes: nodes().filter_map(dead_node).collect(),
            configured_services: self.services.values().map(configured).collect(),
            active_services: self.services.values().map(|s| self.active(s)).collect(),
        }
    }

    /// Every worker of the topology, in its order (the controller's own node is not among them).
    pub fn nodes(&self) -> Vec<NodeView> {
        self.nodes.iter().map(node_view).collect()
    }

    /// One worker, or `None` if it is not in the topology.
    pub fn node(&self, name: &NodeName) -> Option<NodeView> {
        Some(node_view(&self.nodes[*self.node_index.get(name)?]))
    }

    /// Every service, ordered by name.
    pub fn services(&self) -> Vec<ServiceView> {
        self.services
            .values()
            .map(|service| self.service_view(service))
            .collect()
    }

    /// One service, or `None` if none of that name is configured.
    pub fn service(&self, name: &ServiceName) -> Option<ServiceView> {
        self.services
            .get(name)
            .map(|service| self.service_view(service))
    }

    /// A service's revisions that are kept, oldest first; none if no service of that name is configured.
    pub fn revisions(&self, name: &ServiceName) -> Vec<ConfiguredService> {
        let records = self.services.get(name).map(|it| &it.record.revisions);
        let records = records.into_iter().flatten();
        records.map(|record| of_revision(name, record)).collect()
    }

    /// Where a process is placed, also one that is to stop and still exists there.
    pub fn node_of(&self, process: &ProcessId) -> Option<&NodeName> {
        let desired = self.process(process).map(|process| &process.record.node);
        desired.or_else(|| {
            let is_it = |node: &&Node| node.strays.iter().any(|stray| stray.id == *process);
            self.nodes.iter().find(is_it).map(|node| &node.record.name)
        })
    }

    /// Every process of a service that is to run or still exists somewhere, also after the service's removal,
    /// with its node; ordered by id within a node.
    pub fn existing(&self, name: &ServiceName) -> Vec<(NodeName, ProcessId)> {
        let mut existing = BTreeSet::new();
        for node in &self.nodes {
            let desired = node
                .processes
                .iter()
                .filter_map(|number| self.processes.get(number));
            let desired = desired.map(|p| (&p.record.service, &p.record.id));
            let strays = node.strays.iter().map(|stray| (&stray.service, &stray.id));
            for (_, id) in desired
                .chain(strays)
                .filter(|(service, _)| *service == name)
            {
                existing.insert((node.record.name.clone(), id.clone()));
            }
        }
        existing.into_iter().collect()
    }

    /// Digests of all images that some kept revision or some process refers to.
    pub fn images_in_use(&self) -> BTreeSet<Digest> {
        // A revision is kept for as long as one of its processes is.
        let revisions = self
            .services
            .values()
            .flat_map(|service| &service.record.revisions);
        revisions.map(|revision| revision.image.clone()).collect()
    }

    fn service_view(&self, service: &Service) -> ServiceView {
        ServiceView {
            configured: configured(service),
            active: self.active(service),
        }
    }

    fn active(&self, service: &Service) -> ActiveService {
        let name = &service.record.name;
        let all = || {
            service
                .processes
                .iter()
                .filter_map(|number| self.processes.get(number))
        };
        let counts = |process: &&Process| {
            process.is_healthy() && !process.is_draining() && service.is_current(process)
        };
        let endpoints = service.route.iter().flat_map(|route| &route.endpoints);
        let routed: BTreeSet<&ProcessId> = endpoints
            .filter(|endpoint| !endpoint.draining)
            .map(|endpoint| &endpoint.process)
            .collect();
        ActiveService {
            name: name.clone(),
            configured_service: format!("/v1/configured_services/{name}"),
            healthy: u32::try_from(all().filter(counts).count()).unwrap_or(u32::MAX),
            processes: all()
                .map(|process| self.process_view(service, process, &routed))
                .collect(),
            pending: self.pending(service),
        }
    }

    /// While workers are awaited nothing is placed; whoever asks is told why.
    fn pending(&self, service: &Service) -> Vec<Pending> {
        if self.awaited.is_empty() {
            return service.pending.clone();
        }
        let current = self.census(&service.record.name).current.len();
        let missing = service.concurrency().saturating_sub(current);
        let names = self.awaited.iter().map(ToString::to_string);
        pending(missing, &reasons::still_awaited(names))
    }

    fn process_view(
        &self,
        service: &Service,
        process: &Process,
        routed: &BTreeSet<&ProcessId>,
    ) -> ProcessView {
        let mut report = match &process.report {
            Some(report) => report.clone(),
            None => unreported(&process.record),
        };
        if !self.nodes[process.node].is_alive() {
            let node = &process.record.node;
            report.reason = Some(format!(
                "{node} has not reported since the controller started"
            ));
        }
        ProcessView {
            node: process.record.node.clone(),
            current: service.is_current(process),
            routed: routed.contains(&process.record.id),
            draining: process.is_draining(),
            report,
        }
    }
}

fn configured(service: &Service) -> ConfiguredService {
    of_revision(&service.record.name, service.current())
}

fn of_revision(name: &ServiceName, record: &RevisionRecord) -> ConfiguredService {
    ConfiguredService {
        name: name.clone(),
        revision: record.revision,
        image: record.image.clone(),
        config: record.config.clone(),
        configured_at: record.configured_at,
    }
}

fn node_view(node: &Node) -> NodeView {
    NodeView {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        condition: node.condition(),
        since: node.record.since,
        reason: node.record.reason.clone(),
        alive: alive_node(node),
    }
}

fn alive_node(node: &Node) -> Option<AliveNode> {
    let report = node.report.as_ref()?;
    Some(AliveNode {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        reported_at: node.leased_at,
        generation_desired: node.record.generation,
        generation_seen: report.generation,
        version: report.version.clone(),
        processes: u32::try_from(node.processes.len()).unwrap_or(u32::MAX),
        metrics: report.metrics.clone(),
        notes: report.notes.clone(),
    })
}

fn dead_node(node: &Node) -> Option<DeadNode> {
    (node.condition() == NodeCondition::Dead).then(|| DeadNode {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        since: node.record.since,
        reason: node.record.reason.clone().unwrap_or_default(),
    })
}
