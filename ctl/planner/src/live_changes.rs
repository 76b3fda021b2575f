//! Changes of a service that its running processes take: other limits, another probe, another time to stop.
//!
//! A process becomes one of the current revision where its agent can change it and its worker has the memory that it grows by.
//! Any other one is replaced, as for every change that needs new processes.
//!
//! Memory is reserved as it may be in use: until the agent reports that a change is in force, the larger of both limits.

use tucano_api::{agent::ProcessReport, ids::Digest, service::ServiceConfig};

use crate::{
    messages::bytes,
    model::RevisionRecord,
    state::{Process, Resources, Service, State},
    volumes,
};

/// Makes processes of earlier revisions ones of the current revision, where that needs no new process.
pub(crate) fn apply(state: &mut State, name: &tucano_api::ids::ServiceName) {
    let Some(service) = state.services.get(name) else {
        return;
    };
    let current = service.current();
    let candidates: Vec<u64> = state
        .processes(&service.processes)
        .filter(|process| is_candidate(service, process, current))
        .map(|process| process.record.id.number())
        .collect();
    if candidates.is_empty() {
        return;
    }
    let (revision, needed) = (current.revision, Resources::of(&current.config));
    let config = current.config.clone();
    for number in candidates {
        let Some(process) = state.processes.get_mut(&number) else {
            continue;
        };
        let node = &mut state.nodes[process.node];
        let larger = process.reserved.max(needed);
        let growth = larger.minus(process.reserved);
        let has_room = growth.is_zero() || growth.fits_in(node.free());
        // An agent that does not know a key refuses the whole desired set.
        let takes_it = node.changes_live() && node.knows_keys(&config);
        if !node.is_usable() || !takes_it || !has_room {
            continue;
        }
        node.change_reservation(process.reserved, larger);
        process.reserved = larger;
        process.record.revision = revision;
        let worker = process.record.node.clone();
        let slot = process.record.slot;
        state.changes.processes.insert(process.record.id.clone());
        state.changes.reassign.insert(worker.clone());
        state.changes.reroute.insert(name.clone());
        state.changes.prune.insert(name.clone());
        if let Some(slot) = slot {
            volumes::assign(state, &config, slot, &worker);
        }
    }
}

/// Reserves for a process what it may use by its agent's report. Memory that becomes free is available to all services.
pub(crate) fn settle(state: &mut State, number: u64) {
    let Some(process) = state.processes.get(&number) else {
        return;
    };
    let Some(needed) = may_use(state, process) else {
        return;
    };
    let before = process.reserved;
    if needed == before {
        return;
    }
    state.nodes[process.node].change_reservation(before, needed);
    if let Some(process) = state.processes.get_mut(&number) {
        process.reserved = needed;
    }
    state.changes.capacity |= !before.fits_in(needed);
}

/// Why the running processes of a service cannot have these limits: they use more, or their volumes are larger. A message for the
/// user. Processes that would be replaced are no obstacle.
pub(crate) fn obstacle(state: &State, config: &ServiceConfig, image: &Digest) -> Option<String> {
    volumes::size_obstacle(state, config).or_else(|| in_use(state, config, image))
}

fn in_use(state: &State, config: &ServiceConfig, image: &Digest) -> Option<String> {
    let service = state.services.get(&config.name)?;
    state
        .processes(&service.processes)
        .filter(|process| !process.is_draining() && state.nodes[process.node].changes_live())
        .find_map(|process| {
            let from = service.revision(process.record.revision)?;
            let stays = from.image == *image && from.config.same_process(config);
            let report = process.report.as_ref().filter(|_| stays)?;
            let excess = excess(&from.config, config, report)?;
            Some(format!(
                "process {} on {} {excess}",
                report.id, process.record.node
            ))
        })
}

fn is_candidate(service: &Service, process: &Process, current: &RevisionRecord) -> bool {
    let is_restarted = service.record.is_to_be_replaced(&process.record);
    let earlier = !service.is_current(process) && !is_restarted && !process.is_draining();
    earlier
        && service
            .revision(process.record.revision)
            .is_some_and(|from| {
                from.has_image_of(current) && from.config.same_process(&current.config)
            })
}

/// What a process may use: by its revision once its agent reports that one, and the most of what it had before until then. `None`
/// if that stays as it is.
fn may_use(state: &State, process: &Process) -> Option<Resources> {
    let report = process.report.as_ref()?;
    let service = state.services.get(&process.record.service)?;
    let wanted = Resources::of(&service.revision(process.record.revision)?.config);
    if report.revision == process.record.revision {
        return Some(wanted);
    }
    let earlier = service.revision(report.revision);
    let earlier = earlier.map_or_else(Resources::default, |it| Resources::of(&it.config));
    let limit = Resources {
        memory: report.metrics.as_ref().map_or(0, |it| it.memory_limit.0),
        millicpus: 0,
    };
    Some(process.reserved.max(wanted).max(earlier).max(limit))
}

/// The first limit that is lowered below what the process uses.
fn excess(before: &ServiceConfig, after: &ServiceConfig, report: &ProcessReport) -> Option<String> {
    let metrics = report.metrics.as_ref();
    let memory = metrics.map(|it| it.memory_current.0.saturating_sub(it.memory_reclaimable.0));
    let memory = memory.filter(|used| after.memory < before.memory && *used > after.memory.0);
    let pids = metrics.map(|it| it.pids_current);
    let pids = pids.filter(|used| after.pids < before.pids && *used > u64::from(after.pids));
    let disk = report.disk_used.map(|used| used.0);
    let disk = disk.filter(|used| after.disk < before.disk && *used > after.disk.0);
    let used = |key, used: u64, wanted: u64| {
        format!(
            "uses {} now, more than `{key}` = {}: write more, or have it use less first",
            bytes(used),
            bytes(wanted)
        )
    };
    if let Some(memory) = memory {
        return Some(used("memory", memory, after.memory.0));
    }
    if let Some(pids) = pids {
        return Some(format!(
            "has {pids} processes and threads now, more than `pids` = {}: write more, or have it start fewer first",
            after.pids
        ));
    }
    disk.map(|disk| used("disk", disk, after.disk.0))
}
