use tucano_api::{
    agent::VolumeReport,
    ids::{ProcessId, ServiceName, VolumeId},
    state::{VolumeState, VolumeView},
};

use super::{absence, orphans, place, reported};
use crate::{
    model::VolumeRecord,
    state::{Node, Service, State},
};

/// Every volume, ordered by id, also those that workers report and no record tells of.
pub(crate) fn all(state: &State) -> Vec<VolumeView> {
    let known = state.volumes.all().map(|it| view(state, it));
    let nodes = state.nodes.iter().filter(|node| node.is_alive());
    let unknown = nodes.flat_map(|node| orphans::on(state, node).map(|it| orphan(state, node, it)));
    let mut all: Vec<VolumeView> = known.chain(unknown).collect();
    all.sort_by(|one, other| (&one.volume, &one.node).cmp(&(&other.volume, &other.node)));
    all
}

fn orphan(state: &State, node: &Node, report: &VolumeReport) -> VolumeView {
    let id = &report.volume.id;
    let service = id.service_name().parse().ok();
    let service = service.and_then(|name: ServiceName| state.services.get(&name));
    VolumeView {
        volume: report.volume.clone(),
        node: node.record.name.clone(),
        size: report.size,
        used: report.used,
        enforcement: place(node).map(|place| place.enforcement),
        configured: service.is_some_and(|service| is_configured(service, id)),
        state: VolumeState::Orphan,
        process: None,
    }
}

fn view(state: &State, record: &VolumeRecord) -> VolumeView {
    let index = state.node_index.get(&record.node);
    let node = index.map(|index| &state.nodes[*index]);
    let report = node.and_then(|node| reported(node, &record.volume));
    let service = record.volume.id.service_name().parse().ok();
    let service = service.and_then(|name: ServiceName| state.services.get(&name));
    let process = service.and_then(|service| process_of(state, service, record));
    VolumeView {
        volume: record.volume.clone(),
        node: record.node.clone(),
        size: record.size,
        used: report.and_then(|report| report.used),
        enforcement: node.and_then(place).map(|place| place.enforcement),
        configured: service.is_some_and(|service| is_configured(service, &record.volume.id)),
        state: state_of(state, record, process.is_some()),
        process,
    }
}

fn state_of(state: &State, record: &VolumeRecord, in_use: bool) -> VolumeState {
    let absence = absence(state, &record.node);
    match (absence, &record.problem) {
        _ if record.removing => VolumeState::Removing,
        (Some((_, since)), _) => VolumeState::Away {
            since: record.away_since.unwrap_or(since),
        },
        (None, Some(problem)) => VolumeState::Missing {
            problem: problem.clone(),
        },
        _ if !record.confirmed => VolumeState::Creating,
        _ if in_use => VolumeState::InUse,
        _ => VolumeState::Idle,
    }
}

fn is_configured(service: &Service, id: &VolumeId) -> bool {
    let name = id.volume_name();
    let mut volumes = service.current().config.volume.iter();
    volumes.any(|volume| volume.name.as_str() == name)
}

fn process_of(state: &State, service: &Service, record: &VolumeRecord) -> Option<ProcessId> {
    let id = &record.volume.id;
    let mut processes = state.processes(&service.processes);
    let process = processes.find(|process| process.record.slot == Some(id.slot()))?;
    let revision = service.revision(process.record.revision)?;
    let mut volumes = revision.config.volume.iter();
    let has_it = volumes.any(|volume| volume.name.as_str() == id.volume_name());
    (has_it && !record.removing).then(|| process.record.id.clone())
}
