//! Volumes: file systems of a slot, which outlive its processes. A volume is created once, on the worker that its slot is first
//! placed on, and never moves by itself: while its worker is not there, or does not have it, the slot waits.
//!
//! ```text
//!  slot placed ──> recorded ──(reported)──> confirmed <──> away, or missing
//!                     └───────────┬────────────┘
//!                              removed ──> removing ──(no longer reported)──> gone
//! ```

pub(crate) mod fills;
pub(crate) mod orphans;
pub(crate) mod restores;
mod targets;
mod views;

use std::collections::BTreeSet;

use tucano_api::{
    agent::{NodeVolumes, VolumeInstance, VolumeReport},
    ids::{NodeName, ProcessId, ServiceName, VolumeId},
    reasons::Absence,
    service::{ServiceConfig, Volume},
    state::{AlertKind, NodeCondition},
    units::{Bytes, Timestamp},
};

use crate::{
    messages::bytes,
    model::VolumeRecord,
    state::{Node, Slot, State},
};

pub(crate) use orphans::in_the_way;
pub(crate) use views::all as views;

/// Largest step from one instance to a later one that is taken for real.
const MAX_INSTANCE_STEP: u64 = 1 << 32;

/// Records which volumes are on workers that have gone or have come back.
pub(crate) fn check_nodes(state: &mut State) {
    if !std::mem::take(&mut state.changes.volume_nodes) {
        return;
    }
    let nodes: Vec<NodeName> = state.volumes.nodes().cloned().collect();
    for node in nodes {
        let volumes: Vec<VolumeInstance> = instances(state.volumes.on(&node));
        let lost = lost(state, &node);
        if let Some((cause, since)) = lost {
            fills::check_target(state, &node, &format!("{node} {}", cause.since(since)));
        }
        let index = state.node_index.get(&node);
        let is_back = index.is_some_and(|index| state.nodes[*index].is_usable());
        for volume in volumes {
            match lost {
                Some((Absence::Left, _)) if is_removing(state, &volume) => forget(state, &volume),
                Some((_, since)) => gone_away(state, &volume, since),
                None if is_back => come_back(state, &volume),
                None => {}
            }
        }
    }
}

/// Why a worker is not there to run anything, and since when; `None` while it can.
pub(crate) fn absence(state: &State, node: &NodeName) -> Option<(Absence, Timestamp)> {
    if let Some(lost) = lost(state, node) {
        return Some(lost);
    }
    let node = &state.nodes[*state.node_index.get(node)?];
    (!node.is_usable()).then_some((Absence::Silent, node.leased_at))
}

/// Alerts that a slot waits for a worker, once for each absence.
pub(crate) fn alert_absence(state: &mut State, service: &ServiceName, slot: u32) {
    let Some(record) = state.volumes.kept_of_slot(service, slot).next() else {
        return;
    };
    let Some((cause, since)) = lost(state, &record.node).filter(|_| !record.alerted) else {
        return;
    };
    let since = record.away_since.unwrap_or(since);
    let volume = record.volume.clone();
    let message = format!(
        "volume {} is on {}, which {}: slot {slot} of service {service} waits for it. {}",
        volume.id,
        record.node,
        cause.since(since),
        capitalized(cause.advice()),
    );
    update(state, &volume, |record| record.alerted = true);
    state.alert(AlertKind::VolumeAway, volume.id, message);
}

/// Compares a worker's volumes with its report. Where its agent holds the present set, a volume that it does not report does not
/// exist.
pub(crate) fn observe(state: &mut State, index: usize, holds_present_set: bool) {
    let name = state.nodes[index].record.name.clone();
    skip_instances(state, index);
    for volume in instances(state.volumes.on(&name)) {
        let reported = reported(&state.nodes[index], &volume).cloned();
        observe_one(state, &volume, reported, holds_present_set);
    }
    fills::advance(state);
}

