//! The actions that follow from a step's changes: persist, assign, publish, restart, alert.

use sha2::{Digest as _, Sha256};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, DesiredVolume, Kept, SetIdentity, VolumeInstance},
    ids::{Digest, NodeName, ProcessId, SecretName, ServiceName, VolumeId},
    jobs::DesiredRun,
};

use crate::{
    backups, holds,
    model::{Action, ProcessRecord, Record, RevisionRecord, SetVersion},
    names, routes, services,
    state::State,
    volumes,
};

/// The actions of this step, in the order in which they are to be carried out.
pub(crate) fn take(state: &mut State) -> Vec<Action> {
    for name in std::mem::take(&mut state.changes.reassign) {
        next_generation(state, name);
    }
    for name in std::mem::take(&mut state.changes.prune) {
        services::prune_revisions(state, &name);
    }
    let sets = take_sets(state);
    let records = take_records(state);
    let mut actions = Vec::new();
    if !records.is_empty() {
        actions.push(Action::Persist(records));
    }
    actions.extend(sets.into_iter().map(Action::Assign));
    actions.extend(state.changes.final_sets.drain(..).map(Action::Assign));
    let may_publish = state.awaited.is_empty() && !holds::withhold_routes(state);
    if may_publish && std::mem::take(&mut state.changes.publish) {
        state.published = true;
        actions.push(Action::Publish(routes::all(state)));
    }
    if may_publish && !names::is_empty(&state.changes.names) {
        let names = std::mem::take(&mut state.changes.names);
        actions.push(Action::Names(names));
    }
    let restarts = state.changes.restarts.drain(..);
    actions.extend(restarts.map(|(node, attempt)| Action::Restart { node, attempt }));
    actions.extend(state.changes.alerts.drain(..).map(Action::Alert));
    actions
}

/// Everything that is desired on a worker. `None` for a worker that is not in the topology.
pub(crate) fn desired_set(state: &State, name: &NodeName) -> Option<DesiredSet> {
    let node = &state.nodes[*state.node_index.get(name)?];
    let processes: Vec<DesiredProcess> = node
        .all_processes()
        .into_iter()
        .filter_map(|number| desired_process(state, number))
        .collect();
    Some(DesiredSet {
        node: name.clone(),
        generation: node.record.generation,
        identity: SetIdentity {
            cluster: state.identity.cluster.clone(),
            epoch: holds::epoch_of(state, node),
            digest: Some(content_digest(&processes)),
        },
        adopts: node.record.adopts.clone(),
        processes,
        removed_volumes: removed_volumes(state, name),
        fills: volumes::fills::of_node(state, name),
        exports: volumes::fills::exports(state, name),
        backups: backups::orders(state, name),
    })
}

/// Digest of a set's processes. Concurrency and their services' addresses do not concern them.
pub(crate) fn content_digest(processes: &[DesiredProcess]) -> Digest {
    let mut sum = Sha256::new();
    for process in processes {
        let mut process = process.clone();
        process.config.concurrency = 0;
        process.address = None;
        let text = serde_json::to_vec(&process).unwrap_or_default();
        sum.update(u64::try_from(text.len()).unwrap_or_default().to_le_bytes());
        sum.update(text);
    }
    let hex: String = sum
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Digest::sha256(&hex).expect("a SHA-256 sum in hexadecimal")
}

fn desired_process(state: &State, number: u64) -> Option<DesiredProcess> {
    let process = &state.processes.get(&number)?.record;
    let revision = state.revision_of(process)?;
    if let Some(number) = process.run {
        return desired_of_run(state, process, revision, number);
    }
    let volumes = revision.config.volume.iter().filter_map(|volume| {
        let id = VolumeId::new(&process.service, &volume.name, process.slot?);
        let record = volumes::present(state, &id)?;
        Some(DesiredVolume {
            volume: record.volume.clone(),
            may_create: !record.confirmed,
            load: volumes::restores::load(state, record),
        })
    });
    let node = state.processes.get(&number).map(|it| &state.nodes[it.node]);
    let image = node.and_then(|node| revision.image_for(node.architecture()));
    Some(DesiredProcess {
        address: names::addresses::of_process(state, process),
        slot: process.slot,
        volumes: volumes.collect(),
        devices: process.devices.clone(),
        id: process.id.clone(),
        revision: process.revision,
        image: image.unwrap_or(&revision.image).clone(),
        kept: Kept::of(&revision.config),
        config: revision.config.for_agents(),
        run: None,
    })
}

