//! Services with volumes: each process has a slot, from 1 to the concurrency, and runs where the slot's volumes are.
//!
//! A slot never has two processes: the next one is placed once the one before is gone by its agent's report. A new revision
//! therefore stops first, one slot at a time, the highest first; slots that have no process are placed all at once. Processes that
//! were started before the service had volumes have no slot, and give way one by one.

mod claims;
mod plan;
mod survey;

use tucano_api::{ids::ServiceName, reasons::PendingReason, service::ServiceConfig};

use crate::{
    jobs, lifecycle, removal,
    state::{Resources, State, Unplaced},
    volumes,
};

pub(crate) use claims::release;

use plan::Plan;
use survey::Survey;

/// Stops what a service has too much of, and the next slot that is to be replaced.
pub(crate) fn shrink(state: &mut State, name: &ServiceName) {
    let Some(config) = config_of(state, name) else {
        return;
    };
    let survey = Survey::new(state, name, &config);
    let mut chosen = survey.surplus(state);
    chosen.extend(survey.moving(state));
    let settled = !survey.is_in_transition(state, &config);
    chosen.extend(unslotted_to_stop(state, &config, &survey, settled));
    if chosen.is_empty() && settled && survey.unslotted.is_empty() {
        chosen.extend(next_to_replace(state, &config, &survey));
    }
    for number in chosen {
        lifecycle::retire(state, number);
    }
}

/// Places the slots that have no process.
pub(crate) fn grow(state: &mut State, name: &ServiceName) {
    let Some(config) = config_of(state, name) else {
        return;
    };
    let claimed_before = claims::total(state, name);
    claims::clear(state, name);
    let survey = Survey::new(state, name, &config);
    let mut reasons = Vec::new();
    let mut allowed = survey.free_places(&config);
    let mut started = false;
    let gate = jobs::hooks::gate(state, name);
    for slot in 1..=config.concurrency {
        if survey.is_served(state, slot) {
            continue;
        }
        if let Some(reason) = &gate {
            reasons.push(reason.clone());
            continue;
        }
        if survey.by_slot.contains_key(&slot) {
            reasons.push(survey.why_waiting(state, &config, slot));
            continue;
        }
        let plan = match allowed {
            0 => Plan::wait(rolling()),
            _ => plan::plan(state, &config, slot, &survey),
        };
        match plan {
            Plan::Start(node) => {
                allowed -= 1;
                started = true;
                start(state, &config, slot, node);
            }
            Plan::Wait { reason, claim } => {
                if let Some(node) = claim {
                    claims::claim(state, node, name, slot, Resources::of(&config));
                }
                if matches!(reason, PendingReason::VolumeAway { .. }) {
                    volumes::alert_absence(state, name, slot);
                }
                reasons.push(reason);
            }
        }
    }
    let claimed = claims::total(state, name);
    state.changes.capacity |= !claimed_before.fits_in(claimed) && !started;
    if let Some(service) = state.services.get_mut(name) {
        service.pending = grouped(reasons);
        service.making_room = !claimed.is_zero();
        service.uneven = false;
    }
}

fn config_of(state: &State, name: &ServiceName) -> Option<ServiceConfig> {
    let service = state.services.get(name)?;
    Some(service.current().config.clone())
}

/// The volumes are recorded in the same step as the process.
fn start(state: &mut State, config: &ServiceConfig, slot: u32, node: usize) {
    let worker = state.nodes[node].record.name.clone();
    volumes::assign(state, config, slot, &worker);
    lifecycle::start(state, &config.name, node, None, Some(slot));
}

/// Processes without a slot that give way: those beyond the concurrency, or one where a slot could be placed instead.
fn unslotted_to_stop(
    state: &State,
    config: &ServiceConfig,
    survey: &Survey,
    settled: bool,
) -> Vec<u64> {
    let places = survey.taken_places() + survey.unslotted.len();
    let concurrency = config.concurrency as usize;
    let can_go = settled && plan::has_place(state, config, &survey.free_slots());
    let wanted = match places.checked_sub(concurrency) {
        Some(0) => usize::from(can_go),
        Some(surplus) => surplus,
        None => 0,
    };
    removal::select(state, &survey.unslotted, wanted)
}

/// An old process whose slot can have a new one in its place: one that is not healthy, else that of the highest slot.
fn next_to_replace(state: &State, config: &ServiceConfig, survey: &Survey) -> Option<u64> {
    let candidates = survey.old_slots(state).filter(|(slot, number)| {
        let process = &state.processes[number];
        plan::obstacle(
            state,
            config,
            *slot,
            process.node,
            &[process.record.id.number()],
        )
        .is_none()
    });
    let next = candidates.min_by_key(|(slot, number)| {
        let is_healthy = state.processes[number].is_healthy();
        (is_healthy, std::cmp::Reverse(*slot))
    });
    next.map(|(_, number)| number)
}

fn rolling() -> PendingReason {
    PendingReason::Rolling { at_once: 1 }
}

/// One entry for each reason, in the order of the first slot that has it.
fn grouped(reasons: Vec<PendingReason>) -> Vec<Unplaced> {
    let mut groups: Vec<Unplaced> = Vec::new();
    for reason in reasons {
        match groups.iter_mut().find(|group| group.reason == reason) {
            Some(group) => group.count += 1,
            None => groups.push(Unplaced { count: 1, reason }),
        }
    }
    groups
}
