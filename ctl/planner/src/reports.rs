//! Reports of agents: each one is the whole actual set of its node.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{NodeReport, ProcessReport},
    ids::{Generation, NodeName, ProcessId, ServiceName},
    state::NodeCondition,
};

use crate::{duplicates, health, leases, state::State};

/// How far a controller with an older state moves its generation past the agent's.
const GENERATION_MARGIN: u64 = 1000;

/// Applies a report, unless it is late, of an unknown worker, or of a superseded agent.
pub(crate) fn accept(state: &mut State, name: &NodeName, mut report: NodeReport) {
    let Some(index) = state.node_index.get(name).copied() else {
        return;
    };
    if state.nodes[index].is_late(&report) {
        return;
    }
    if state.nodes[index].is_superseded(&report.agent_id) {
        return duplicates::reject(state, index, &report);
    }
    state.lease_extended = false;
    let before = state.nodes[index].condition();
    let generation = report.generation;
    let processes = std::mem::take(&mut report.processes);
    update_node(state, index, report);
    if before != NodeCondition::Alive {
        leases::mark_alive(state, index, before);
    }
    let holds_present_set = generation >= state.nodes[index].record.generation;
    update_processes(state, index, holds_present_set, processes);
    compare_generation(state, index, generation);
}

fn update_node(state: &mut State, index: usize, report: NodeReport) {
    let node = &mut state.nodes[index];
    let reservable = node.reservable();
    node.leased_at = state.now;
    node.set_agent(&report.agent_id, report.sequence);
    let reweighted = node.load.observe(&report.metrics);
    node.report = Some(report);
    if node.reservable() != reservable {
        state.changes.capacity = true;
    }
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
        let number = report.id.number();
        let process = state.process(&report.id);
        if process.is_some_and(|process| process.node == index) {
            desired.insert(number, report);
        } else {
            undesired.push(report);
        }
    }
    let node = &mut state.nodes[index];
    if !holds_present_set {
        let named: BTreeSet<ProcessId> =
            undesired.iter().map(|process| process.id.clone()).collect();
        let known = std::mem::take(&mut node.undesired);
        undesired.extend(
            known
                .into_iter()
                .filter(|process| !named.contains(&process.id)),
        );
    }
    node.undesired = undesired;
    let numbers: Vec<u64> = node.processes.iter().copied().collect();
    for number in numbers {
        health::observe(state, number, desired.remove(&number));
    }
}

/// An agent that is behind is sent its set again. An agent that is ahead holds a set that this controller does not
/// remember: the controller's generation moves past it, and past what may still be under way.
fn compare_generation(state: &mut State, index: usize, held: Generation) {
    let record = &mut state.nodes[index].record;
    if held > record.generation {
        record.generation = Generation(held.0.saturating_add(GENERATION_MARGIN));
        state.changes.reassign.insert(record.name.clone());
    } else if held < record.generation {
        state.changes.resend.insert(record.name.clone());
    }
}

fn reroute_services_on(state: &mut State, index: usize) {
    let processes = state.processes(&state.nodes[index].processes);
    let names: Vec<ServiceName> = processes
        .map(|process| process.record.service.clone())
        .collect();
    state.changes.reroute.extend(names);
}