/// The bytes by which the volumes of a slot grow, or that they take where they do not exist.
pub(crate) fn needed(state: &State, config: &ServiceConfig, slot: u32) -> u64 {
    let more = config.volume.iter().map(|volume| {
        let id = VolumeId::new(&config.name, &volume.name, slot);
        let has = present(state, &id).map_or(0, |record| record.size.0);
        volume.size.0.saturating_sub(has)
    });
    more.fold(0, u64::saturating_add)
}

/// The bytes that a worker has left for volumes, also beside those that no record tells of; `None` where it has no place for any.
pub(crate) fn room(state: &State, node: &Node) -> Option<u64> {
    let capacity = place(node)?.capacity.0;
    let orphans = orphans::on(state, node).map(|report| report.size.0);
    let taken = orphans.fold(
        state.volumes.size_on(&node.record.name),
        u64::saturating_add,
    );
    Some(capacity.saturating_sub(taken))
}

/// Records the volumes of a slot that is placed on a worker, as far as it has none, and the growth of the others.
pub(crate) fn assign(state: &mut State, config: &ServiceConfig, slot: u32, node: &NodeName) {
    for volume in &config.volume {
        let id = VolumeId::new(&config.name, &volume.name, slot);
        let known = present(state, &id).map(|record| record.volume.clone());
        match known {
            Some(known) => resize(state, &known, volume.size),
            None => create(state, id, volume.size, node),
        }
    }
}

/// Why a service cannot have volumes of these sizes. A message for the user.
pub(crate) fn size_obstacle(state: &State, config: &ServiceConfig) -> Option<String> {
    let volumes = || {
        let records = state.volumes.of_service(&config.name);
        let present = records.filter(|record| !record.removing);
        present.filter_map(|record| {
            let name = record.volume.id.volume_name();
            let mut volumes = config.volume.iter();
            let volume = volumes.find(|volume| volume.name.as_str() == name)?;
            Some((record, volume.size))
        })
    };
    let sized = volumes().map(|(record, size)| (record, present_size(state, record), size));
    let shrunk = { sized }.find(|(_, present, size)| present > size);
    if let Some((record, present, size)) = shrunk {
        return Some(format!(
            "volume {} has {}, and volumes do not shrink to {}: write `size` = \"{}\" or more",
            record.volume.id,
            bytes(present.0),
            bytes(size.0),
            bytes(present.0).replace(' ', "")
        ));
    }
    let grown: BTreeSet<&NodeName> = volumes()
        .filter(|(record, size)| record.size < *size)
        .map(|(record, _)| &record.node)
        .collect();
    grown.into_iter().find_map(|name| {
        let node = &state.nodes[*state.node_index.get(name)?];
        let on_node = volumes().filter(|(record, _)| record.node == *name);
        let growth = on_node.map(|(record, size)| size.0.saturating_sub(record.size.0));
        let growth = growth.fold(0, u64::saturating_add);
        let room = room(state, node).filter(|room| *room < growth)?;
        Some(format!(
            "the volumes on {name} would grow by {}, and it has room for {} more of {}",
            bytes(growth),
            bytes(room),
            bytes(place(node)?.capacity.0)
        ))
    })
}

/// Why a volume cannot be removed. A message for the user.
pub(crate) fn obstacle(state: &State, id: &VolumeId) -> Option<String> {
    let service = id.service();
    if let Some(target) = fills::incoming(state, &service, id.slot()).next() {
        return Some(format!(
            "volume {id} is being moved to {}: give that up with `tucano volume move {id} {}` first",
            target.node,
            present(state, id)
                .map(|it| it.node.to_string())
                .unwrap_or_default()
        ));
    }
    if let Some(process) = user_of(state, id) {
        return Some(format!(
            "volume {id} is in use by process {process}: remove the service, or lower its `concurrency` below {} first",
            id.slot()
        ));
    }
    let config = &state.services.get(&service)?.current().config;
    (configured(state, id).is_some() && id.slot() <= config.concurrency).then(|| {
        format!(
            "volume {id} belongs to service {service}, whose `concurrency` is {}: remove the service, or lower it below {} first",
            config.concurrency,
            id.slot()
        )
    })
}

