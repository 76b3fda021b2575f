use tucano_api::{
    agent::{DesiredProcess, VolumeInstance},
    ids::NodeName,
    units::Bytes,
};

use crate::{
    model::VolumeRecord,
    state::{Node, State},
    volumes,
};

/// Why a process cannot be adopted with its slot and its volumes beside what is configured.
pub(super) fn conflict(state: &State, node: &Node, process: &DesiredProcess) -> Option<String> {
    let service = &process.config.name;
    let slot = process.slot?;
    let processes = state.services.get(service).map(|it| &it.processes);
    let mut others = state.processes(processes.into_iter().flatten());
    let other = others.find(|it| it.record.slot == Some(slot) && it.record.id != process.id);
    if let Some(other) = other {
        return Some(format!(
            "process {} has slot {slot} of service {service}, as its process {} has: remove the service first, or lower its \
             `concurrency` below {slot}. Its volumes stay; those that are in the way are named then",
            other.record.id, process.id
        ));
    }
    let mut wanted = process.volumes.iter().map(|it| &it.volume);
    wanted.find_map(|volume| {
        let known = volumes::present(state, &volume.id)?;
        let differs = known.volume != *volume || known.node != node.record.name;
        differs.then(|| {
            format!(
                "volume {} is recorded with instance {} on {}, and its process {} has instance {}: give the recorded one up first \
                 with `tucano volume rm {}`",
                volume.id,
                known.volume.instance,
                known.node,
                process.id,
                volume.instance,
                volume.id
            )
        })
    })
}

/// Records the volumes of a process that is adopted.
pub(super) fn of_process(state: &mut State, index: usize, process: &DesiredProcess) {
    let node = state.nodes[index].record.name.clone();
    for desired in &process.volumes {
        let name = desired.volume.id.volume_name();
        let mut configured = process.config.volume.iter();
        let size = configured.find(|volume| volume.name.as_str() == name);
        let is_there = volumes::reported(&state.nodes[index], &desired.volume).is_some();
        let size = size.map_or(Bytes(0), |volume| volume.size);
        let confirmed = is_there || !desired.may_create;
        let record = record(desired.volume.clone(), &node, size, confirmed);
        volumes::adopt(state, record);
    }
}

/// Records the volumes that no process of the held set has, unless there is another one of that name.
pub(super) fn reported(state: &mut State, index: usize) {
    let node = state.nodes[index].record.name.clone();
    let place = volumes::place(&state.nodes[index]);
    let all = place.map(|place| place.all.clone()).unwrap_or_default();
    for report in all {
        let id = &report.volume.id;
        if volumes::present(state, id).is_none() {
            let record = record(report.volume, &node, report.size, true);
            volumes::adopt(state, record);
        }
    }
}

fn record(volume: VolumeInstance, node: &NodeName, size: Bytes, confirmed: bool) -> VolumeRecord {
    VolumeRecord {
        volume,
        node: node.clone(),
        size,
        confirmed,
        removing: false,
        away_since: None,
        problem: None,
        alerted: false,
        fill: None,
        load: None,
    }
}
