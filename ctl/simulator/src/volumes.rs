//! The volumes of an agent: created, filled from other workers and from backups, backed up, removed.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{
        DesiredProcess, DesiredVolume, Enforcement, NodeVolumes, ProcessState, VolumeInstance,
        VolumeReport,
    },
    ids::{NodeName, ProcessId},
    units::{Bytes, Span, Timestamp},
    volumes::{
        BackupEnd, BackupOrder, BackupReport, Consistency, FillReport, FillSource, LoadReport,
        Snapshot, VolumeFill,
    },
};

use crate::{Sim, agent::Container};

/// How long a backup takes.
const BACKUP_TIME: Span = Span::millis(600);
/// How long a copy takes at least.
const COPY_TIME: Span = Span::millis(700);

/// The volumes on a node.
#[derive(Debug, Clone)]
pub struct AgentVolumes {
    /// What all together can hold.
    pub capacity: Bytes,
    /// Those that exist, with their sizes.
    pub all: BTreeMap<VolumeInstance, Bytes>,
    /// Whether they are there: the file system that they are on may not be mounted.
    pub mounted: bool,
    /// How often each was created, by the record that the agent keeps elsewhere.
    pub created: BTreeMap<VolumeInstance, u32>,
    /// How long a creation takes. Until then the volume is not reported, and its process does not stop.
    pub creation_time: Span,
    /// Whether volumes can be created.
    pub can_create: bool,
    /// Whether volumes can grow.
    pub can_grow: bool,
    /// Volumes that are being created, until when.
    creating: BTreeMap<VolumeInstance, Timestamp>,
    /// Volumes that get the content of another worker's.
    pub(crate) filling: BTreeMap<VolumeInstance, Filling>,
    /// How often processes have written to volumes.
    pub(crate) writes: BTreeMap<VolumeInstance, u64>,
    /// Volumes that were copied from others, with the writes to those until then.
    pub(crate) copies: BTreeMap<VolumeInstance, (VolumeInstance, u64)>,
    /// What was loaded into volumes.
    loaded: BTreeMap<VolumeInstance, String>,
    backups: BTreeMap<VolumeInstance, RunningBackup>,
}

#[derive(Debug, Clone)]
struct RunningBackup {
    number: u64,
    until: Timestamp,
    end: Option<BackupEnd>,
}

/// A volume that gets the content of another worker's, or of a backup.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    /// The other worker's.
    pub(crate) from: Option<VolumeInstance>,
    /// When it can be whole.
    until: Timestamp,
    /// The writes to the other one when it was copied, once this is whole.
    pub(crate) copied: Option<u64>,
}

impl Default for AgentVolumes {
    fn default() -> Self {
        Self {
            capacity: Bytes::mib(4096),
            all: BTreeMap::new(),
            mounted: true,
            created: BTreeMap::new(),
            creation_time: Span::secs(0),
            can_create: true,
            can_grow: true,
            creating: BTreeMap::new(),
            filling: BTreeMap::new(),
            writes: BTreeMap::new(),
            copies: BTreeMap::new(),
            loaded: BTreeMap::new(),
            backups: BTreeMap::new(),
        }
    }
}

impl AgentVolumes {
    /// Makes the volumes of a process available. Whether it can start.
    pub(crate) fn prepare(
        &mut self,
        process: &DesiredProcess,
        containers: &BTreeMap<ProcessId, Container>,
        now: Timestamp,
    ) -> bool {
        let wanted = process.volumes.iter().map(|it| &it.volume);
        let mut in_use = containers.values().flat_map(|it| &it.desired.volumes);
        if in_use.any(|it| wanted.clone().any(|wanted| *wanted == it.volume)) {
            return false;
        }
        for desired in &process.volumes {
            self.create(process, desired, now);
        }
        let mut wanted = process.volumes.iter();
        self.mounted && wanted.all(|it| self.all.contains_key(&it.volume))
    }

