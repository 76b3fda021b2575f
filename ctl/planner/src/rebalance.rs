//! Rebalancing: when the workers have been uneven for long, one more process is started on the emptiest worker, and when
//! it is healthy, one on the fullest drains. One at a time per service, and only while the service is healthy.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{ProcessId, ServiceName},
    units::Timestamp,
};

use crate::{
    lifecycle,
    placement::{self, Inventory},
    rules::{Rules, Zones},
    state::State,
};

/// Completes or gives up moves that are under way.
pub(crate) fn advance_moves(state: &mut State, name: &ServiceName, inventory: Inventory) {
    let concurrency = state.concurrency(name);
    let mut count = inventory.current.len();
    for number in inventory.moves {
        let Some(process) = state.processes.get(&number) else {
            continue;
        };
        let healthy = process.is_healthy();
        let replaced = process
            .record
            .replaces
            .as_ref()
            .map_or(0, ProcessId::number);
        let is_there = inventory.current.binary_search(&replaced).is_ok();
        if !is_there || count < concurrency {
            // The process that it replaces is gone, or is needed as well.
            complete_move(state, number);
            count += 1;
        } else if count > concurrency {
            lifecycle::retire(state, number);
        } else if healthy {
            complete_move(state, number);
            lifecycle::retire(state, replaced);
        }
    }
}

/// Starts to move a process if the service is uneven and complete, and no rollout or move is under way.
pub(crate) fn start_move(state: &mut State, name: &ServiceName, inventory: &Inventory) {
    let concurrency = state.concurrency(name);
    let Some(service) = state.services.get(name) else {
        return;
    };
    if service.is_everywhere() {
        return;
    }
    let Some(rules) = Rules::of(state, name) else {
        return;
    };
    let may_have =
        |index: usize| state.nodes[index].can_run(rules.config) && rules.admits(state, index);
    let uneven = is_uneven(state, &rules.zones, &inventory.spread, may_have);
    let chosen = uneven
        .then(|| best_move(state, inventory, &rules))
        .flatten();
    let Some(service) = state.services.get_mut(name) else {
        return;
    };
    service.uneven = uneven;
    let complete = inventory.current.len() == concurrency && inventory.starting() == 0;
    let settled = inventory.old.is_empty() && inventory.moves.is_empty();
    if !(uneven && complete && settled && state.may_rebalance) {
        return;
    }
    if let Some((target, replaced)) = chosen {
        lifecycle::start(state, name, target, Some(replaced), None);
    }
}

/// Allows moves once the set of alive workers has been stable for long enough.
pub(crate) fn open(state: &mut State) {
    if state.may_rebalance || opens_at(state) > state.now {
        return;
    }
    state.may_rebalance = true;
    let total = is_uneven_in_total(state);
    let uneven = state
        .services
        .iter()
        .filter(|(_, service)| service.uneven || total);
    let names: Vec<ServiceName> = uneven.map(|(name, _)| name.clone()).collect();
    state.changes.reconcile.extend(names);
}

/// Moves a process where every service is spread evenly, but the workers have unequal numbers of processes: services of
/// few processes do not even out by themselves. One at a time in the whole cluster.
pub(crate) fn start_move_in_total(state: &mut State) {
    if !state.may_rebalance || !is_uneven_in_total(state) || is_moving(state) {
        return;
    }
    let followed = followed(state);
    let names = state.services.keys();
    let names: Vec<_> = names
        .filter(|name| !followed.contains(name))
        .cloned()
        .collect();
    for name in names {
        if let Some((target, replaced)) = move_in_total(state, &name) {
            return lifecycle::start(state, &name, target, Some(replaced), None);
        }
    }
}

/// Services that others are to be with. Those would follow a process that is moved, and the whole would be as uneven as before.
fn followed(state: &State) -> BTreeSet<&ServiceName> {
    let services = state.services.values();
    services
        .flat_map(|service| &service.current().config.placement.with)
        .collect()
}

/// When moves are allowed, if a service or the whole is uneven.
pub(crate) fn next_start(state: &State) -> Option<Timestamp> {
    let mut services = state.services.values();
    let uneven = services.any(|service| service.uneven) || is_uneven_in_total(state);
    let waiting = !state.may_rebalance && uneven && !state.services.is_empty();
    waiting.then(|| opens_at(state))
}

fn opens_at(state: &State) -> Timestamp {
    state
        .alive_workers_since
        .after(state.settings.rebalance_after)
}

