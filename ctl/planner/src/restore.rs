//! Loading the state from its records. Records that do not fit together are dropped, and the first step deletes them.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::NodeName,
    state::NodeCondition,
    units::{Span, Timestamp},
};

use crate::{
    backups, everywhere, jobs,
    model::{NodeRecord, ProcessRecord, ServiceRecord, Snapshot, VolumeRecord, Worker},
    restarts::back_off,
    rules,
    state::{Node, NodeRestart, Process, Resources, Service, State},
};

/// Fills an empty state.
pub(crate) fn load(state: &mut State, snapshot: Snapshot, workers: Vec<Worker>) {
    state.counters = snapshot.counters;
    state.identity = snapshot.identity;
    load_nodes(state, snapshot.nodes, workers);
    let secrets = snapshot.secrets.into_iter();
    state.secrets = secrets.map(|it| (it.name.clone(), it)).collect();
    for record in snapshot.services {
        load_service(state, record);
    }
    jobs::load(state, snapshot.jobs, snapshot.runs);
    rules::index(state);
    for record in snapshot.processes {
        load_process(state, record);
    }
    for record in snapshot.volumes {
        load_volume(state, record);
    }
    state.backups = snapshot
        .backups
        .into_iter()
        .map(|it| (it.id.clone(), it))
        .collect();
    let names: Vec<_> = state.services.keys().cloned().collect();
    for name in names {
        everywhere::count(state, &name);
    }
    backups::schedule_all(state);
    state.changes.volume_nodes = true;
    state
        .changes
        .reconcile
        .extend(state.services.keys().cloned());
    state.changes.reroute.extend(state.services.keys().cloned());
    let nodes = state.nodes.iter();
    state.changes.needy = nodes.map(|node| node.record.name.clone()).collect();
    state.changes.publish = true;
}

fn load_nodes(state: &mut State, records: Vec<NodeRecord>, workers: Vec<Worker>) {
    let expected: BTreeSet<NodeName> = workers.iter().map(|worker| worker.name.clone()).collect();
    let mut known = BTreeMap::new();
    for record in records {
        if expected.contains(&record.name) {
            known.insert(record.name.clone(), record);
        } else {
            // Its agent may hold this set. If the worker is added again, it must get a newer one.
            state.reserve_generations(record.generation.next());
            state.changes.nodes.insert(record.name);
        }
    }
    for worker in workers {
        if state.node_index.contains_key(&worker.name) {
            continue;
        }
        let node = match known.remove(&worker.name) {
            Some(record) => load_node(state, worker, record),
            None => {
                state.changes.nodes.insert(worker.name.clone());
                Node::new(worker, state.counters.first_generation, state.now)
            }
        };
        if node.has_lease() {
            state.awaited.insert(node.record.name.clone());
        }
        state
            .node_index
            .insert(node.record.name.clone(), state.nodes.len());
        state.nodes.push(node);
    }
}

/// The restart attempts of a missing worker continue where they were; the result of a running one is not known.
fn load_node(state: &State, worker: Worker, mut record: NodeRecord) -> Node {
    record.since = record.since.min(state.now);
    let attempts = record.restart_attempts;
    let missing = record.condition == NodeCondition::Missing;
    let mut node = Node::restored(worker, record, state.now);
    if missing {
        let wait = match attempts {
            0 => Span::secs(0),
            tried => back_off(state.settings.restart_backoff, tried),
        };
        node.restart = if attempts < state.settings.restart_attempts {
            NodeRestart::BackOff(state.now.after(wait))
        } else {
            NodeRestart::AwaitingReport(state.now.after(state.settings.restart_grace))
        };
    }
    node
}

fn load_service(state: &mut State, record: ServiceRecord) {
    if record.revisions.is_empty() {
        state.changes.services.insert(record.name);
        return;
    }
    let name = record.name.clone();
    state.changes.unaddressed.insert(name.clone());
    if record.awaits_start {
        state.awaiting_start.insert(name.clone());
    }
    state.services.insert(name, Service::new(record));
}

fn load_process(state: &mut State, mut record: ProcessRecord) {
    let number = record.id.number();
    if number > state.counters.last_process {
        state.counters.last_process = number;
        state.changes.counters = true;
    }
    let Some((node, reserved)) = place_of(state, &record) else {
        state.changes.processes.insert(record.id);
        return;
    };
    record.draining_since = record
        .draining_since
        .map(|since: Timestamp| since.min(state.now));
    if record.draining_since.is_some() {
        state.draining.insert(number);
    }
    let node_of = &mut state.nodes[node];
    match record.run {
        Some(_) => node_of.reserve_for_run(number, reserved),
        None => node_of.reserve(number, reserved),
    }
    if let Some(service) = state.services.get_mut(&record.service) {
        match record.run {
            Some(_) => service.runs.insert(number),
            None => service.processes.insert(number),
        };
    }
    let process = Process {
        record,
        node,
        reserved,
        report: None,
        healthy_since: None,
        at_pids_limit: None,
        // By the controller before this one.
        was_routed: true,
    };
    if process.record.crashes.is_alerted() {
        state.watched.insert(number);
    }
    state.processes.insert(number, process);
}

/// Volumes outlive their service and their worker's place in the topology.
fn load_volume(state: &mut State, record: VolumeRecord) {
    if record.volume.instance > state.counters.last_volume {
        state.counters.last_volume = record.volume.instance;
        state.changes.counters = true;
    }
    state.volumes.insert(record);
}

/// The node that a process is on and what it reserves, if everything that its record refers to exists.
fn place_of(state: &State, record: &ProcessRecord) -> Option<(usize, Resources)> {
    let node = *state.node_index.get(&record.node)?;
    let service = state.services.get(&record.service)?;
    let revision = service.revision(record.revision)?;
    let is_free = !state.processes.contains_key(&record.id.number());
    let is_expected = match record.run {
        // It is not placed again while its worker is missing.
        Some(run) => is_of_run(state, record, run),
        None => state.nodes[node].has_lease(),
    };
    (is_free && is_expected).then_some((node, Resources::of(&revision.config)))
}

/// Whether a process is one of those that its run may have.
fn is_of_run(state: &State, record: &ProcessRecord, run: u64) -> bool {
    let run = state.jobs.run(&record.service, run);
    run.is_some_and(|run| {
        let mut active = run.active();
        active.any(|it| it.process == record.id && it.node == record.node && !it.stopping)
    })
}