/// The configuration of a volume, by its service's current revision.
pub(crate) fn configured<'a>(state: &'a State, id: &VolumeId) -> Option<&'a Volume> {
    let mut volumes = state
        .services
        .get(&id.service())?
        .current()
        .config
        .volume
        .iter();
    volumes.find(|volume| volume.name.as_str() == id.volume_name())
}

/// Whether there is a volume of this name that is not being removed.
pub(crate) fn exists(state: &State, id: &VolumeId) -> bool {
    present(state, id).is_some()
}

/// Removes a volume, unless there is an obstacle.
pub(crate) fn remove(state: &mut State, id: &VolumeId) {
    if obstacle(state, id).is_none()
        && let Some(record) = present(state, id)
    {
        let volume = record.volume.clone();
        begin_removal(state, &volume);
    }
}

/// Removes the volumes of a service that was removed.
pub(crate) fn remove_all_of(state: &mut State, service: &ServiceName) {
    let volumes = state.volumes.of_service(service);
    for volume in instances(volumes.filter(|record| !record.removing)) {
        begin_removal(state, &volume);
    }
}

/// Adds a volume that this controller has no record of.
pub(crate) fn adopt(state: &mut State, record: VolumeRecord) {
    let last = state.counters.last_volume.saturating_add(MAX_INSTANCE_STEP);
    if record.volume.instance <= last && state.volumes.get(&record.volume).is_none() {
        let counters = &mut state.counters;
        counters.last_volume = counters.last_volume.max(record.volume.instance);
        state.changes.counters = true;
        state.changes.volumes.insert(record.volume.clone());
        state.volumes.insert(record);
    }
}

/// The volume of this name, unless it is being removed.
pub(crate) fn present<'a>(state: &'a State, id: &VolumeId) -> Option<&'a VolumeRecord> {
    let service = id.service();
    let mut volumes = state.volumes.kept_of_slot(&service, id.slot());
    volumes.find(|record| record.volume.id == *id)
}

/// What a worker reports of a volume.
pub(crate) fn reported<'a>(node: &'a Node, volume: &VolumeInstance) -> Option<&'a VolumeReport> {
    let mut all = place(node)?.all.iter();
    all.find(|report| report.volume == *volume)
}

/// What a worker reports of its place for volumes.
pub(crate) fn place(node: &Node) -> Option<&NodeVolumes> {
    node.report.as_ref()?.volumes.as_ref()
}

/// Why the processes of a worker are not there, as far as that is certain.
fn lost(state: &State, name: &NodeName) -> Option<(Absence, Timestamp)> {
    let Some(index) = state.node_index.get(name) else {
        return Some((Absence::Left, state.now));
    };
    let record = &state.nodes[*index].record;
    match record.condition {
        NodeCondition::Missing | NodeCondition::Dead => Some((Absence::Silent, record.since)),
        _ if record.hold.is_some() => Some((Absence::OnHold, state.now)),
        _ => None,
    }
}

fn gone_away(state: &mut State, volume: &VolumeInstance, since: Timestamp) {
    let record = state.volumes.get(volume);
    if record.is_some_and(|record| record.away_since.is_none()) {
        update(state, volume, |record| record.away_since = Some(since));
    }
}

fn come_back(state: &mut State, volume: &VolumeInstance) {
    let record = state.volumes.get(volume);
    if record.is_some_and(|record| record.away_since.is_some()) {
        update(state, volume, |record| record.away_since = None);
        alert_back(state, volume);
    }
}

/// Alerts that a volume can be used again, where an alert has said that it cannot.
fn alert_back(state: &mut State, volume: &VolumeInstance) {
    let is_usable =
        |record: &&VolumeRecord| record.away_since.is_none() && record.problem.is_none();
    let record = state.volumes.get(volume).filter(is_usable);
    let Some(record) = record.filter(|record| record.alerted) else {
        return;
    };
    let message = format!("volume {} on {} can be used again", volume.id, record.node);
    update(state, volume, |record| record.alerted = false);
    state.alert(AlertKind::VolumeBack, &volume.id, message);
}

