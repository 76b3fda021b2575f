use tucano_api::{
    agent::{Enforcement, VolumeReport},
    state::{VolumeState, VolumeView},
};

use super::{
    absence, configured, desired_user,
    fills::{self, is_incoming},
    orphans, place, reported,
};
use crate::{
    backups,
    model::VolumeRecord,
    state::{Node, State},
};

/// Every volume, ordered by id, also those that workers report and no record tells of.
pub(crate) fn all(state: &State) -> Vec<VolumeView> {
    // A volume that is being moved shows where to.
    let known = state
        .volumes
        .all()
        .filter(|it| it.removing || !is_incoming(it) || super::is_kept(state, &it.volume));
    let known = known.map(|it| view(state, it));
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
        configured: configured(state, id).is_some(),
        state: VolumeState::Orphan,
        process: None,
        moving: None,
        restoring: None,
        backup: None,
    }
}

fn view(state: &State, record: &VolumeRecord) -> VolumeView {
    let index = state.node_index.get(&record.node);
    let node = index.map(|index| &state.nodes[*index]);
    let report = node.and_then(|node| reported(node, &record.volume));
    let id = &record.volume.id;
    let user = desired_user(state, id);
    let is_kept = super::is_kept(state, &record.volume);
    let process = user.filter(|_| is_kept).cloned();
    VolumeView {
        volume: record.volume.clone(),
        node: record.node.clone(),
        size: record.size,
        used: report.and_then(|report| report.used),
        enforcement: enforcement(report, node),
        configured: configured(state, id).is_some(),
        moving: fills::moving(state, record).filter(|_| is_kept),
        restoring: fills::restoring(state, record).filter(|_| is_kept),
        backup: backups::view(state, id).filter(|_| is_kept),
        state: state_of(state, record, is_kept, process.is_some()),
        process,
    }
}

/// How the size of a volume is enforced. Agents of earlier versions say it for all volumes of a node.
fn enforcement(report: Option<&VolumeReport>, node: Option<&Node>) -> Option<Enforcement> {
    let of_volume = report.and_then(|report| report.enforcement);
    of_volume.or_else(|| node.and_then(place).map(|place| place.enforcement))
}

fn state_of(state: &State, record: &VolumeRecord, is_kept: bool, in_use: bool) -> VolumeState {
    let absence = absence(state, &record.node);
    match (absence, &record.problem) {
        // One that was moved is removed as soon as the next one is reported.
        _ if record.removing || !is_kept => VolumeState::Removing,
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
