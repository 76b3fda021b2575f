use tucano_api::{
    agent::{Enforcement, VolumeReport},
    ids::ServiceName,
    state::{VolumeState, VolumeView},
};

use super::{absence, desired_user, is_configured, orphans, place, reported};
use crate::{
    model::VolumeRecord,
    state::{Node, State},
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
    VolumeView {
        volume: report.volume.clone(),
        node: node.record.name.clone(),
        size: report.size,
        used: report.used,
        enforcement: enforcement(Some(report), Some(node)),
        configured: is_configured(state, id),
        state: VolumeState::Orphan,
        process: None,
    }
}

fn view(state: &State, record: &VolumeRecord) -> VolumeView {
    let index = state.node_index.get(&record.node);
    let node = index.map(|index| &state.nodes[*index]);
    let report = node.and_then(|node| reported(node, &record.volume));
    let id = &record.volume.id;
    let service = id.service_name().parse().ok();
    let user = service.and_then(|service: ServiceName| desired_user(state, &service, id));
    let process = user.filter(|_| !record.removing).cloned();
    VolumeView {
        volume: record.volume.clone(),
        node: record.node.clone(),
        size: record.size,
        used: report.and_then(|report| report.used),
        enforcement: enforcement(report, node),
        configured: is_configured(state, id),
        state: state_of(state, record, process.is_some()),
        process,
    }
}

/// How the size of a volume is enforced. Agents of earlier versions say it for all volumes of a node.
fn enforcement(report: Option<&VolumeReport>, node: Option<&Node>) -> Option<Enforcement> {
    let of_volume = report.and_then(|report| report.enforcement);
    of_volume.or_else(|| node.and_then(place).map(|place| place.enforcement))
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
