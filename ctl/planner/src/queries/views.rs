//! Services, their processes, and nodes as the API shows them.

use std::collections::BTreeSet;

use tucano_api::{
    agent::{NodeVolumes, ProcessReport, ProcessState, VolumeReport},
    ids::{ProcessId, ServiceName},
    reasons::PendingReason,
    state::{
        ActiveService, AliveNode, ConfiguredService, DeadNode, NodeCondition, NodeView, Pending,
        ProcessView, RunProcess, ServiceView, VolumesOfNode,
    },
    units::Bytes,
};

use crate::{
    cluster::Cluster,
    devices, jobs,
    model::RevisionRecord,
    placement,
    state::{Node, Process, Service, Unplaced, pending, unreported},
};

impl Cluster {
    pub(super) fn service_view(&self, service: &Service) -> ServiceView {
        ServiceView {
            configured: configured(service),
            active: self.active(service),
            hook: jobs::hooks::view(&self.state, service),
        }
    }

    pub(super) fn active(&self, service: &Service) -> ActiveService {
        let name = &service.record.name;
        let all = || self.state.processes(&service.processes);
        let serves = |process: &&Process| process.is_healthy() && !process.is_draining();
        let serving = all().filter(serves).count().min(service.concurrency());
        let endpoints = service.route.iter().flat_map(|route| &route.endpoints);
        let routed: BTreeSet<&ProcessId> = endpoints
            .filter(|endpoint| !endpoint.draining)
            .map(|endpoint| &endpoint.process)
            .collect();
        let wanted = service.is_everywhere().then(|| service.concurrency());
        let inventory = placement::inventory(&self.state, name);
        let current = inventory.current.iter().chain(&inventory.moves).copied();
        let current: BTreeSet<u64> = current.collect();
        ActiveService {
            wanted: wanted.map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX)),
            name: name.clone(),
            configured_service: format!("/v1/configured_services/{name}"),
            healthy: u32::try_from(serving).unwrap_or(u32::MAX),
            processes: all()
                .map(|process| {
                    let number = process.record.id.number();
                    let is_bound = service.has_volumes() || process.is_draining();
                    let is_current = match is_bound {
                        true => service.is_current(process),
                        false => current.contains(&number),
                    };
                    self.process_view(is_current, process, &routed)
                })
                .collect(),
            pending: self.pending(service),
            stopping: self.stopping(name),
            runs: self.of_runs(service),
        }
    }

    fn of_runs(&self, service: &Service) -> Vec<RunProcess> {
        let processes = self.state.processes(&service.runs);
        let of_run = |process: &Process| {
            let number = process.record.run?;
            let run = self.state.jobs.run(&service.record.name, number)?;
            Some(RunProcess {
                run: number,
                trigger: run.trigger.clone(),
                process: self.process_view(service.is_current(process), process, &BTreeSet::new()),
            })
        };
        processes.filter_map(of_run).collect()
    }

    /// While workers are awaited nothing is placed, for that reason.
    fn pending(&self, service: &Service) -> Vec<Pending> {
        let unplaced = self.unplaced(service).into_iter();
        unplaced
            .map(|it| Pending::new(it.count, it.reason))
            .collect()
    }

    fn unplaced(&self, service: &Service) -> Vec<Unplaced> {
        if self.state.awaited.is_empty() {
            return service.pending.clone();
        }
        let current = placement::inventory(&self.state, &service.record.name)
            .current
            .len();
        let missing = service.concurrency().saturating_sub(current);
        let nodes = self.state.awaited.iter().cloned().collect();
        pending(missing, PendingReason::Awaiting { nodes })
    }

    /// Processes that exist although they are no longer desired.
    fn stopping(&self, name: &ServiceName) -> Vec<ProcessView> {
        let nodes = self.state.nodes.iter();
        let all = nodes.flat_map(|node| node.undesired.iter().map(move |it| (node, it)));
        all.filter(|(_, it)| it.report.service == *name)
            .map(|(node, it)| ProcessView {
                node: node.record.name.clone(),
                current: false,
                routed: false,
                draining: false,
                changing: false,
                report: ProcessReport {
                    state: ProcessState::Stopping,
                    ..it.report.clone()
                },
            })
            .collect()
    }

    fn process_view(
        &self,
        is_current: bool,
        process: &Process,
        routed: &BTreeSet<&ProcessId>,
    ) -> ProcessView {
        let mut report = match &process.report {
            Some(report) => report.clone(),
            None => unreported(&process.record),
        };
        let node = &self.state.nodes[process.node];
        if !node.is_alive() {
            let name = &process.record.node;
            report.reason = Some(match &node.report {
                None => format!("{name} has not reported since the controller started"),
                Some(_) => format!("{name} is silent together with other workers"),
            });
        }
        ProcessView {
            node: process.record.node.clone(),
            current: is_current,
            routed: routed.contains(&process.record.id),
            draining: process.is_draining(),
            changing: process.is_changing(),
            report,
        }
    }
}

