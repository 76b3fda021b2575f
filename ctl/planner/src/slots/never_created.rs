//! Slots of which nothing was ever created, because the worker that was chosen for them cannot create their volumes: they go to
//! another worker with room. Each worker is tried once for a configuration, so that a slot that fails everywhere stays where it is.

use tucano_api::{agent::ProcessState, ids::ServiceName, service::ServiceConfig};

use super::{plan, survey::Survey};
use crate::{
    reports,
    state::{Process, State},
    volumes,
};

/// The worker of a slot's volumes, where none of them was ever reported and it certainly has none.
fn worker_without(state: &State, name: &ServiceName, slot: u32) -> Option<usize> {
    let records = || {
        let records = state.volumes.of_slot(name, slot);
        records.filter(|record| !record.removing)
    };
    let index = *state.node_index.get(&records().next()?.node)?;
    let node = &state.nodes[index];
    let was_never = records().all(|record| {
        let here = record.node == node.record.name;
        here && !record.confirmed && volumes::reported(node, &record.volume).is_none()
    });
    let is_certain = node.is_usable() && reports::holds_present_set(state, index);
    (was_never && is_certain).then_some(index)
}

/// Whether a process could not be started, and its program has never run.
fn has_never_started(process: &Process) -> bool {
    process.report.as_ref().is_some_and(|report| {
        let is_waiting = report.state == ProcessState::BackOff;
        is_waiting && report.started_at.is_none() && report.last_exit.is_none()
    })
}

/// The processes that cannot be started where nothing was created for their slot, and for which another worker has room.
pub(super) fn to_stop(state: &mut State, config: &ServiceConfig, survey: &Survey<'_>) -> Vec<u64> {
    let failed = survey.by_slot.iter().filter(|(slot, number)| {
        let process = &state.processes[number];
        let fails = has_never_started(process) && !process.is_draining();
        fails && worker_without(state, &config.name, **slot) == Some(process.node)
    });
    let failed: Vec<(u32, u64)> = failed.map(|(slot, number)| (*slot, *number)).collect();
    let mut chosen = Vec::new();
    for (slot, number) in failed {
        let node = state.processes[&number].node;
        if other_worker(state, config, slot, node).is_some() {
            note_failure(state, &config.name, slot, node);
            chosen.push(number);
        }
    }
    chosen
}

/// The worker that a slot without a process goes to, after its process could not be started where nothing was created.
pub(super) fn goes_to(
    state: &State,
    config: &ServiceConfig,
    slot: u32,
    survey: &Survey<'_>,
) -> Option<usize> {
    let node = worker_without(state, &config.name, slot)?;
    let has_failed = has_failed(state, &config.name, slot, node);
    let is_free = survey.taken_by(state, slot).is_none();
    let other = other_worker(state, config, slot, node);
    other.filter(|_| has_failed && is_free)
}

/// Whether a process is to be looked at again because of its report.
pub(crate) fn may_go(state: &State, number: u64) -> bool {
    let Some(process) = state
        .processes
        .get(&number)
        .filter(|it| has_never_started(it))
    else {
        return false;
    };
    let name = &process.record.service;
    let slot = process.record.slot;
    slot.is_some_and(|slot| worker_without(state, name, slot) == Some(process.node))
}

fn other_worker(state: &State, config: &ServiceConfig, slot: u32, node: usize) -> Option<usize> {
    let name = &config.name;
    plan::choose_new(state, config, slot, |index| {
        *index != node && !has_failed(state, name, slot, *index)
    })
}

fn has_failed(state: &State, name: &ServiceName, slot: u32, node: usize) -> bool {
    let failed = state.services.get(name).map(|it| &it.failed_creations);
    let worker = &state.nodes[node].record.name;
    failed.is_some_and(|failed| failed.contains(&(slot, worker.clone())))
}

fn note_failure(state: &mut State, name: &ServiceName, slot: u32, node: usize) {
    let worker = state.nodes[node].record.name.clone();
    if let Some(service) = state.services.get_mut(name) {
        service.failed_creations.insert((slot, worker));
    }
}
