//! Reports of agents: each one is the whole actual set of its node.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{NodeReport, ProcessReport},
    ids::{NodeName, ProcessId, ServiceName},
    reasons::PendingReason,
    state::NodeCondition,
};

use crate::{
    backups, devices, duplicates, health, holds, jobs, leases, readmission, rules, silence,
    state::{Node, Resources, Slot, State, Undesired},
    volumes,
};

/// Largest sequence number of an agent's first report, and largest step from one report to the next, that is taken for
/// real.
const MAX_SEQUENCE_STEP: u64 = 1 << 32;

/// Applies a report, unless it is late, of an unknown worker, or of a superseded agent.
pub(crate) fn accept(state: &mut State, name: &NodeName, mut report: NodeReport) {
    let Some(index) = state.node_index.get(name).copied() else {
        return;
    };
    if state.nodes[index].is_late(&report) || is_absurd(state, index, &report) {
        return;
    }
    if state.nodes[index].is_superseded(&report.agent_id) {
        return duplicates::reject(state, index, &report);
    }
    state.lease_extended = false;
    silence::first_report(state);
    let before = state.nodes[index].condition();
    let restarted = !is_same_agent(state, index, &report);
    let processes = std::mem::take(&mut report.processes);
    let hold_report = NodeReport {
        processes: processes.clone(),
        ..report.clone()
    };
    holds::update(state, index, &hold_report);
    update_node(state, index, report);
    if before != NodeCondition::Alive {
        leases::mark_alive(state, index);
        readmission::readmit(state, index, &processes);
        recall_unconfirmed(state, index);
    }
    let current = holds_present_set(state, index);
    update_processes(state, index, current, processes);
    volumes::observe(state, index, current);
    backups::observe(state, index);
    let node = &state.nodes[index];
    if !node.needs.is_empty() {
        state.changes.needy.insert(node.record.name.clone());
    }
    if !current || restarted {
        state.changes.resend.insert(node.record.name.clone());
    }
}

/// What existed on a worker when it was lost has its memory until a report of a present set does not name it: the worker's
/// first report may be older than the last set that it received.
fn recall_unconfirmed(state: &mut State, index: usize) {
    let unconfirmed = std::mem::take(&mut state.nodes[index].unconfirmed);
    let undesired = unconfirmed
        .into_iter()
        .filter(|it| !state.processes.contains_key(&it.report.id.number()));
    let undesired: Vec<_> = undesired.collect();
    state.nodes[index].undesired.extend(undesired);
}

fn update_node(state: &mut State, index: usize, mut report: NodeReport) {
    let node = &mut state.nodes[index];
    let reservable = node.reservable();
    let offer = |node: &Node| {
        let report = node.report.as_ref();
        report.map(|it| {
            let lists = (it.keys.clone(), it.host_paths.clone());
            let devices = (it.devices.clone(), it.device_paths.clone());
            (
                lists,
                devices,
                it.architecture.clone(),
                it.volumes.is_some(),
            )
        })
    };
    let offered = offer(node);
    // One that is gone leaves room, and a slot that it kept away can have its own there.
    let volumes = volumes::place(node).map_or_else(Vec::new, |place| {
        place.all.iter().map(|it| it.volume.clone()).collect()
    });
    if let Some(held) = report.held.take() {
        node.held_set = Some(held);
    }
    node.leased_at = state.now;
    node.set_agent(&report.agent_id, report.sequence);
    let devices = node.report.as_ref().map(|it| it.devices.clone());
    let has_other_devices = devices.as_ref() != Some(&report.devices);
    let architecture = node.report.as_ref().map(|it| it.architecture.clone());
    let other_architecture = architecture.is_some_and(|it| it != report.architecture);
    let reweighted = node.load.observe(&report.metrics);
    node.report = Some(report);
    let freed = volumes
        .iter()
        .any(|it| volumes::reported(node, it).is_none());
    if node.reservable() != reservable || offer(node) != offered || freed {
        state.changes.capacity = true;
    }
    if has_other_devices {
        devices::changed(state, index);
    }
    if other_architecture {
        let name = state.nodes[index].record.name.clone();
        state.changes.reassign.insert(name);
        state
            .changes
            .reconcile
            .extend(state.services.keys().cloned());
    }
    state.changes.capacity |= has_wanted_volume_room(state, index);
    if reweighted {
        reroute_services_on(state, index);
    }
}

