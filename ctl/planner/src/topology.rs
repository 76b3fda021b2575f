//! New static configuration: workers are added, removed or moved, settings change.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{DesiredSet, SetIdentity},
    ids::NodeName,
};

use crate::{
    actions, holds, jobs, lifecycle,
    model::{Settings, Worker},
    names, silence,
    state::{Node, State},
};

/// Applies a topology and settings.
pub(crate) fn configure(state: &mut State, workers: Vec<Worker>, settings: Settings) {
    let moved = state.settings.service_subnet != settings.service_subnet;
    state.settings = settings;
    if moved {
        names::addresses::renumber(state);
    }
    let names: BTreeSet<NodeName> = workers.iter().map(|worker| worker.name.clone()).collect();
    for index in 0..state.nodes.len() {
        if !names.contains(&state.nodes[index].record.name) {
            remove_worker(state, index);
        }
    }
    reorder(state, workers);
    state.changes.volume_nodes = true;
    state.changes.prune.extend(state.services.keys().cloned());
    state.changes.reroute.extend(state.services.keys().cloned());
    state
        .changes
        .reconcile
        .extend(state.services.keys().cloned());
}

/// Removes a worker that has left the topology: its processes are placed elsewhere, and its agent, whose reports are no
/// longer accepted, is sent an empty set.
fn remove_worker(state: &mut State, index: usize) {
    let was_usable = state.nodes[index].is_usable();
    let was_alive = state.nodes[index].is_alive();
    let identity = SetIdentity {
        cluster: state.identity.cluster.clone(),
        epoch: holds::epoch_of(state, &state.nodes[index]),
        digest: Some(actions::content_digest(&[])),
    };
    silence::end(state, index, true);
    lifecycle::remove_all_on(state, index);
    jobs::node_left(state, index);
    let record = &state.nodes[index].record;
    let name = record.name.clone();
    let last = record.generation.next();
    if was_usable {
        state.changes.final_sets.push(DesiredSet {
            generation: last,
            identity,
            ..DesiredSet::empty(name.clone())
        });
    }
    if was_alive {
        state.alive_workers_changed();
    }
    state.reserve_generations(last);
    state.stop_awaiting(&name);
    state.changes.needy.insert(name.clone());
    state.changes.nodes.insert(name);
}

/// Puts the nodes into the topology's order and adds new ones.
fn reorder(state: &mut State, workers: Vec<Worker>) {
    let nodes = std::mem::take(&mut state.nodes);
    let mut known: BTreeMap<NodeName, Node> = nodes
        .into_iter()
        .map(|node| (node.record.name.clone(), node))
        .collect();
    state.node_index.clear();
    for worker in workers {
        let name = worker.name.clone();
        if state.node_index.contains_key(&name) {
            continue;
        }
        let node = match known.remove(&name) {
            Some(node) => Node { worker, ..node },
            None => {
                state.changes.nodes.insert(name.clone());
                Node::new(worker, state.counters.first_generation, state.now)
            }
        };
        state.node_index.insert(name, state.nodes.len());
        state.nodes.push(node);
    }
    for process in state.processes.values_mut() {
        if let Some(index) = state.node_index.get(&process.record.node) {
            process.node = *index;
        }
    }
}