pub(super) fn configured(service: &Service) -> ConfiguredService {
    of_revision(&service.record.name, service.current())
}

pub(super) fn of_revision(name: &ServiceName, record: &RevisionRecord) -> ConfiguredService {
    ConfiguredService {
        name: name.clone(),
        revision: record.revision,
        image: record.image.clone(),
        config: record.config.clone(),
        configured_at: record.configured_at,
    }
}

pub(super) fn node_view(state: &crate::state::State, node: &Node) -> NodeView {
    NodeView {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        labels: node.worker.labels.clone(),
        condition: node.condition(),
        since: node.record.since,
        reason: reason(node),
        hold: node.record.hold.as_ref().map(|hold| hold.cause),
        alive: alive_node(state, node),
    }
}

/// Why it is not alive, or why it is not managed.
fn reason(node: &Node) -> Option<String> {
    match &node.record.hold {
        Some(hold) if node.is_alive() => Some(format!(
            "on hold: {}; `tucano adopt` takes over what runs on it",
            hold.cause
        )),
        None if node.is_alive() && node.unreachable.is_some() => Some(
            "its agent reports, but cannot be reached: check the firewall for the agent's port"
                .to_owned(),
        ),
        _ if node.silence.is_some() => Some(
            "silent together with other workers: its processes and routes are kept for one further lease".to_owned(),
        ),
        _ => node.record.reason.clone(),
    }
}

pub(super) fn alive_node(state: &crate::state::State, node: &Node) -> Option<AliveNode> {
    let report = node.report.as_ref().filter(|_| node.is_alive())?;
    Some(AliveNode {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        reported_at: node.leased_at,
        generation_desired: node.record.generation,
        generation_seen: report.generation,
        version: report.version.clone(),
        architecture: report.architecture.clone(),
        devices: devices::of_kinds(state, node),
        reserved_millicpus: node.reserved.plus(node.stopping()).millicpus,
        processes: u32::try_from(node.processes.len()).unwrap_or(u32::MAX),
        metrics: report.metrics.clone(),
        notes: report.notes.clone(),
        volumes: report.volumes.as_ref().map(volumes_of_node),
    })
}

fn volumes_of_node(volumes: &NodeVolumes) -> VolumesOfNode {
    let sum = |of: fn(&VolumeReport) -> Bytes| {
        let all = volumes.all.iter().map(|volume| of(volume).0);
        Bytes(all.fold(0, u64::saturating_add))
    };
    VolumesOfNode {
        size: sum(|volume| volume.size),
        used: sum(|volume| volume.used.unwrap_or_default()),
        capacity: volumes.capacity,
        enforcement: volumes.enforcement,
    }
}

pub(super) fn dead_node(node: &Node) -> Option<DeadNode> {
    (node.condition() == NodeCondition::Dead).then(|| DeadNode {
        name: node.record.name.clone(),
        ip: node.worker.ip,
        since: node.record.since,
        reason: node.record.reason.clone().unwrap_or_default(),
    })
}