fn observe_one(
    state: &mut State,
    volume: &VolumeInstance,
    reported: Option<VolumeReport>,
    holds_present_set: bool,
) {
    if let Some(report) = &reported
        && state
            .volumes
            .get(volume)
            .is_some_and(|it| it.size < report.size)
    {
        // It was made larger before its worker got a smaller wish.
        update(state, volume, |record| record.size = report.size);
    }
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let node = record.node.clone();
    let is_filled = record.fill.is_some();
    let index = state.node_index.get(&node);
    let is_filling = index.is_some_and(|index| fills::is_reported(&state.nodes[*index], volume));
    let has_place = index.is_some_and(|index| place(&state.nodes[*index]).is_some());
    if let Some(load) = reported.as_ref().and_then(|report| report.load.clone()) {
        restores::observe(state, volume, &load);
    }
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let problem = match &reported {
        Some(report) => report.problem.clone(),
        None if !holds_present_set => return,
        None if has_place => Some("its worker does not have it any more".to_owned()),
        None => Some("its worker has no place for volumes any more".to_owned()),
    };
    let (removing, confirmed) = (record.removing, record.confirmed);
    match (removing, confirmed) {
        (true, _) if is_filling => {}
        (true, _) if reported.is_none() && has_place && !may_be_created(state, volume, &node) => {
            forget(state, volume);
            state.changes.reassign.insert(node);
        }
        (true, _) => {}
        (false, _) if is_filled => {}
        (false, false) if reported.is_some() && problem.is_none() => {
            update(state, volume, |record| record.confirmed = true);
            state.changes.reassign.insert(node);
        }
        (false, false) => {}
        // Its agent may have given its place to the next one of its name.
        (false, true) if !is_kept(state, volume) => {}
        (false, true) => set_problem(state, volume, problem),
    }
}

/// Whether a worker still has a process that may be creating a volume, which is not reported before that is done.
fn may_be_created(state: &State, volume: &VolumeInstance, node: &NodeName) -> bool {
    let index = state.node_index.get(node);
    let node = index.map(|index| &state.nodes[*index]);
    node.is_some_and(|node| undesired_user(node, &volume.id).is_some())
}

fn set_problem(state: &mut State, volume: &VolumeInstance, problem: Option<String>) {
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    if record.problem.is_some() == problem.is_some() {
        return;
    }
    let node = record.node.clone();
    update(state, volume, |record| record.problem.clone_from(&problem));
    state.changes.reconcile.insert(volume.id.service());
    let Some(problem) = problem else {
        return alert_back(state, volume);
    };
    update(state, volume, |record| record.alerted = true);
    let message = format!(
        "volume {} on {node} cannot be used: {problem}. It is not created again",
        volume.id
    );
    state.alert(AlertKind::VolumeMissing, &volume.id, message);
}

/// Instances that a worker already has are not given out again: it may have more than this controller's database tells of.
fn skip_instances(state: &mut State, index: usize) {
    let last = state.counters.last_volume;
    let all = place(&state.nodes[index]).map(|place| &place.all);
    let instances = all.into_iter().flatten().map(|it| it.volume.instance);
    let real = instances.filter(|instance| *instance <= last.saturating_add(MAX_INSTANCE_STEP));
    if let Some(newest) = real.max().filter(|newest| *newest > last) {
        state.counters.last_volume = newest;
        state.changes.counters = true;
    }
}

fn create(state: &mut State, id: VolumeId, size: Bytes, node: &NodeName) {
    state.counters.last_volume = state.counters.last_volume.saturating_add(1);
    let record = VolumeRecord {
        volume: VolumeInstance {
            id,
            instance: state.counters.last_volume,
        },
        node: node.clone(),
        size,
        confirmed: false,
        removing: false,
        away_since: None,
        problem: None,
        alerted: false,
        fill: None,
        load: None,
    };
    adopt(state, record);
}

/// The size that a volume is to have. It may be smaller than before where its worker could not make it larger.
fn resize(state: &mut State, volume: &VolumeInstance, size: Bytes) {
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let size = size.max(present_size(state, record));
    if record.size != size {
        state.changes.capacity |= size < record.size;
        update(state, volume, |record| record.size = size);
    }
}

