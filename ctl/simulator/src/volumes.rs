//! The volumes of an agent, and the rules of slots and volumes:
//!
//! - A process of a slot is placed only after the worker of each one before has reported, holding a later set, that it is gone.
//! - It is placed on the worker that the slot's volumes are on, and these are recorded in the same step.
//! - A volume never changes its worker, and its instance is never used twice. It is created at most once.
//! - One that is moved has another instance on the other worker. Nothing is written to the earlier one after it was copied, and it
//!   is removed only after the other worker has reported the next one.
//! - Two containers never have the same volume.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{
        DesiredProcess, DesiredVolume, Enforcement, NodeReport, NodeVolumes, ProcessState,
        VolumeInstance, VolumeReport,
    },
    ids::{Generation, NodeName, ProcessId, ServiceName},
    state::NodeCondition,
    units::{Bytes, Span, Timestamp},
    volumes::{
        BackupEnd, BackupOrder, BackupReport, Consistency, FillReport, FillSource, LoadReport,
        Snapshot, VolumeFill,
    },
};
use tucano_planner::{
    Action, Cluster, Event, FillFrom, FillStage, ProcessRecord, Record, VolumeRecord,
};

use crate::{Sim, agent::Container, validator::records_of};

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

/// Whether a volume does not have all of its content yet.
fn is_incoming(record: &VolumeRecord) -> bool {
    let stage = record.fill.as_ref().map(|fill| fill.stage);
    matches!(stage, Some(FillStage::Waiting | FillStage::Copying))
}

type SlotKey = (ServiceName, u32);

/// What the rules have to know of the steps before.
#[derive(Debug, Clone, Default)]
pub(crate) struct VolumeRules {
    /// Processes of each slot that are not known to be gone, with their node, and with the generation of the first set without
    /// them where they are not desired any more.
    exist: BTreeMap<SlotKey, BTreeMap<ProcessId, (NodeName, Option<Generation>)>>,
    /// The last record of each instance.
    records: BTreeMap<VolumeInstance, VolumeRecord>,
    gone: BTreeSet<VolumeInstance>,
    /// Volumes that were reported without a problem, with their last size.
    reported: BTreeMap<VolumeInstance, Bytes>,
    last_instance: u64,
}

impl VolumeRules {
    /// Takes in a report that was accepted.
    pub(crate) fn observe(&mut self, node: &NodeName, report: &NodeReport) {
        for processes in self.exist.values_mut() {
            processes.retain(|id, (there, since)| {
                let is_reported = report.processes.iter().any(|it| it.id == *id);
                let is_later = since.is_some_and(|since| report.generation >= since);
                there != node || is_reported || !is_later
            });
        }
        let all = report.volumes.iter().flat_map(|it| &it.all);
        let usable = all.filter(|it| it.problem.is_none());
        self.reported
            .extend(usable.map(|it| (it.volume.clone(), it.size)));
    }

    /// Whether there is another volume of this name.
    pub(crate) fn has_another(&self, volume: &VolumeInstance) -> bool {
        let mut records = self.records.keys();
        records.any(|it| it.id == volume.id && it != volume)
    }

    pub(crate) fn check(&mut self, event: &Event, actions: &[Action], cluster: &Cluster) {
        // In one step a slot's process before can be removed only together with its node.
        let snapshot = cluster.snapshot();
        for record in records_of(actions) {
            if let Record::ProcessGone(id) = record {
                self.removed(id, cluster);
            }
        }
        let before = self.records.clone();
        for record in records_of(actions) {
            match record {
                Record::Volume(volume) => self.check_volume(volume),
                Record::VolumeGone(volume) => {
                    self.gone.insert(volume.clone());
                    if let Some(record) = self.records.remove(volume) {
                        self.given_up(&record, cluster);
                    }
                }
                _ => {}
            }
        }
        for record in before.values().filter(|it| !it.removing) {
            let now = self.records.get(&record.volume);
            if now.is_some_and(|it| it.removing) {
                self.check_removal(record, event);
            }
        }
        let instances = self.records.keys().map(|volume| volume.instance);
        self.last_instance = instances.max().unwrap_or(0).max(self.last_instance);
        for record in records_of(actions) {
            if let Record::Process(process) = record {
                self.check_process(process);
            }
        }
        let held: BTreeSet<(&ServiceName, u32)> = snapshot
            .processes
            .iter()
            .filter_map(|it| Some((&it.service, it.slot?)))
            .collect();
        let slotted = snapshot.processes.iter().filter(|it| it.slot.is_some());
        assert_eq!(held.len(), slotted.count(), "one process for each slot");
        self.check_desired(actions);
    }

    fn removed(&mut self, id: &ProcessId, cluster: &Cluster) {
        for processes in self.exist.values_mut() {
            if let Some((node, since)) = processes.get_mut(id) {
                let snapshot = cluster.snapshot();
                let record = snapshot.nodes.iter().find(|it| it.name == *node);
                // A worker that leaves the topology is sent an empty set, and begins with a later one if it is added again.
                let last = snapshot.counters.first_generation;
                *since = Some(record.map_or(last, |it| it.generation));
            }
        }
    }