/// Where the agent holds the present desired set, a process that it does not report does not exist.
fn update_processes(
    state: &mut State,
    index: usize,
    holds_present_set: bool,
    reports: Vec<ProcessReport>,
) {
    let mut desired = BTreeMap::new();
    let mut undesired = Vec::new();
    for report in reports {
        let process = state.process(&report.id);
        if process.is_some_and(|process| process.node == index) {
            desired.insert(report.id.number(), report);
        } else {
            undesired.push(report);
        }
    }
    update_undesired(state, index, holds_present_set, undesired);
    let numbers: Vec<u64> = state.nodes[index].processes.iter().copied().collect();
    for number in numbers {
        health::observe(state, number, desired.remove(&number));
    }
    let of_runs: Vec<u64> = state.nodes[index].runs.iter().copied().collect();
    for number in of_runs {
        jobs::observe(state, number, desired.remove(&number));
    }
}

fn update_undesired(
    state: &mut State,
    index: usize,
    holds_present_set: bool,
    reports: Vec<ProcessReport>,
) {
    let node = &mut state.nodes[index];
    let before = node.stopping();
    let existed: BTreeSet<ServiceName> = services_of(node);
    let known = std::mem::take(&mut node.undesired);
    let mut known: BTreeMap<ProcessId, Undesired> = known
        .into_iter()
        .map(|it| (it.report.id.clone(), it))
        .collect();
    for report in reports {
        let (reserved, slot, mut devices) = match known.remove(&report.id) {
            // A controller that has just started knows what it is to have, and not yet what it has.
            Some(it) => (it.reserved.max(in_use(&report)), it.slot, it.devices),
            None => (in_use(&report), Slot::Unknown, Vec::new()),
        };
        devices.extend(
            report
                .devices
                .iter()
                .filter(|it| !devices.contains(it))
                .cloned()
                .collect::<Vec<_>>(),
        );
        node.undesired.push(Undesired {
            report,
            reserved,
            slot,
            devices,
        });
    }
    if !holds_present_set {
        node.undesired.extend(known.into_values());
    }
    let is_first_survey = holds_present_set && !node.is_surveyed;
    node.is_surveyed |= holds_present_set;
    let exists = services_of(node);
    let left: Vec<ServiceName> = existed.difference(&exists).cloned().collect();
    for name in &left {
        let others: Vec<ServiceName> = rules::dependents(state, name).cloned().collect();
        state.changes.reconcile.extend(others);
    }
    state.changes.reconcile.extend(left);
    state.changes.capacity |= is_first_survey;
    let node = &state.nodes[index];
    if !before.fits_in(node.stopping()) {
        state.changes.capacity = true;
    }
}

/// Whether a worker has the room for volumes that a slot waits for.
fn has_wanted_volume_room(state: &State, index: usize) -> bool {
    let services = state.services.values();
    let pending = services.flat_map(|service| &service.pending);
    let needed = pending.filter_map(|it| match &it.reason {
        PendingReason::NoVolumeRoom { needed, workers } => {
            let mut workers = workers.iter();
            let is_named = workers.any(|worker| worker.node == state.nodes[index].record.name);
            is_named.then_some(needed.0)
        }
        _ => None,
    });
    let room = || volumes::room(state, &state.nodes[index]);
    needed
        .min()
        .is_some_and(|needed| room().is_some_and(|room| needed <= room))
}

/// What a process may use that this controller has not started. What it reserves of the CPUs is not known.
fn in_use(report: &ProcessReport) -> Resources {
    let metrics = report.metrics.as_ref();
    Resources {
        memory: metrics.map_or(0, |metrics| metrics.memory_limit.0),
        millicpus: 0,
    }
}

/// The services of the processes that are not desired.
fn services_of(node: &Node) -> BTreeSet<ServiceName> {
    let services = node.undesired.iter().map(|it| &it.report.service);
    services.cloned().collect()
}

/// Whether the agent holds the set that the node is to have.
fn holds_present_set(state: &State, index: usize) -> bool {
    let node = &state.nodes[index];
    let sent = node.record.sent.as_ref();
    let reassigned = state.changes.reassign.contains(&node.record.name);
    !reassigned
        && sent.is_some_and(|sent| sent.generation == node.record.generation && node.holds(sent))
}

fn is_same_agent(state: &State, index: usize, report: &NodeReport) -> bool {
    let last = state.nodes[index].last_sequence.as_ref();
    last.is_some_and(|(agent, _)| *agent == report.agent_id)
}

/// Whether no agent can have counted so many reports. Such a report is dropped: later ones would seem late.
fn is_absurd(state: &State, index: usize, report: &NodeReport) -> bool {
    let last = state.nodes[index].last_sequence.as_ref();
    let last = last.filter(|(agent, _)| *agent == report.agent_id);
    let last = last.map_or(0, |(_, sequence)| *sequence);
    report.sequence > last.saturating_add(MAX_SEQUENCE_STEP)
}

fn reroute_services_on(state: &mut State, index: usize) {
    let processes = state.processes(&state.nodes[index].processes);
    let names: Vec<ServiceName> = processes
        .map(|process| process.record.service.clone())
        .collect();
    state.changes.reroute.extend(names);
}
