//! The life of one process, as the controller sees it:
//!
//! ```text
//! start ──> assigned ──(reports)──> healthy ──> routed ──retire──> draining ──drained, or drain time──> removed
//!              └────── retire: no request is in flight ────────────────────────────────────────────────^
//! ```

use tucano_api::{
    ids::{ProcessId, ServiceName},
    units::Timestamp,
};

use crate::{
    devices::{self, Holders},
    model::{CrashHistory, ProcessRecord},
    names, rules,
    state::{Process, Resources, Service, Slot, State, Undesired, unreported},
};

/// Places a process of the service's current revision on a node, in a slot if the service has volumes.
pub(crate) fn start(
    state: &mut State,
    name: &ServiceName,
    node: usize,
    replaces: Option<ProcessId>,
    slot: Option<u32>,
) {
    let Some(service) = state.services.get(name) else {
        return;
    };
    let current = service.current();
    let reserved = Resources::of(&current.config);
    let revision = current.revision;
    let devices = devices::allot(state, node, &current.config, Holders::All).unwrap_or_default();
    state.counters.last_process = state.counters.last_process.saturating_add(1);
    let number = state.counters.last_process;
    let worker = state.nodes[node].record.name.clone();
    let process = Process {
        record: ProcessRecord {
            id: ProcessId::new(name, number),
            service: name.clone(),
            revision,
            node: worker.clone(),
            slot,
            replaces,
            draining_since: None,
            crashes: CrashHistory::default(),
            run: None,
            devices,
        },
        node,
        reserved,
        report: None,
        healthy_since: None,
        at_pids_limit: None,
        was_routed: false,
    };
    if let Some(service) = state.services.get_mut(name) {
        service.processes.insert(number);
    }
    state.nodes[node].reserve(number, process.reserved);
    state.counters.last_placed_on = Some(worker.clone());
    state.changes.counters = true;
    state.changes.processes.insert(process.record.id.clone());
    state.changes.reassign.insert(worker);
    state.processes.insert(number, process);
    has_moved(state, name);
}

/// Where a service is has changed: others may be with it, or apart from it.
fn has_moved(state: &mut State, name: &ServiceName) {
    let others: Vec<ServiceName> = rules::dependents(state, name).cloned().collect();
    state.changes.reconcile.extend(others);
}

/// Takes a process out of service. A healthy one drains first, unless no request was ever routed to it.
pub(crate) fn retire(state: &mut State, number: u64) {
    let now = state.now;
    match state.processes.get_mut(&number) {
        Some(process) if process.may_have_requests() && !process.is_draining() => {
            process.record.draining_since = Some(now);
            process.record.replaces = None;
            state.changes.processes.insert(process.record.id.clone());
            state.changes.reroute.insert(process.record.service.clone());
            state.draining.insert(number);
        }
        _ => remove(state, number),
    }
}

/// Takes a process out of its node's desired set at once.
pub(crate) fn remove(state: &mut State, number: u64) {
    let Some(process) = state.processes.remove(&number) else {
        return;
    };
    let node = &mut state.nodes[process.node];
    node.release(number, process.reserved);
    // It exists, and has its memory, until its agent no longer reports it.
    let last_report = process
        .report
        .unwrap_or_else(|| unreported(&process.record));
    node.undesired.push(Undesired {
        report: last_report,
        reserved: process.reserved,
        slot: Slot::Known(process.record.slot),
        devices: process.record.devices,
    });
    if let Some(service) = state.services.get_mut(&process.record.service) {
        service.processes.remove(&number);
        service.runs.remove(&number);
        state
            .changes
            .reconcile
            .insert(process.record.service.clone());
        state.changes.reroute.insert(process.record.service.clone());
    }
    has_moved(state, &process.record.service);
    state.draining.remove(&number);
    state.watched.remove(&number);
    state.changes.capacity = true;
    state.changes.reassign.insert(process.record.node);
    state.changes.processes.insert(process.record.id);
    state.changes.prune.insert(process.record.service);
}

/// Removes all processes of a lost worker, but not those of runs, which are not placed again. Its generation is incremented, so
/// that its agent, if it comes back, stops the processes that were replaced.
pub(crate) fn remove_all_on(state: &mut State, index: usize) {
    let numbers = std::mem::take(&mut state.nodes[index].processes);
    for number in numbers {
        remove(state, number);
    }
    let of_runs = state.processes(&state.nodes[index].runs);
    let reserved = of_runs.map(|process| process.reserved).sum();
    let node = &mut state.nodes[index];
    node.reserved = reserved;
    node.unconfirmed = std::mem::take(&mut node.undesired);
}

/// Removes draining processes that no request is in flight to.
pub(crate) fn drained(state: &mut State, processes: &[ProcessId]) {
    for id in processes {
        let process = state.process(id).filter(|it| it.is_draining());
        if process.is_some_and(|it| !drains_for_services(state, &it.record.service)) {
            remove(state, id.number());
        }
    }
}

/// Whether processes of other services may have connections to a draining one, which no balancer knows of: it has its whole drain time.
/// One with a volume is waited for by its successor, so that its clients gain nothing by that.
fn drains_for_services(state: &State, name: &ServiceName) -> bool {
    let has_volumes = state.services.get(name).is_some_and(Service::has_volumes);
    !has_volumes && names::is_needed(state, name)
}

/// Removes the processes whose drain time has passed.
pub(crate) fn expire_drains(state: &mut State) {
    let due: Vec<u64> = state
        .draining
        .iter()
        .copied()
        .filter(|number| drained_at(state, *number).is_some_and(|at| at <= state.now))
        .collect();
    for number in due {
        remove(state, number);
    }
}

/// When the next drain time ends.
pub(crate) fn next_drain_deadline(state: &State) -> Option<Timestamp> {
    state
        .draining
        .iter()
        .filter_map(|number| drained_at(state, *number))
        .min()
}

fn drained_at(state: &State, number: u64) -> Option<Timestamp> {
    let record = &state.processes.get(&number)?.record;
    let service = state.services.get(&record.service);
    let own = service.and_then(|service| service.current().config.drain);
    let drain = own.unwrap_or(state.settings.drain);
    Some(record.draining_since?.after(drain))
}
