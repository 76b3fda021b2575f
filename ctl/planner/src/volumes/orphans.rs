//! Volumes that are on a worker without being the ones that the controller has there.

use tucano_api::{
    agent::VolumeReport,
    ids::{NodeName, VolumeId},
    reasons::PendingReason,
    service::ServiceConfig,
};

use super::{place, present, reported, undesired_user};
use crate::{
    model::VolumeRecord,
    state::{Node, State},
};

/// What a worker reports that no record tells of.
pub(crate) fn on<'a>(state: &'a State, node: &'a Node) -> impl Iterator<Item = &'a VolumeReport> {
    let all = place(node).into_iter().flat_map(|place| &place.all);
    all.filter(|report| state.volumes.get(&report.volume).is_none())
}

/// The other volume that keeps those of a slot from being created on a worker: an agent has one volume of each name.
pub(crate) fn in_the_way(
    state: &State,
    config: &ServiceConfig,
    slot: u32,
    node: &Node,
) -> Option<PendingReason> {
    config.volume.iter().find_map(|volume| {
        let id = VolumeId::new(&config.name, &volume.name, slot);
        let own = present(state, &id).map(|record| &record.volume);
        if own.is_some_and(|own| reported(node, own).is_some()) {
            return None;
        }
        let other = place(node)?.all.iter().find(|it| it.volume.id == id)?;
        Some(PendingReason::OtherVolume {
            removing: state.volumes.get(&other.volume).is_some(),
            volume: id,
            node: node.record.name.clone(),
        })
    })
}

/// What a worker has of this name without a record of it.
pub(crate) fn named<'a>(
    state: &'a State,
    id: &VolumeId,
    name: &NodeName,
) -> Option<&'a VolumeReport> {
    let node = &state.nodes[*state.node_index.get(name)?];
    on(state, node).find(|report| report.volume.id == *id)
}

/// Why a volume without a record cannot be removed from a worker. A message for the user.
pub(crate) fn obstacle(state: &State, id: &VolumeId, name: &NodeName) -> Option<String> {
    let node = &state.nodes[*state.node_index.get(name)?];
    if node.record.hold.is_some() {
        return Some(format!(
            "{name} is on hold: `tucano adopt` shows what runs there and takes it over"
        ));
    }
    if !node.is_usable() {
        return Some(format!("{name} does not report: bring it back first"));
    }
    if let Some(process) = undesired_user(node, id) {
        return Some(format!(
            "volume {id} may be in use by process {process}, which is stopping: try again when it is gone"
        ));
    }
    let instance = named(state, id, name)?.volume.instance;
    (instance > state.counters.last_volume).then(|| {
        format!("volume {id} on {name} has instance {instance}, which no controller gives out: remove it on the worker")
    })
}

/// Removes a volume without a record from its worker, unless there is an obstacle. It has a record until it is gone, so that
/// exactly this one is removed.
pub(crate) fn remove(state: &mut State, id: &VolumeId, name: &NodeName) {
    if obstacle(state, id, name).is_some() {
        return;
    }
    let Some(report) = named(state, id, name) else {
        return;
    };
    let record = VolumeRecord {
        volume: report.volume.clone(),
        node: name.clone(),
        size: report.size,
        confirmed: true,
        removing: true,
        away_since: None,
        problem: None,
        alerted: false,
        fill: None,
        load: None,
    };
    state.changes.volumes.insert(record.volume.clone());
    state.changes.reassign.insert(name.clone());
    state.changes.reconcile.insert(id.service());
    state.volumes.insert(record);
}
