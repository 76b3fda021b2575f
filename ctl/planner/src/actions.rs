//! The actions that follow from a step's changes: persist, assign, publish, restart, alert.

use tucano_api::{
    agent::{DesiredProcess, DesiredSet},
    ids::{NodeName, ProcessId, ServiceName},
};

use crate::{
    model::{Action, Record},
    routes, services,
    state::State,
};

/// The actions of this step, in the order in which they are to be carried out.
pub(crate) fn take(state: &mut State) -> Vec<Action> {
    for name in std::mem::take(&mut state.changes.reassign) {
        next_generation(state, name);
    }
    for name in std::mem::take(&mut state.changes.prune) {
        services::prune_revisions(state, &name);
    }
    let records = take_records(state);
    let mut actions = Vec::new();
    if !records.is_empty() {
        actions.push(Action::Persist(records));
    }
    let resend = std::mem::take(&mut state.changes.resend);
    let assigns = resend.iter().filter_map(|name| desired_set(state, name));
    actions.extend(assigns.map(Action::Assign));
    actions.extend(state.changes.final_sets.drain(..).map(Action::Assign));
    if state.awaited.is_empty() && std::mem::take(&mut state.changes.publish) {
        actions.push(Action::Publish(routes::all(state)));
    }
    let restarts = state.changes.restarts.drain(..);
    actions.extend(restarts.map(|(node, attempt)| Action::Restart { node, attempt }));
    actions.extend(state.changes.alerts.drain(..).map(Action::Alert));
    actions
}

/// Everything that is desired on a worker. `None` for a worker that is not in the topology.
pub(crate) fn desired_set(state: &State, name: &NodeName) -> Option<DesiredSet> {
    let node = &state.nodes[*state.node_index.get(name)?];
    Some(DesiredSet {
        node: name.clone(),
        generation: node.record.generation,
        processes: node
            .processes
            .iter()
            .filter_map(|number| desired_process(state, *number))
            .collect(),
    })
}

fn desired_process(state: &State, number: u64) -> Option<DesiredProcess> {
    let process = &state.processes.get(&number)?.record;
    let revision = state
        .services
        .get(&process.service)?
        .revision(process.revision)?;
    Some(DesiredProcess {
        id: process.id.clone(),
        revision: process.revision,
        image: revision.image.clone(),
        config: revision.config.clone(),
    })
}

/// Only alive workers are sent the new set; another one gets it when it reports an older generation.
fn next_generation(state: &mut State, name: NodeName) {
    let Some(index) = state.node_index.get(&name) else {
        return;
    };
    let node = &mut state.nodes[*index];
    node.record.generation = node.record.generation.next();
    if node.is_alive() {
        state.changes.resend.insert(name.clone());
    }
    state.changes.nodes.insert(name);
}

fn take_records(state: &mut State) -> Vec<Record> {
    let services = std::mem::take(&mut state.changes.services);
    let processes = std::mem::take(&mut state.changes.processes);
    let nodes = std::mem::take(&mut state.changes.nodes);
    let mut records = Vec::new();
    records.extend(services.into_iter().map(|name| service_record(state, name)));
    records.extend(processes.into_iter().map(|id| process_record(state, id)));
    records.extend(nodes.into_iter().map(|name| node_record(state, name)));
    if std::mem::take(&mut state.changes.counters) {
        records.push(Record::Counters(state.counters.clone()));
    }
    records
}

fn service_record(state: &State, name: ServiceName) -> Record {
    match state.services.get(&name) {
        Some(service) => Record::Service(Box::new(service.record.clone())),
        None => Record::ServiceGone(name),
    }
}

fn process_record(state: &State, id: ProcessId) -> Record {
    match state.process(&id) {
        Some(process) => Record::Process(process.record.clone()),
        None => Record::ProcessGone(id),
    }
}

fn node_record(state: &State, name: NodeName) -> Record {
    match state.node_index.get(&name) {
        Some(index) => Record::Node(state.nodes[*index].record.clone()),
        None => Record::NodeGone(name),
    }
}
