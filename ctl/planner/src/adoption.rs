//! Adoption: services, revisions and processes are rebuilt from the desired sets that agents on hold have reported. A
//! node is adopted with all its processes or not at all, so that nothing on it is ended.

mod adopted_volumes;

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::DesiredProcess,
    ids::{Digest, Epoch, NodeName, ProcessId, Revision, ServiceName},
    service::ServiceConfig,
    state::{AdoptableNode, AdoptableService, Adoption},
};

use crate::{
    health, holds, jobs,
    model::{CrashHistory, Hold, Platforms, ProcessRecord, RevisionRecord, ServiceRecord},
    names::addresses,
    services,
    state::{Node, Process, Resources, Service, State},
};

/// Revisions that agents hold, by service.
type Revisions = BTreeMap<ServiceName, BTreeMap<Revision, (ServiceConfig, Digest)>>;

/// What can be adopted at present.
pub(crate) fn show(state: &State) -> Adoption {
    let nodes: Vec<AdoptableNode> = (0..state.nodes.len())
        .filter_map(|index| adoptable_node(state, index))
        .collect();
    let processes: Vec<&DesiredProcess> = held_processes(state).collect();
    let services = services_of(&processes)
        .into_iter()
        .map(|(name, revisions)| AdoptableService {
            processes: count(&processes, &name),
            concurrency: match state.services.get(&name) {
                Some(service) => service.current().config.concurrency,
                None => concurrency(&processes, &name, &revisions),
            },
            configured: state.services.contains_key(&name),
            revisions: revisions.into_keys().collect(),
            name,
        });
    Adoption {
        services: services.collect(),
        nodes,
    }
}

/// Adopts every node on hold that can be.
pub(crate) fn adopt(state: &mut State) {
    let known: BTreeSet<ServiceName> = state.services.keys().cloned().collect();
    let all: Vec<DesiredProcess> = held_processes(state).cloned().collect();
    let all: Vec<&DesiredProcess> = all.iter().collect();
    for index in 0..state.nodes.len() {
        // What was adopted from one node may be in conflict with the next.
        if state.nodes[index].record.hold.is_some() && obstacle(state, index).is_none() {
            adopt_node(state, index);
        }
    }
    for (name, revisions) in services_of(&all) {
        if let Some(service) = state
            .services
            .get_mut(&name)
            .filter(|_| !known.contains(&name))
        {
            service.set_concurrency(concurrency(&all, &name, &revisions));
        }
    }
}

fn adoptable_node(state: &State, index: usize) -> Option<AdoptableNode> {
    let node = &state.nodes[index];
    let hold = node.record.hold.as_ref()?;
    let processes = node.held_set.iter().flatten();
    Some(AdoptableNode {
        name: node.record.name.clone(),
        cause: hold.cause,
        cluster: hold.cluster.clone(),
        processes: processes.map(|process| process.id.clone()).collect(),
        obstacle: obstacle(state, index),
    })
}

/// Why a node on hold cannot be adopted. A message for the user.
fn obstacle(state: &State, index: usize) -> Option<String> {
    let node = &state.nodes[index];
    if !node.is_alive() {
        return Some("it does not report".to_owned());
    }
    let Some(held) = &node.held_set else {
        let legacy = node
            .report
            .as_ref()
            .is_some_and(|it| it.identity.is_legacy());
        return Some(match legacy {
            true => {
                "its agent does not tell what it holds yet: upgrade it if this lasts".to_owned()
            }
            false => "its agent has not told yet what it holds: try again in a moment".to_owned(),
        });
    };
    held.iter()
        .find_map(|process| conflict(state, node, process))
}

/// Why a process cannot be adopted beside what is configured.
fn conflict(state: &State, node: &Node, process: &DesiredProcess) -> Option<String> {
    let (id, service) = (&process.id, &process.config.name);
    let number = id.number();
    if let Some(other) = state.processes.get(&number)
        && (other.record.id != *id || other.record.node != node.record.name)
    {
        return Some(format!(
            "process {} has the number of its process {id}",
            other.record.id
        ));
    }
    if let Some(conflict) = adopted_volumes::conflict(state, node, process) {
        return Some(conflict);
    }
    let known = state.services.get(service)?.revision(process.revision);
    let differs = known.is_some_and(|known| !is_same(known, process));
    differs.then(|| {
        format!(
            "revision {} of service {service} is configured differently here: remove the service first",
            process.revision
        )
    })
}

fn is_same(known: &RevisionRecord, process: &DesiredProcess) -> bool {
    let mut images = std::iter::once(&known.image).chain(known.platforms.values());
    let config = process.kept.restore(&process.config);
    images.any(|image| *image == process.image) && known.config.differs_in_routes_only(&config)
}

fn held_processes(state: &State) -> impl Iterator<Item = &DesiredProcess> {
    let nodes = state.nodes.iter();
    nodes
        .filter(|node| node.record.hold.is_some())
        .flat_map(|node| node.held_set.iter().flatten())
}

fn services_of(processes: &[&DesiredProcess]) -> Revisions {
    let mut services = Revisions::new();
    for process in processes {
        let revisions = services.entry(process.config.name.clone()).or_default();
        revisions
            .entry(process.revision)
            .or_insert_with(|| (process.kept.restore(&process.config), process.image.clone()));
    }
    services
}