/// The size that a volume's worker reports; the recorded one where it does not report.
fn present_size(state: &State, record: &VolumeRecord) -> Bytes {
    let index = state.node_index.get(&record.node);
    let report = index.and_then(|index| reported(&state.nodes[*index], &record.volume));
    report.map_or(record.size, |report| report.size)
}

/// A worker that has left the topology is not waited for: what it has is unknown to this controller if it comes back.
fn begin_removal(state: &mut State, volume: &VolumeInstance) {
    let Some(record) = state.volumes.get(volume) else {
        return;
    };
    let node = record.node.clone();
    if !state.node_index.contains_key(&node) {
        return forget(state, volume);
    }
    update(state, volume, |record| record.removing = true);
    state.changes.reassign.insert(node);
}

fn forget(state: &mut State, volume: &VolumeInstance) {
    state.volumes.remove(volume);
    state.changes.volumes.insert(volume.clone());
    state.changes.capacity = true;
    state.changes.reconcile.insert(volume.id.service());
}

/// Whether its slot has the volume, and not another one of its name.
fn is_kept(state: &State, volume: &VolumeInstance) -> bool {
    let kept = present(state, &volume.id);
    kept.is_some_and(|kept| kept.volume == *volume)
}

fn is_removing(state: &State, volume: &VolumeInstance) -> bool {
    state.volumes.get(volume).is_some_and(|it| it.removing)
}

fn update(state: &mut State, volume: &VolumeInstance, change: impl FnOnce(&mut VolumeRecord)) {
    if state.volumes.change(volume, change) {
        state.changes.volumes.insert(volume.clone());
    }
}

/// The process that has a volume, or that may have it until its agent no longer reports it.
fn user_of(state: &State, id: &VolumeId) -> Option<ProcessId> {
    let desired = desired_user(state, id).cloned();
    desired.or_else(|| {
        let record = present(state, id)?;
        let node = &state.nodes[*state.node_index.get(&record.node)?];
        match holders_on_hold(node, &record.volume) {
            Some(holder) => holder,
            None => undesired_user(node, id),
        }
    })
}

/// The desired process that has a volume by its slot and its revision.
pub(crate) fn desired_user<'a>(state: &'a State, id: &VolumeId) -> Option<&'a ProcessId> {
    let service = state.services.get(&id.service())?;
    let mut processes = state.processes(&service.processes);
    let user = processes.find(|process| {
        let revision = state.revision_of(&process.record);
        let has = revision.is_some_and(|revision| {
            let mut volumes = revision.config.volume.iter();
            volumes.any(|volume| volume.name.as_str() == id.volume_name())
        });
        has && process.record.slot == Some(id.slot())
    })?;
    Some(&user.record.id)
}

/// The process that has a volume in the set that a worker on hold has told of. `None` where that does not settle it: the worker
/// may have the volume, or has not told of its set. A controller with an older database records volumes that are gone.
fn holders_on_hold(node: &Node, volume: &VolumeInstance) -> Option<Option<ProcessId>> {
    node.record.hold.as_ref()?;
    if node.report.is_none() || reported(node, volume).is_some() {
        return None;
    }
    let mut held = node.held_set.as_ref()?.iter();
    let holder = held.find(|process| process.volumes.iter().any(|it| it.volume == *volume));
    Some(holder.map(|process| process.id.clone()))
}

/// The process of a volume's slot, or that may be of its slot, which exists on a worker although it is not desired.
fn undesired_user(node: &Node, id: &VolumeId) -> Option<ProcessId> {
    let mut undesired = node.undesired.iter().chain(&node.unconfirmed);
    let user = undesired.find(|it| {
        let slot = matches!(it.slot, Slot::Unknown) || it.slot == Slot::Known(Some(id.slot()));
        it.report.service.as_str() == id.service_name() && slot
    });
    user.map(|it| it.report.id.clone())
}

fn instances<'a>(records: impl Iterator<Item = &'a VolumeRecord>) -> Vec<VolumeInstance> {
    records.map(|record| record.volume.clone()).collect()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
