//! Readmission: a lost worker comes back, and its processes still run. Those that are still needed are taken back
//! instead of being replaced.

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::VolumeId,
};

use crate::{
    model::ProcessRecord,
    placement,
    rules::Rules,
    state::{Process, Resources, Service, State},
    volumes,
};

/// Takes back the reported processes of a worker that was lost, as far as their services lack healthy ones.
pub(crate) fn readmit(state: &mut State, index: usize, reports: &[ProcessReport]) {
    let lost = std::mem::take(&mut state.nodes[index].lost);
    if !state.nodes[index].is_usable() {
        return;
    }
    let healthy = reports
        .iter()
        .filter(|it| it.state == ProcessState::Healthy);
    for report in healthy {
        if let Some(record) = lost.get(&report.id.number())
            && record.id == report.id
            && is_needed(state, index, record)
        {
            insert(state, index, record.clone());
        }
    }
}

fn is_needed(state: &State, index: usize, record: &ProcessRecord) -> bool {
    let Some(service) = state.services.get(&record.service) else {
        return false;
    };
    let known = service.revision(record.revision).is_some();
    let current = service.record.is_current(record);
    if service.has_volumes() {
        return known && current && is_slot_free(state, service, record);
    }
    let inventory = placement::inventory(state, &record.service);
    let Some(rules) = Rules::of(state, &record.service) else {
        return false;
    };
    // What it is to be with may be taken back after it.
    if !rules.is_possible(&state.nodes[index]) || !rules.is_apart(index) {
        return false;
    }
    let enough = match service.is_everywhere() {
        true => inventory.spread[index] > 0,
        false => inventory.healthy_current >= service.concurrency(),
    };
    let free = !state.processes.contains_key(&record.id.number());
    known && current && free && !enough
}

/// Whether the process has a slot of its service that no other one has, and all its volumes are there.
fn is_slot_free(state: &State, service: &Service, record: &ProcessRecord) -> bool {
    let config = &service.current().config;
    let Some(slot) = record.slot.filter(|slot| *slot <= config.concurrency) else {
        return false;
    };
    let mut others = state.processes(&service.processes);
    let has_volumes = config.volume.iter().all(|volume| {
        let id = VolumeId::new(&record.service, &volume.name, slot);
        let volume = volumes::present(state, &id);
        volume.is_some_and(|volume| volume.node == record.node)
    });
    has_volumes && !others.any(|other| other.record.slot == Some(slot))
}

fn insert(state: &mut State, index: usize, record: ProcessRecord) {
    let Some(service) = state.services.get_mut(&record.service) else {
        return;
    };
    let revision = service.revision(record.revision);
    let Some(reserved) = revision.map(|it| Resources::of(&it.config)) else {
        return;
    };
    let number = record.id.number();
    service.processes.insert(number);
    state.nodes[index].reserve(number, reserved);
    state.changes.processes.insert(record.id.clone());
    state.changes.reassign.insert(record.node.clone());
    state.changes.reconcile.insert(record.service.clone());
    state.changes.reroute.insert(record.service.clone());
    let process = Process {
        record: ProcessRecord {
            replaces: None,
            draining_since: None,
            ..record
        },
        node: index,
        reserved,
        report: None,
        healthy_since: None,
        at_pids_limit: None,
        was_routed: true,
    };
    state.processes.insert(number, process);
}
