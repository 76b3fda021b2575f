//! The rules of slots and volumes:
//!
//! - A process of a slot is placed only after the worker of each one before has reported, holding a later set, that it is gone.
//! - It is placed on the worker that the slot's volumes are on, and these are recorded in the same step.
//! - A volume never changes its worker, and its instance is never used twice. It is created at most once.
//! - One that is moved has another instance on the other worker, and is removed only after that worker has reported the next one.
//!
//! That two containers never have the same volume, and that nothing is written to a volume after it was copied, is checked where
//! containers run.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{NodeReport, VolumeInstance},
    ids::{Generation, NodeName, ProcessId, ServiceName},
    state::NodeCondition,
    units::Bytes,
};
use tucano_planner::{
    Action, Cluster, Event, FillFrom, FillStage, ProcessRecord, Record, VolumeRecord,
};

use crate::validator::records_of;

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
