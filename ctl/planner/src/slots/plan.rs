use tucano_api::{ids::NodeName, reasons::PendingReason, service::ServiceConfig};

use super::survey::Survey;
use crate::{
    devices::{self, Holders},
    placement,
    rules::Rules,
    state::{Resources, State},
    volumes,
};

/// What is to be done for a slot without a process.
pub(super) enum Plan {
    /// It is placed on this node.
    Start(usize),
    /// It waits.
    Wait {
        reason: PendingReason,
        /// The node that keeps memory for it.
        claim: Option<usize>,
    },
}

impl Plan {
    pub(super) fn wait(reason: PendingReason) -> Self {
        Self::Wait {
            reason,
            claim: None,
        }
    }
}

/// A slot with volumes goes where they are, any other one to the worker with the fewest slots.
pub(super) fn plan(state: &State, config: &ServiceConfig, slot: u32, survey: &Survey<'_>) -> Plan {
    if let Some((reason, target)) = volumes::fills::reason(state, &config.name, slot) {
        return Plan::Wait {
            reason,
            claim: Some(target),
        };
    }
    match state.volumes.kept_of_slot(&config.name, slot).next() {
        Some(record) => plan_on(state, config, slot, survey, &record.node),
        None => match survey.taken_by(state, slot) {
            Some(reason) => Plan::wait(reason),
            None => plan_new(state, config, slot),
        },
    }
}

/// Why a slot cannot have a process of this configuration on a node, once these processes are gone from there.
pub(super) fn obstacle(
    state: &State,
    config: &ServiceConfig,
    slot: u32,
    index: usize,
    gone: &[u64],
) -> Option<PendingReason> {
    let node = &state.nodes[index];
    if let Some(away) = away(state, config, slot, &node.record.name) {
        return Some(away);
    }
    let mut records = state.volumes.kept_of_slot(&config.name, slot);
    let missing = records.find_map(|record| Some((record, record.problem.clone()?)));
    if let Some((record, problem)) = missing {
        return Some(PendingReason::VolumeMissing {
            volume: record.volume.id.clone(),
            node: record.node.clone(),
            problem,
        });
    }
    let rules = Rules::of(state, &config.name)?;
    let why_not = |needed| placement::why_not(state, &rules, &[index], needed);
    if !node.can_run(config) || !rules.admits(state, index) {
        return Some(why_not(0));
    }
    if let Some(other) = volumes::in_the_way(state, config, slot, node) {
        return Some(other);
    }
    let needed = volumes::needed(state, config, slot);
    let room = volumes::room(state, node);
    let has_room = room.is_some_and(|room| needed == 0 || needed <= room);
    let freed = state.processes(gone).map(|process| process.reserved).sum();
    let has_memory = Resources::of(config).fits_in(node.unreserved().plus(freed));
    let has_devices = devices::fit(state, index, config, Holders::Staying(gone), 1);
    (!has_room || !has_memory || !has_devices).then(|| why_not(needed))
}

/// Whether some worker could have one of these slots as a new one, were it not for memory.
pub(super) fn has_place(state: &State, config: &ServiceConfig, slots: &[u32]) -> bool {
    let needed = size_of_all(config);
    let Some(rules) = Rules::of(state, &config.name) else {
        return false;
    };
    let mut nodes = state.nodes.iter().enumerate();
    nodes.any(|(index, node)| {
        let room = volumes::room(state, node);
        let is_free = |slot: &u32| volumes::in_the_way(state, config, *slot, node).is_none();
        let may = node.can_run(config) && rules.admits(state, index);
        may && room.is_some_and(|room| needed <= room) && slots.iter().any(is_free)
    })
}

fn plan_on(
    state: &State,
    config: &ServiceConfig,
    slot: u32,
    survey: &Survey<'_>,
    name: &NodeName,
) -> Plan {
    let Some(index) = state.node_index.get(name).copied() else {
        return match away(state, config, slot, name) {
            Some(reason) => Plan::wait(reason),
            None => Plan::wait(PendingReason::NoneAlive),
        };
    };
    let reason = obstacle(state, config, slot, index, &[])
        .or_else(|| survey.taken_by(state, slot))
        .or_else(|| {
            let node = &state.nodes[index];
            let free = node.unreserved().minus(node.stopping());
            let has_devices = devices::fit(state, index, config, Holders::All, 1);
            let fits = Resources::of(config).fits_in(free) && has_devices;
            (!fits).then_some(PendingReason::Stopping)
        });
    match reason {
        None => Plan::Start(index),
        Some(reason) => Plan::Wait {
            reason,
            claim: Some(index),
        },
    }
}

/// A worker that has another volume of a name of the slot's is no place for it.
fn plan_new(state: &State, config: &ServiceConfig, slot: u32) -> Plan {
    let needed = size_of_all(config);
    let mut counts = vec![0_u32; state.nodes.len()];
    let mut slots: Vec<_> = state.volumes.of_service(&config.name).collect();
    slots.dedup_by_key(|record| record.volume.id.slot());
    for record in slots {
        if let Some(index) = state.node_index.get(&record.node) {
            counts[*index] += 1;
        }
    }
    let fits = |index: &usize| {
        let room = volumes::room(state, &state.nodes[*index]);
        room.is_some_and(|room| needed <= room)
    };
    let other = |index: &usize| volumes::in_the_way(state, config, slot, &state.nodes[*index]);
    let is_place = |index: &usize| fits(index) && other(index).is_none();
    let Some(rules) = Rules::of(state, &config.name) else {
        return Plan::wait(PendingReason::NoneAlive);
    };
    if let Some(node) = placement::choose_where(state, &rules, &counts, is_place) {
        return Plan::Start(node);
    }
    let could_have = |index: &usize| {
        let node = &state.nodes[*index];
        let may = node.can_run(config) && rules.admits(state, *index);
        may && fits(index)
            && Resources::of(config).fits_in(node.unclaimed())
            && devices::fit(state, *index, config, Holders::Staying(&[]), 1)
    };
    let could = (0..state.nodes.len()).filter(could_have);
    let others: Vec<Option<PendingReason>> = could.map(|index| other(&index)).collect();
    if others.iter().any(Option::is_none) {
        return Plan::wait(PendingReason::Stopping);
    }
    if let Some(other) = others.into_iter().flatten().next() {
        return Plan::wait(other);
    }
    let all: Vec<usize> = (0..state.nodes.len()).collect();
    Plan::wait(placement::why_not(state, &rules, &all, needed))
}

/// What all volumes of a new slot take, in bytes.
fn size_of_all(config: &ServiceConfig) -> u64 {
    let sizes = config.volume.iter().map(|volume| volume.size.0);
    sizes.fold(0, u64::saturating_add)
}

fn away(
    state: &State,
    config: &ServiceConfig,
    slot: u32,
    node: &NodeName,
) -> Option<PendingReason> {
    let (cause, since) = volumes::absence(state, node)?;
    let record = state.volumes.kept_of_slot(&config.name, slot).next()?;
    Some(PendingReason::VolumeAway {
        volume: record.volume.id.clone(),
        node: node.clone(),
        since: record.away_since.unwrap_or(since),
        cause,
    })
}
