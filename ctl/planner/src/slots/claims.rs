//! Memory and CPUs that are kept for a slot on the worker that has its volumes: it can run nowhere else, and other services can.

use tucano_api::ids::ServiceName;

use crate::state::{Resources, State};

/// Gives up all that is kept for a service, for good.
pub(crate) fn release(state: &mut State, name: &ServiceName) {
    state.changes.capacity |= !total(state, name).is_zero();
    clear(state, name);
}

pub(super) fn clear(state: &mut State, name: &ServiceName) {
    let nodes = state.nodes.iter_mut();
    for node in nodes.filter(|node| !node.claims.is_empty()) {
        node.claims.retain(|(service, _), _| service != name);
    }
}

pub(super) fn claim(
    state: &mut State,
    node: usize,
    name: &ServiceName,
    slot: u32,
    needed: Resources,
) {
    let claims = &mut state.nodes[node].claims;
    claims.insert((name.clone(), slot), needed);
}

/// What is kept for a service on all workers.
pub(super) fn total(state: &State, name: &ServiceName) -> Resources {
    let nodes = state.nodes.iter().filter(|node| !node.claims.is_empty());
    let claims = nodes.flat_map(|node| &node.claims);
    let own = claims.filter(|((service, _), _)| service == name);
    own.map(|(_, needed)| *needed).sum()
}