/// The worker to start one more process on, and the process that it replaces: from the fullest zone to the emptiest, else within a
/// zone.
fn best_move(
    state: &State,
    inventory: &Inventory,
    rules: &Rules<'_>,
) -> Option<(usize, ProcessId)> {
    let (zones, counts) = (&rules.zones, &inventory.spread);
    let sums = zones.sums(counts);
    let target = placement::choose(state, rules, counts)?;
    let is_source = |index: &usize| state.nodes[*index].is_usable() && counts[*index] > 0;
    let sources = || (0..state.nodes.len()).filter(is_source);
    let source = sources().max_by_key(|index| (sums[zones.of(*index)], counts[*index]))?;
    if sums[zones.of(source)] > sums[zones.of(target)] + 1 {
        return Some((target, newest_on(state, inventory, source)?));
    }
    (0..zones.number()).find_map(|zone| {
        let is_in = |index: &usize| zones.of(*index) == zone;
        let target = placement::choose_where(state, rules, counts, is_in)?;
        let source = sources().filter(is_in).max_by_key(|index| counts[*index])?;
        let evens_out = counts[source] > counts[target] + 1;
        Some((target, newest_on(state, inventory, source)?)).filter(|_| evens_out)
    })
}

fn newest_on(state: &State, inventory: &Inventory, node: usize) -> Option<ProcessId> {
    let mut newest = state.processes(inventory.current.iter().rev());
    let newest = newest.find(|process| process.node == node)?;
    Some(newest.record.id.clone())
}

/// Whether one zone has at least two processes more than another, or one worker than another one of its zone.
fn is_uneven(
    state: &State,
    zones: &Zones,
    counts: &[u32],
    may_have: impl Fn(usize) -> bool,
) -> bool {
    let sums = zones.sums(counts);
    let mut workers: Vec<Option<(u32, u32)>> = vec![None; zones.number()];
    for index in (0..state.nodes.len()).filter(|index| may_have(*index)) {
        let count = counts[index];
        let range = workers[zones.of(index)].get_or_insert((count, count));
        *range = (range.0.min(count), range.1.max(count));
    }
    let there = || (0..zones.number()).filter(|zone| workers[*zone].is_some());
    let most = there().map(|zone| sums[zone]).max().unwrap_or(0);
    let fewest = there().map(|zone| sums[zone]).min().unwrap_or(0);
    most > fewest + 1
        || workers
            .iter()
            .flatten()
            .any(|(fewest, most)| *most > fewest + 1)
}

/// A move of one process of this service that evens out the whole and leaves the service even.
fn move_in_total(state: &State, name: &ServiceName) -> Option<(usize, ProcessId)> {
    let service = state.services.get(name)?;
    if service.has_volumes() || service.is_everywhere() {
        return None;
    }
    let inventory = placement::inventory(state, name);
    let complete = inventory.current.len() == service.concurrency() && inventory.starting() == 0;
    let settled = inventory.old.is_empty() && inventory.moves.is_empty() && !inventory.draining;
    if !complete || !settled || !service.pending.is_empty() {
        return None;
    }
    let totals = totals(state);
    let rules = Rules::of(state, name)?;
    let zones = rules.zones.clone();
    let sums = zones.sums(&inventory.spread);
    // Of the whole, not of the service: its zones do not decide here.
    let rules = rules.without_zones();
    let target = placement::choose(state, &rules, &totals)?;
    let newest = state.processes(inventory.current.iter().rev());
    let mut candidates = newest.filter(|process| {
        let source = process.node;
        state.nodes[source].is_usable()
            && totals[source] > totals[target] + 1
            && inventory.spread[source] > inventory.spread[target]
            && keeps_zones(&zones, &sums, source, target)
    });
    let replaced = candidates.next()?;
    Some((target, replaced.record.id.clone()))
}

/// Whether the zones are as even as before after a move.
fn keeps_zones(zones: &Zones, sums: &[u32], source: usize, target: usize) -> bool {
    let (from, to) = (zones.of(source), zones.of(target));
    from == to || sums[from] > sums[to]
}

/// Processes on each worker.
fn totals(state: &State) -> Vec<u32> {
    let counts = state.nodes.iter().map(|node| node.processes.len());
    counts
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
        .collect()
}

fn is_uneven_in_total(state: &State) -> bool {
    let is_usable = |index: usize| state.nodes[index].is_usable();
    is_uneven(state, &Zones::single(), &totals(state), is_usable)
}

fn is_moving(state: &State) -> bool {
    let mut processes = state.processes.values();
    processes.any(|it| it.record.replaces.is_some() || it.is_draining())
}

/// Makes a replacement an ordinary process.
fn complete_move(state: &mut State, number: u64) {
    if let Some(process) = state.processes.get_mut(&number) {
        process.record.replaces = None;
        state.changes.processes.insert(process.record.id.clone());
    }
}