fn count(processes: &[&DesiredProcess], name: &ServiceName) -> u32 {
    let count = processes
        .iter()
        .filter(|it| it.config.name == *name)
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The configured concurrency where all processes of the newest revision agree on it, else their number.
fn concurrency(
    processes: &[&DesiredProcess],
    name: &ServiceName,
    revisions: &BTreeMap<Revision, (ServiceConfig, Digest)>,
) -> u32 {
    let newest = revisions.keys().next_back();
    let is_everywhere = |(config, _): &(ServiceConfig, Digest)| config.placement.everywhere;
    if revisions.values().next_back().is_some_and(is_everywhere) {
        return 0;
    }
    let of_newest = processes
        .iter()
        .filter(|it| it.config.name == *name && Some(&it.revision) == newest);
    let configured: BTreeSet<u32> = of_newest.map(|it| it.config.concurrency).collect();
    match configured.iter().next() {
        Some(only) if configured.len() == 1 => *only,
        _ => count(processes, name),
    }
}

/// Adds a service, or the revisions that its record does not have.
fn adopt_service(
    state: &mut State,
    name: &ServiceName,
    revisions: BTreeMap<Revision, (ServiceConfig, Digest)>,
) {
    let now = state.now;
    let records = revisions
        .into_iter()
        .map(|(revision, (config, image))| RevisionRecord {
            revision,
            config,
            image,
            platforms: Platforms::new(),
            configured_at: now,
        });
    match state.services.get_mut(name) {
        Some(service) => {
            for record in records {
                if service.revision(record.revision).is_none() {
                    service.record.revisions.push(record);
                }
            }
            service
                .record
                .revisions
                .sort_by_key(|record| record.revision);
            service.record.compatible_from = compatible_from(&service.record.revisions);
        }
        None => {
            let revisions: Vec<RevisionRecord> = records.collect();
            let record = ServiceRecord {
                name: name.clone(),
                compatible_from: compatible_from(&revisions),
                replaced_below: 0,
                revisions,
                held: Vec::new(),
                upcoming: None,
                last_held: None,
                address: None,
                slot_addresses: BTreeMap::new(),
                awaits_start: false,
            };
            state.services.insert(name.clone(), Service::new(record));
        }
    }
    services::neighbours_changed(state, name);
    state.changes.services.insert(name.clone());
    state.changes.unaddressed.insert(name.clone());
    state.changes.prune.insert(name.clone());
    state.changes.reconcile.insert(name.clone());
    state.changes.reroute.insert(name.clone());
}

/// The oldest revision from which on nothing has changed that concerns processes.
fn compatible_from(revisions: &[RevisionRecord]) -> Revision {
    let Some(current) = revisions.last() else {
        return Revision(1);
    };
    let same = |it: &&RevisionRecord| {
        it.has_image_of(current) && it.config.differs_in_routes_only(&current.config)
    };
    let oldest = revisions.iter().rev().take_while(same).last();
    oldest.map_or(current.revision, |record| record.revision)
}

fn adopt_node(state: &mut State, index: usize) {
    let name = state.nodes[index].record.name.clone();
    let held = state.nodes[index].held_set.take().unwrap_or_default();
    for (name, revisions) in services_of(&held.iter().collect::<Vec<_>>()) {
        adopt_service(state, &name, revisions);
    }
    for process in held {
        adopted_volumes::of_process(state, index, &process);
        adopt_process(state, index, &name, process);
    }
    adopted_volumes::reported(state, index);
    let own = state.identity.cluster.clone();
    let epoch = holds::epoch_of(state, &state.nodes[index]);
    let record = &mut state.nodes[index].record;
    if let Some(Hold {
        version, cluster, ..
    }) = record.hold.take()
    {
        record.epoch = Epoch(epoch.0.max(version.epoch.0.saturating_add(1)));
        record.adopts = cluster.filter(|cluster| Some(cluster) != own.as_ref());
        let adopted = version.generation;
        if !adopted.is_absurd_after(record.generation) {
            record.generation = record.generation.max(adopted);
        }
        record.sent = Some(version);
    }
    holds::release(state, index);
}

fn adopt_process(state: &mut State, index: usize, node: &NodeName, process: DesiredProcess) {
    let number = process.id.number();
    let service = process.config.name.clone();
    if state.processes.contains_key(&number) {
        return;
    }
    if let Some(address) = process.address {
        addresses::adopt(state, &service, process.slot, address);
    }
    let Some(owner) = state.services.get_mut(&service) else {
        return;
    };
    let reserved = Resources::of(&process.kept.restore(&process.config));
    match &process.run {
        None => {
            owner.processes.insert(number);
            state.nodes[index].reserve(number, reserved);
        }
        Some(_) => {
            if !jobs::adopted::adopt(state, node, &process) {
                return;
            }
            if let Some(owner) = state.services.get_mut(&service) {
                owner.runs.insert(number);
            }
            state.nodes[index].reserve_for_run(number, reserved);
        }
    }
    let record = ProcessRecord {
        id: process.id.clone(),
        service,
        revision: process.revision,
        node: node.clone(),
        slot: process.slot,
        replaces: None,
        draining_since: None,
        crashes: CrashHistory::default(),
        run: process.run.as_ref().map(|run| run.number),
        devices: process.devices.clone(),
    };
    insert(state, index, record, reserved);
    let report = take_undesired(&mut state.nodes[index], &process.id);
    health::observe(state, number, report);
    state.counters.last_process = state.counters.last_process.max(number);
    state.changes.counters = true;
    state.changes.processes.insert(process.id);
}

fn insert(state: &mut State, node: usize, record: ProcessRecord, reserved: Resources) {
    let process = Process {
        node,
        reserved,
        report: None,
        healthy_since: None,
        at_pids_limit: None,
        was_routed: true,
        record,
    };
    state.processes.insert(process.record.id.number(), process);
}

fn take_undesired(node: &mut Node, id: &ProcessId) -> Option<tucano_api::agent::ProcessReport> {
    let position = node.undesired.iter().position(|it| it.report.id == *id)?;
    Some(node.undesired.swap_remove(position).report)
}
