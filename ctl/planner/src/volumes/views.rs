use tucano_api::{
    ids::{ProcessId, ServiceName},
    state::{VolumeState, VolumeView},
};

use super::{absence, place, reported};
use crate::{
    model::VolumeRecord,
    state::{Service, State},
};

/// Every volume, ordered by id.
pub(crate) fn all(state: &State) -> Vec<VolumeView> {
    state.volumes.all().map(|it| view(state, it)).collect()
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
        configured: service.is_some_and(|service| is_configured(service, record)),
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

fn is_configured(service: &Service, record: &VolumeRecord) -> bool {
    let name = record.volume.id.volume_name();
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
