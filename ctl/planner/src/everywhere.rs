//! Services that have one process on each worker that may have one.

use std::collections::BTreeSet;

use tucano_api::ids::ServiceName;

use crate::{
    placement::{self, Inventory},
    rules::Rules,
    state::State,
};

/// Counts the workers that have a process of a service, or may have one.
pub(crate) fn count(state: &mut State, name: &ServiceName) {
    let service = state.services.get(name);
    if !service.is_some_and(|service| service.is_everywhere()) {
        return;
    }
    let count = places(state, name).len();
    if let Some(service) = state.services.get_mut(name)
        && service.everywhere != count
    {
        service.everywhere = count;
        state.changes.reroute.insert(name.clone());
    }
}

/// The processes that are not needed beside the current ones: those of workers with a healthy current one, those of workers
/// that may have none, and all but one of each other worker.
pub(crate) fn superseded(state: &State, name: &ServiceName, inventory: &Inventory) -> Vec<u64> {
    let places = places(state, name);
    let current = state.processes(&inventory.current);
    let served = current.filter(|process| process.is_healthy());
    let mut served: BTreeSet<usize> = served.map(|process| process.node).collect();
    let mut old: Vec<_> = state.processes(&inventory.old).collect();
    // A healthy one stays rather than another one.
    old.sort_by_key(|process| !process.is_healthy());
    let unneeded = old.into_iter().filter(|process| {
        let is_needed = places.contains(&process.node) && served.insert(process.node);
        !is_needed
    });
    unneeded.map(|process| process.record.id.number()).collect()
}

/// The workers that have a current process, or may have one.
fn places(state: &State, name: &ServiceName) -> BTreeSet<usize> {
    let Some(rules) = Rules::of(state, name) else {
        return BTreeSet::new();
    };
    let spread = placement::inventory(state, name).spread;
    let all = 0..state.nodes.len();
    all.filter(|index| {
        let may_have = state.nodes[*index].can_run(rules.config) && rules.admits(state, *index);
        may_have || spread[*index] > 0
    })
    .collect()
}
