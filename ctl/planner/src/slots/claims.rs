//! Memory that is kept for a slot on the worker that has its volumes: it can run nowhere else, and other services can.

use tucano_api::ids::ServiceName;

use crate::state::State;

/// Gives up all that is kept for a service, for good.
pub(crate) fn release(state: &mut State, name: &ServiceName) {
    state.changes.capacity |= total(state, name) > 0;
    clear(state, name);
}

pub(super) fn clear(state: &mut State, name: &ServiceName) {
    let nodes = state.nodes.iter_mut();
    for node in nodes.filter(|node| !node.claims.is_empty()) {
        node.claims.retain(|(service, _), _| service != name);
    }
}

pub(super) fn claim(state: &mut State, node: usize, name: &ServiceName, slot: u32, memory: u64) {
    let claims = &mut state.nodes[node].claims;
    claims.insert((name.clone(), slot), memory);
}

/// What is kept for a service on all workers, in bytes.
pub(super) fn total(state: &State, name: &ServiceName) -> u64 {
    let nodes = state.nodes.iter().filter(|node| !node.claims.is_empty());
    let claims = nodes.flat_map(|node| &node.claims);
    let own = claims.filter(|((service, _), _)| service == name);
    own.fold(0, |sum, (_, memory)| sum.saturating_add(*memory))
}