    /// Creates a volume that is new, where there is no other one of its name.
    fn create(&mut self, process: &DesiredProcess, desired: &DesiredVolume, now: Timestamp) {
        let volume = &desired.volume;
        let is_new = desired.may_create && !self.created.contains_key(volume);
        let is_free = !self.all.keys().any(|it| it.id == volume.id);
        if is_new && is_free && self.can_create {
            self.all.insert(volume.clone(), size_in(process, volume));
            *self.created.entry(volume.clone()).or_default() += 1;
            let until = now.after(self.creation_time);
            self.creating.insert(volume.clone(), until);
        }
    }

    /// Makes the volumes of a running process as large as it wants them.
    pub(crate) fn grow(&mut self, process: &DesiredProcess) -> bool {
        let mut changed = false;
        for desired in process.volumes.iter().filter(|_| self.can_grow) {
            let wanted = size_in(process, &desired.volume);
            if let Some(size) = self.all.get_mut(&desired.volume) {
                changed |= *size < wanted;
                *size = wanted.max(*size);
            }
        }
        changed
    }

    /// When the creations for a process end, at the latest.
    pub(crate) fn created_at(&self, process: &DesiredProcess) -> Option<Timestamp> {
        let volumes = process.volumes.iter();
        let until = volumes.filter_map(|it| self.creating.get(&it.volume));
        until.copied().max()
    }

    /// Finishes the creations that are due.
    pub(crate) fn finish_creations(&mut self, now: Timestamp) -> bool {
        let before = self.creating.len();
        self.creating.retain(|_, until| *until > now);
        self.creating.len() != before
    }

    /// The power is cut: nothing is left of creations that were not finished.
    pub(crate) fn discard_unfinished(&mut self) {
        for volume in std::mem::take(&mut self.creating).into_keys() {
            self.all.remove(&volume);
            self.created.remove(&volume);
        }
    }

    /// Removes volumes that no container has. Whether there were any.
    pub(crate) fn remove(
        &mut self,
        volumes: &[VolumeInstance],
        containers: &BTreeMap<ProcessId, Container>,
    ) -> bool {
        let in_use = containers.values().flat_map(|it| &it.desired.volumes);
        let in_use: BTreeSet<&VolumeInstance> = in_use.map(|it| &it.volume).collect();
        let before = self.all.len();
        self.all
            .retain(|volume, _| !volumes.contains(volume) || in_use.contains(volume));
        self.creating
            .retain(|volume, _| self.all.contains_key(volume));
        self.all.len() != before
    }

    /// Begins fills, gives up those that are not wanted, and makes volumes of those that are to be installed. Whether that changed
    /// anything.
    pub(crate) fn fill(
        &mut self,
        fills: &[VolumeFill],
        containers: &BTreeMap<ProcessId, Container>,
        now: Timestamp,
    ) -> bool {
        let before = (self.filling.len(), self.all.len());
        self.filling
            .retain(|volume, _| fills.iter().any(|fill| fill.volume == *volume));
        for fill in fills {
            self.fill_one(fill, containers, now);
        }
        (self.filling.len(), self.all.len()) != before
    }

    fn fill_one(
        &mut self,
        fill: &VolumeFill,
        containers: &BTreeMap<ProcessId, Container>,
        now: Timestamp,
    ) {
        let volume = &fill.volume;
        let instance = |instance| VolumeInstance {
            id: volume.id.clone(),
            instance,
        };
        let replaced = fill.replaces.map(instance);
        let mut others = self.all.keys().filter(|it| it.id == volume.id);
        let is_free = others.all(|it| Some(it) == replaced.as_ref());
        if !self.mounted || !is_free || self.created.contains_key(volume) {
            return;
        }
        let from = match &fill.from {
            FillSource::Volume { instance: it, .. } => Some(instance(*it)),
            FillSource::Snapshot { .. } => None,
        };
        let filling = self.filling.entry(volume.clone());
        let filling = filling.or_insert_with(|| Filling {
            from: from.clone(),
            until: now.after(COPY_TIME),
            copied: None,
        });
        if from.is_none() && filling.until <= now {
            filling.copied = Some(0);
        }
        let mut users = containers.values().flat_map(|it| &it.desired.volumes);
        let is_used = users.any(|it| Some(&it.volume) == replaced.as_ref());
        if let Some(writes) = filling.copied.filter(|_| fill.install && !is_used) {
            self.filling.remove(volume);
            if let Some(replaced) = replaced {
                self.all.remove(&replaced);
            }
            self.all.insert(volume.clone(), fill.size);
            *self.created.entry(volume.clone()).or_default() += 1;
            self.writes.insert(volume.clone(), writes);
            if let Some(from) = from {
                self.copies.insert(volume.clone(), (from, writes));
            }
        }
    }

