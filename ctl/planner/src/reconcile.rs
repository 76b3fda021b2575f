//! Bringing services nearer to their configuration.

use tucano_api::ids::ServiceName;

use crate::{
    everywhere, jobs, live_changes, names, placement, rebalance, rollout, slots, state::State,
};

/// Limit of rounds within one step, in which services may free memory for each other; what is left is done with the
/// next event.
const MAX_ROUNDS: usize = 8;

/// Reconciles every service that something has happened to. Nothing is done while workers are awaited.
pub(crate) fn run(state: &mut State) {
    if !state.awaited.is_empty() {
        return;
    }
    for _ in 0..MAX_ROUNDS {
        let names = take_names(state);
        // All services shrink before any grows, so that the memory that becomes free is available to all.
        for name in &names {
            shrink(state, name);
        }
        for name in &names {
            grow(state, name);
            jobs::advance(state, name);
        }
        if !names.is_empty() {
            rebalance::start_move_in_total(state);
        }
        if std::mem::take(&mut state.changes.capacity) {
            retry_unfinished(state);
        }
        if state.changes.reconcile.is_empty() {
            break;
        }
    }
}

/// The services to reconcile. One that has stopped a process to make room comes first: that room is its own. So does one with
/// volumes: its processes run where those are, and nowhere else.
fn take_names(state: &mut State) -> Vec<ServiceName> {
    let names = std::mem::take(&mut state.changes.reconcile);
    let mut names: Vec<ServiceName> = names.into_iter().collect();
    names.sort_by_key(|name| {
        let service = state.services.get(name);
        !service.is_some_and(|service| service.making_room || service.has_volumes())
    });
    names
}

/// Changes what can be changed as it runs, and stops what a service has too much of.
fn shrink(state: &mut State, name: &ServiceName) {
    if state.services.get(name).is_some_and(jobs::is_job) {
        return;
    }
    everywhere::count(state, name);
    live_changes::apply(state, name);
    if has_volumes(state, name) {
        return slots::shrink(state, name);
    }
    let mut inventory = placement::inventory(state, name);
    if !inventory.moves.is_empty() {
        rebalance::advance_moves(state, name, inventory);
        inventory = placement::inventory(state, name);
    }
    rollout::retire_surplus(state, name, &inventory);
}

/// Places what a service is missing, then moves what is spread unevenly.
fn grow(state: &mut State, name: &ServiceName) {
    if state.services.get(name).is_some_and(jobs::is_job) {
        return;
    }
    if names::start::holds_back(state, name) {
        return;
    }
    if has_volumes(state, name) {
        return slots::grow(state, name);
    }
    slots::release(state, name);
    let mut inventory = placement::inventory(state, name);
    if rollout::fill(state, name, &inventory) {
        inventory = placement::inventory(state, name);
    }
    rebalance::start_move(state, name, &inventory);
}

fn has_volumes(state: &State, name: &ServiceName) -> bool {
    let service = state.services.get(name);
    service.is_some_and(|service| service.has_volumes())
}

/// Memory has become free, or another worker is alive: services that are incomplete or uneven are tried again.
fn retry_unfinished(state: &mut State) {
    let unfinished = state
        .services
        .iter()
        .filter(|(_, service)| {
            service.uneven || service.is_everywhere() || !service.pending.is_empty()
        })
        .map(|(name, _)| name.clone());
    let unfinished = unfinished.chain(state.jobs.waiting().cloned());
    state.changes.reconcile.extend(unfinished);
}