    /// What a lost worker runs is not waited for once its volumes are given up.
    fn given_up(&mut self, record: &VolumeRecord, cluster: &Cluster) {
        let id = &record.volume.id;
        let slot = id
            .service_name()
            .parse()
            .map(|service| (service, id.slot()));
        let is_lost = cluster.node(&record.node).is_none_or(|node| {
            matches!(node.condition, NodeCondition::Missing | NodeCondition::Dead)
        });
        let mut others = self.records.values();
        let is_last = !others.any(|it| {
            it.node == record.node
                && it.volume.id.slot() == id.slot()
                && it.volume.id.service_name() == id.service_name()
        });
        if is_lost
            && is_last
            && let Some(processes) = slot.ok().and_then(|slot| self.exist.get_mut(&slot))
        {
            processes.retain(|_, (node, _)| *node != record.node);
        }
    }

    fn check_volume(&mut self, record: &VolumeRecord) {
        let volume = &record.volume;
        if record.removing && !self.records.contains_key(volume) {
            // One without a record is removed from its worker.
            self.records.insert(volume.clone(), record.clone());
            return;
        }
        assert!(!self.gone.contains(volume), "{volume:?} is used again");
        match self.records.insert(volume.clone(), record.clone()) {
            Some(before) => {
                assert_eq!(before.node, record.node, "{volume:?} has moved");
                let reported = self.reported.get(volume);
                let is_reported = reported.is_some_and(|size| *size <= record.size);
                assert!(
                    before.size <= record.size || is_reported,
                    "{volume:?} has shrunk"
                );
                assert!(record.confirmed || !before.confirmed, "{volume:?}");
                assert!(record.removing || !before.removing, "{volume:?}");
            }
            None => {
                assert!(volume.instance > self.last_instance, "{volume:?} is old");
                let from = record.fill.as_ref().map(|fill| &fill.from);
                let mut others = self.records.values().filter(|it| !it.removing);
                assert!(
                    !others.any(|it| {
                        let is_source = match from {
                            Some(FillFrom::Volume { instance, .. }) => {
                                it.volume.instance == *instance
                            }
                            Some(FillFrom::Snapshot { .. }) => true,
                            None => false,
                        };
                        it.volume.id == volume.id && it.volume != *volume && !is_source
                    }),
                    "two volumes {}",
                    volume.id
                );
            }
        }
    }

    /// A volume is removed because somebody wants that, because it was being filled, or because the worker of the one that has its
    /// content has reported that.
    fn check_removal(&self, record: &VolumeRecord, event: &Event) {
        let volume = &record.volume;
        let is_wanted = matches!(
            event,
            Event::VolumeRemoved { .. }
                | Event::VolumeRestored(_)
                | Event::ServiceRemoved { volumes: true, .. }
        );
        let mut later = self.records.values().filter(|it| {
            let is_later = it.volume.id == volume.id && it.volume > *volume;
            let is_there = self.reported.contains_key(&it.volume) || it.load.is_some();
            is_later && it.fill.is_none() && is_there
        });
        assert!(
            is_wanted || is_incoming(record) || later.next().is_some(),
            "{volume:?} is removed by {event:?}"
        );
    }

    fn check_process(&mut self, process: &ProcessRecord) {
        let Some(slot) = process.slot else {
            return;
        };
        let volumes = self.records.values().filter(|it| {
            let id = &it.volume.id;
            let is_own = id.service_name() == process.service.as_str() && id.slot() == slot;
            let mut later = self.records.values().filter(|later| {
                later.volume.id == *id && later.volume > it.volume && !later.removing
            });
            let is_earlier = later.any(|later| !is_incoming(later));
            is_own && !it.removing && !is_incoming(it) && !is_earlier
        });
        let nodes: BTreeSet<&NodeName> = volumes.map(|it| &it.node).collect();
        assert_eq!(
            nodes,
            BTreeSet::from([&process.node]),
            "{process:?} is where its volumes are"
        );
        let processes = self
            .exist
            .entry((process.service.clone(), slot))
            .or_default();
        let node = process.node.clone();
        processes.insert(process.id.clone(), (node, None));
        let service = &process.service;
        assert_eq!(
            processes.len(),
            1,
            "slot {slot} of {service} has two processes: {processes:?}"
        );
    }

    /// A set has each volume at most once, has none created that was reported, and removes none that a process of it has.
    fn check_desired(&self, actions: &[Action]) {
        for action in actions {
            let Action::Assign(set) = action else {
                continue;
            };
            let mut seen = BTreeSet::new();
            for process in &set.processes {
                let wanted = process.config.volume.len();
                let slotted = process.slot.is_some();
                assert_eq!(process.volumes.len(), if slotted { wanted } else { 0 });
                for volume in &process.volumes {
                    assert_eq!(Some(volume.volume.id.slot()), process.slot);
                    assert!(seen.insert(&volume.volume), "{set:?}");
                    let was_reported = self.reported.contains_key(&volume.volume);
                    assert!(
                        !(volume.may_create && was_reported),
                        "{volume:?} is created again"
                    );
                }
            }
            let mut removed = set.removed_volumes.iter();
            assert!(!removed.any(|volume| seen.contains(volume)), "{set:?}");
        }
    }
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
