//! The durable state, as a store holds it.

use tucano_planner::{Record, Snapshot};

/// Writes one batch of records, as a transaction does.
pub fn write(disk: &mut Snapshot, records: &[Record]) {
    for record in records {
        write_one(disk, record.clone());
    }
    disk.services.sort_by(|a, b| a.name.cmp(&b.name));
    disk.processes.sort_by_key(|process| process.id.number());
    disk.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    disk.secrets.sort_by(|a, b| a.name.cmp(&b.name));
    disk.volumes.sort_by(|a, b| a.volume.cmp(&b.volume));
    disk.backups.sort_by(|a, b| a.id.cmp(&b.id));
    disk.jobs.sort_by(|a, b| a.service.cmp(&b.service));
    disk.runs
        .sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
}

/// The snapshot in the order in which [`write`] leaves it.
pub fn sorted(mut snapshot: Snapshot) -> Snapshot {
    write(&mut snapshot, &[]);
    snapshot
}

fn write_one(disk: &mut Snapshot, record: Record) {
    match record {
        Record::Service(service) => {
            disk.services.retain(|old| old.name != service.name);
            disk.services.push(*service);
        }
        Record::ServiceGone(name) => disk.services.retain(|old| old.name != name),
        Record::Process(process) => {
            disk.processes.retain(|old| old.id != process.id);
            disk.processes.push(process);
        }
        Record::ProcessGone(id) => disk.processes.retain(|old| old.id != id),
        Record::Node(node) => {
            disk.nodes.retain(|old| old.name != node.name);
            disk.nodes.push(node);
        }
        Record::NodeGone(name) => disk.nodes.retain(|old| old.name != name),
        Record::Secret(secret) => {
            disk.secrets.retain(|old| old.name != secret.name);
            disk.secrets.push(secret);
        }
        Record::SecretGone(name) => disk.secrets.retain(|old| old.name != name),
        Record::Volume(volume) => {
            disk.volumes.retain(|old| old.volume != volume.volume);
            disk.volumes.push(volume);
        }
        Record::Backups(backups) => {
            disk.backups.retain(|old| old.id != backups.id);
            disk.backups.push(backups);
        }
        Record::VolumeGone(volume) => disk.volumes.retain(|old| old.volume != volume),
        Record::Job(job) => {
            disk.jobs.retain(|old| old.service != job.service);
            disk.jobs.push(job);
        }
        Record::JobGone(name) => disk.jobs.retain(|old| old.service != name),
        Record::Run(run) => {
            disk.runs
                .retain(|old| (&old.service, old.number) != (&run.service, run.number));
            disk.runs.push(*run);
        }
        Record::RunGone { service, number } => {
            disk.runs
                .retain(|old| (&old.service, old.number) != (&service, number));
        }
        Record::Counters(counters) => disk.counters = counters,
    }
}