    /// Makes the backups that are ordered. Whether one has ended.
    pub(crate) fn back_up(&mut self, orders: &[BackupOrder], now: Timestamp) -> bool {
        let is_ordered = |order: &BackupOrder, volume: &VolumeInstance, number: u64| {
            order.volume == *volume && order.number == number
        };
        self.backups.retain(|volume, backup| {
            let mut orders = orders.iter();
            orders.any(|order| is_ordered(order, volume, backup.number))
        });
        let mut changed = false;
        for order in orders {
            let volume = order.volume.clone();
            let fails = !self.mounted || !self.all.contains_key(&volume);
            let backup = self.backups.entry(volume).or_insert_with(|| RunningBackup {
                number: order.number,
                until: now.after(BACKUP_TIME),
                end: None,
            });
            if backup.until > now || backup.end.is_some() {
                continue;
            }
            changed = true;
            backup.end = Some(match fails {
                true => BackupEnd::Failed {
                    error: "the volume is not there".to_owned(),
                },
                false => BackupEnd::Stored(Snapshot {
                    id: format!("{}-{}", order.volume.instance, order.number),
                    at: now,
                    location: order.repository.location.clone(),
                    repository: "repository".to_owned(),
                    bytes: Bytes(1),
                    added: Bytes(1),
                    consistency: match order.dump.is_empty() {
                        true => Consistency::Frozen,
                        false => Consistency::Dump,
                    },
                }),
            });
        }
        changed
    }

    /// Loads what processes that are healthy are to load. Whether that changed anything.
    pub(crate) fn load(&mut self, containers: &BTreeMap<ProcessId, Container>) -> bool {
        let before = self.loaded.len();
        let healthy = containers.values();
        let healthy = healthy.filter(|it| it.state == ProcessState::Healthy);
        for desired in healthy.flat_map(|it| &it.desired.volumes) {
            if let Some(load) = &desired.load {
                self.loaded
                    .insert(desired.volume.clone(), load.snapshot.clone());
            }
        }
        self.loaded.len() != before
    }

    pub(crate) fn report(&self) -> NodeVolumes {
        let report = |(volume, size): (&VolumeInstance, &Bytes)| VolumeReport {
            volume: volume.clone(),
            size: *size,
            used: None,
            enforcement: None,
            problem: (!self.mounted).then(|| "it is not where it was".to_owned()),
            load: self.loaded.get(volume).map(|snapshot| LoadReport {
                snapshot: snapshot.clone(),
                done: Bytes(0),
                loaded: true,
                error: None,
            }),
        };
        NodeVolumes {
            capacity: self.capacity,
            enforcement: Enforcement::LoopFile,
            can_copy: true,
            can_back_up: true,
            backup_paths: vec!["/backups".to_owned()],
            backups: {
                let report = |(volume, backup): (&VolumeInstance, &RunningBackup)| BackupReport {
                    volume: volume.clone(),
                    number: backup.number,
                    done: Bytes(0),
                    end: backup.end.clone(),
                };
                self.backups.iter().map(report).collect()
            },
            fills: {
                let report = |(volume, filling): (&VolumeInstance, &Filling)| FillReport {
                    volume: volume.clone(),
                    done: Bytes(0),
                    total: None,
                    whole: filling.copied.is_some(),
                    problem: None,
                    failed: false,
                };
                self.filling.iter().map(report).collect()
            },
            all: {
                let all = self.all.iter();
                let exist = all.filter(|(volume, _)| !self.creating.contains_key(volume));
                exist.map(report).collect()
            },
        }
    }
}