fn desired_of_run(
    state: &State,
    process: &ProcessRecord,
    revision: &RevisionRecord,
    number: u64,
) -> Option<DesiredProcess> {
    let run = state.jobs.run(&process.service, number)?;
    let attempt = run.active().find(|it| it.process == process.id)?;
    let mut config = revision.config.for_run(run.command.as_deref());
    for (name, value) in [
        ("TUCANO_RUN", run.number),
        ("TUCANO_TASK", attempt.task.into()),
    ] {
        config.env.insert(name.to_owned(), value.to_string());
    }
    let node = &state.nodes[*state.node_index.get(&process.node)?];
    let image = revision.image_for(node.architecture());
    Some(DesiredProcess {
        slot: None,
        volumes: Vec::new(),
        devices: process.devices.clone(),
        id: process.id.clone(),
        revision: process.revision,
        image: image.unwrap_or(&revision.image).clone(),
        address: names::addresses::of_process(state, process),
        kept: Kept::of(&config),
        config: config.for_agents(),
        run: Some(DesiredRun {
            number,
            task: attempt.task,
            trigger: run.trigger.clone(),
            may_start: attempt.started_at.is_none(),
        }),
    })
}

fn removed_volumes(state: &State, node: &NodeName) -> Vec<VolumeInstance> {
    let removing = state.volumes.on(node).filter(|record| record.removing);
    removing.map(|record| record.volume.clone()).collect()
}

/// Only workers that are alive and not on hold are sent the new set; another one gets it when it reports an older one.
fn next_generation(state: &mut State, name: NodeName) {
    let Some(index) = state.node_index.get(&name) else {
        return;
    };
    let node = &mut state.nodes[*index];
    node.record.generation = node.record.generation.next();
    if node.is_usable() {
        state.changes.resend.insert(name.clone());
    }
    state.changes.nodes.insert(name);
}

/// The sets to send. Each is recorded as sent before it is.
fn take_sets(state: &mut State) -> Vec<DesiredSet> {
    let names = std::mem::take(&mut state.changes.resend);
    let mut sets = Vec::new();
    for name in names {
        let index = state.node_index.get(&name).copied();
        let Some(index) = index.filter(|index| state.nodes[*index].is_usable()) else {
            continue;
        };
        let Some(set) = desired_set(state, &name) else {
            continue;
        };
        let record = &mut state.nodes[index].record;
        let version = SetVersion {
            epoch: set.identity.epoch,
            generation: set.generation,
            digest: set.identity.digest.clone(),
        };
        if record.sent.as_ref() != Some(&version) {
            record.sent = Some(version);
            state.changes.nodes.insert(name);
        }
        sets.push(set);
    }
    sets
}

fn take_records(state: &mut State) -> Vec<Record> {
    let services = std::mem::take(&mut state.changes.services);
    let processes = std::mem::take(&mut state.changes.processes);
    let nodes = std::mem::take(&mut state.changes.nodes);
    let secrets = std::mem::take(&mut state.changes.secrets);
    let volumes = std::mem::take(&mut state.changes.volumes);
    let backups = std::mem::take(&mut state.changes.backups);
    let jobs = std::mem::take(&mut state.changes.jobs);
    let runs = std::mem::take(&mut state.changes.runs);
    let mut records = Vec::new();
    records.extend(services.into_iter().map(|name| service_record(state, name)));
    records.extend(processes.into_iter().map(|id| process_record(state, id)));
    records.extend(nodes.into_iter().map(|name| node_record(state, name)));
    records.extend(secrets.into_iter().map(|name| secret_record(state, name)));
    records.extend(volumes.into_iter().map(|it| volume_record(state, it)));
    let backups = backups.iter().filter_map(|id| state.backups.get(id));
    records.extend(backups.map(|record| Record::Backups(record.clone())));
    records.extend(jobs.into_iter().map(|name| job_record(state, name)));
    records.extend(runs.into_iter().map(|run| run_record(state, run)));
    if std::mem::take(&mut state.changes.counters) {
        records.push(Record::Counters(state.counters.clone()));
    }
    records
}

fn service_record(state: &State, name: ServiceName) -> Record {
    match state.services.get(&name) {
        Some(service) => Record::Service(Box::new(service.record.clone())),
        None => Record::ServiceGone(name),
    }
}

fn job_record(state: &State, name: ServiceName) -> Record {
    match state.jobs.get(&name) {
        Some(job) => Record::Job(job.record.clone()),
        None => Record::JobGone(name),
    }
}

fn run_record(state: &State, (service, number): (ServiceName, u64)) -> Record {
    match state.jobs.run(&service, number) {
        Some(run) => Record::Run(Box::new(run.clone())),
        None => Record::RunGone { service, number },
    }
}

fn secret_record(state: &State, name: SecretName) -> Record {
    match state.secrets.get(&name) {
        Some(secret) => Record::Secret(secret.clone()),
        None => Record::SecretGone(name),
    }
}

fn process_record(state: &State, id: ProcessId) -> Record {
    match state.process(&id) {
        Some(process) => Record::Process(process.record.clone()),
        None => Record::ProcessGone(id),
    }
}

fn node_record(state: &State, name: NodeName) -> Record {
    match state.node_index.get(&name) {
        Some(index) => Record::Node(state.nodes[*index].record.clone()),
        None => Record::NodeGone(name),
    }
}

fn volume_record(state: &State, volume: VolumeInstance) -> Record {
    match state.volumes.get(&volume) {
        Some(record) => Record::Volume(record.clone()),
        None => Record::VolumeGone(volume),
    }
}
