//! How many processes of which revision a service has.
//!
//! A new revision is started before the old one is stopped: new processes are added a few at a time, and for each
//! one that is healthy an old one is stopped. Only where memory is short is an old one stopped first.

use std::collections::BTreeMap;

use tucano_api::{ids::ServiceName, reasons::PendingReason};

use crate::{
    devices::{self, Holders},
    everywhere, jobs, lifecycle,
    placement::{self, Inventory},
    removal,
    rules::Rules,
    state::{Resources, Service, State, pending},
};

/// Retires current processes beyond the concurrency, and old ones except as many as stand in for current processes
/// that are not healthy.
pub(crate) fn retire_surplus(state: &mut State, name: &ServiceName, inventory: &Inventory) {
    let is_everywhere = state.services.get(name).is_some_and(Service::is_everywhere);
    let concurrency = state.concurrency(name);
    let extra = inventory.current.len().saturating_sub(concurrency);
    let needed = concurrency.saturating_sub(inventory.healthy_current);
    let superseded = inventory.old.len().saturating_sub(needed);
    let mut chosen = removal::select(state, &inventory.current, extra);
    chosen.extend(match is_everywhere {
        true => everywhere::superseded(state, name, inventory),
        false => removal::select(state, &inventory.old, superseded),
    });
    for number in chosen {
        lifecycle::retire(state, number);
    }
}

/// Places missing processes, as many as fit and as may be replaced at once. Whether anything was changed.
pub(crate) fn fill(state: &mut State, name: &ServiceName, inventory: &Inventory) -> bool {
    let concurrency = state.concurrency(name);
    if let Some(reason) = jobs::hooks::gate(state, name) {
        let missing = concurrency.saturating_sub(inventory.current.len());
        if let Some(service) = state.services.get_mut(name) {
            service.pending = pending(missing, reason);
        }
        return false;
    }
    let missing = concurrency.saturating_sub(inventory.current.len());
    let at_once = concurrency.div_ceil(2).max(1);
    let allowed = if inventory.healthy_old == 0 {
        missing
    } else {
        missing.min(at_once.saturating_sub(inventory.starting()))
    };
    let placed = placement::place(state, name, inventory, allowed);
    let Some(service) = state.services.get_mut(name) else {
        return false;
    };
    service.making_room &= placed.started == 0;
    service.making_room |= placed.made_room;
    let without_place = allowed - placed.started - placed.waiting;
    service.pending = pending(placed.waiting, PendingReason::Stopping);
    if without_place > 0 {
        let reason = why_not(state, name, inventory);
        if let Some(service) = state.services.get_mut(name) {
            service.pending.extend(pending(without_place, reason));
        }
    }
    let Some(service) = state.services.get_mut(name) else {
        return false;
    };
    service.pending.extend(pending(
        missing - allowed,
        PendingReason::Rolling {
            at_once: at_once as u64,
        },
    ));
    if placed.started + placed.waiting == 0 && allowed > 0 {
        stop_first(state, name, inventory);
    }
    allowed > 0
}

fn why_not(state: &State, name: &ServiceName, inventory: &Inventory) -> PendingReason {
    let Some(rules) = Rules::of(state, name) else {
        return PendingReason::NoWorkers;
    };
    let nodes = 0..state.nodes.len();
    let nodes: Vec<usize> = match rules.config.placement.everywhere {
        // Those that have no process, and may have one.
        true => nodes
            .filter(|index| inventory.spread[*index] == 0)
            .filter(|index| state.nodes[*index].can_run(rules.config))
            .filter(|index| rules.admits(state, *index))
            .collect(),
        false => nodes.collect(),
    };
    placement::why_not(state, &rules, &nodes, 0)
}

/// When no process of the current revision could be placed and none is starting, stops as few old processes as make
/// room for one.
fn stop_first(state: &mut State, name: &ServiceName, inventory: &Inventory) {
    if inventory.starting() > 0 || inventory.draining || is_stopping(state, name) {
        return;
    }
    let Some(chosen) = room_by_stopping(state, name, inventory) else {
        return;
    };
    for number in chosen {
        lifecycle::retire(state, number);
    }
    if let Some(service) = state.services.get_mut(name) {
        service.making_room = true;
    }
}

/// Whether a process of the service is stopping, whose memory becomes free.
fn is_stopping(state: &State, name: &ServiceName) -> bool {
    let mut undesired = state.nodes.iter().flat_map(|node| &node.undesired);
    undesired.any(|it| it.report.service == *name && !it.reserved.is_zero())
}

/// The fewest of the old processes, all on one node, without which one process of the current revision fits there. `None`
/// if it fits nowhere, so that nothing is stopped without use.
fn room_by_stopping(state: &State, name: &ServiceName, inventory: &Inventory) -> Option<Vec<u64>> {
    let rules = Rules::of(state, name)?;
    let mut by_node: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for number in &inventory.old {
        by_node
            .entry(state.processes.get(number)?.node)
            .or_default()
            .push(*number);
    }
    by_node
        .into_iter()
        .filter(|(node, _)| rules.has_place_beside(inventory.spread[*node]))
        .filter_map(|(node, numbers)| enough_of(state, node, numbers, &rules))
        .min_by_key(Vec::len)
}

/// The first of a node's processes that together free enough for one of this configuration.
fn enough_of(state: &State, node: usize, numbers: Vec<u64>, rules: &Rules<'_>) -> Option<Vec<u64>> {
    let needed = Resources::of(rules.config);
    let may_have = rules.admits(state, node);
    let has_devices =
        |without: &[u64]| devices::fit(state, node, rules.config, Holders::Staying(without), 1);
    let node = &state.nodes[node];
    if !node.can_run(rules.config) || !may_have || !needed.fits_in(node.reservable()) {
        return None;
    }
    let mut reserved = node.reserved.plus(node.claimed());
    let mut chosen = Vec::new();
    for number in numbers {
        reserved = reserved.minus(state.processes.get(&number)?.reserved);
        chosen.push(number);
        if reserved.fits_in(node.reservable().minus(needed)) && has_devices(&chosen) {
            return Some(chosen);
        }
    }
    None
}