fn size_in(process: &DesiredProcess, volume: &VolumeInstance) -> Bytes {
    let mut volumes = process.config.volume.iter();
    let named = volumes.find(|it| it.name.as_str() == volume.id.volume_name());
    named.map_or(Bytes(0), |it| it.size)
}

impl Sim {
    /// Processes write to their volumes, and workers copy those that other workers may read.
    pub(crate) fn use_volumes(&mut self) {
        for agent in self.agents.values_mut() {
            let containers = agent.containers.values();
            for volume in containers.flat_map(|it| &it.desired.volumes) {
                *agent
                    .volumes
                    .writes
                    .entry(volume.volume.clone())
                    .or_default() += 1;
            }
        }
        let copies: Vec<(NodeName, VolumeInstance, u64)> = self
            .agents
            .values()
            .filter(|agent| agent.powered)
            .flat_map(|agent| {
                let due = agent.volumes.filling.iter();
                let due = due.filter(|(_, it)| it.copied.is_none() && it.until <= self.now);
                due.filter_map(|(volume, filling)| {
                    let writes = self.readable(filling.from.as_ref()?, &agent.name)?;
                    Some((agent.name.clone(), volume.clone(), writes))
                })
            })
            .collect();
        for (node, volume, writes) in copies {
            if let Some(agent) = self.agents.get_mut(&node)
                && let Some(filling) = agent.volumes.filling.get_mut(&volume)
            {
                filling.copied = Some(writes);
            }
        }
    }

    /// The writes to a volume that a worker may read; `None` while no worker lets it.
    fn readable(&self, volume: &VolumeInstance, by: &NodeName) -> Option<u64> {
        let agent = self.agents.values().find(|agent| {
            let mut exports = agent.desired.exports.iter();
            agent.powered && exports.any(|it| it.volume == *volume && it.to == *by)
        })?;
        let cut_off = &self.network.cut_off;
        let is_connected = !cut_off.contains(&agent.name) && !cut_off.contains(by);
        let mut users = agent.containers.values().flat_map(|it| &it.desired.volumes);
        let is_there = agent.volumes.mounted && agent.volumes.all.contains_key(volume);
        let is_used = users.any(|it| it.volume == *volume);
        (is_connected && is_there && !is_used)
            .then(|| agent.volumes.writes.get(volume).copied().unwrap_or(0))
    }

    /// No volume is in two containers, or on two nodes, or created once more after it was reported.
    pub(crate) fn check_volumes(&self) {
        for agent in self.agents.values() {
            for (volume, (from, copied)) in &agent.volumes.copies {
                let mut agents = self.agents.values();
                let source = agents.find(|it| it.volumes.all.contains_key(from));
                let writes = source.and_then(|it| it.volumes.writes.get(from));
                let mut records = self.disk.volumes.iter();
                let is_kept = records.any(|it| it.volume == *volume && !it.removing);
                assert!(
                    !is_kept || writes.is_none_or(|writes| writes == copied),
                    "{from:?} was written to after it was copied to {volume:?}"
                );
            }
        }
        let mut users = BTreeMap::new();
        let mut places = BTreeMap::new();
        for agent in self.agents.values() {
            for container in agent.containers.values() {
                for volume in &container.desired.volumes {
                    let id = &container.desired.id;
                    let other = users.insert(&volume.volume, id);
                    assert_eq!(other, None, "{:?} is also in {id}", volume.volume);
                }
            }
            for (volume, created) in &agent.volumes.created {
                let other = places.insert(volume, &agent.name);
                assert_eq!(other, None, "{volume:?} is also on {}", agent.name);
                assert_eq!(*created, 1, "{volume:?} was created {created} times");
            }
        }
    }
}
