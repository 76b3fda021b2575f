use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::VolumeInstance,
    ids::{NodeName, ServiceName},
};

use crate::{model::VolumeRecord, volumes::fills::is_incoming};

/// All volumes, found by their slot and by their worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volumes {
    records: BTreeMap<VolumeInstance, VolumeRecord>,
    by_slot: BTreeMap<(String, u32), BTreeSet<VolumeInstance>>,
    by_node: BTreeMap<NodeName, BTreeSet<VolumeInstance>>,
    /// Those that get their content.
    filling: BTreeSet<VolumeInstance>,
}

impl Volumes {
    /// All of them, ordered by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.records.values()
    }

    /// One of them.
    pub(crate) fn get(&self, volume: &VolumeInstance) -> Option<&VolumeRecord> {
        self.records.get(volume)
    }

    /// Changes one of them. Its name and its worker stay. Whether it is there.
    pub(crate) fn change(
        &mut self,
        volume: &VolumeInstance,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> bool {
        let Some(record) = self.records.get_mut(volume) else {
            return false;
        };
        change(record);
        if record.fill.is_none() {
            self.filling.remove(volume);
        }
        true
    }

    /// Those that get the content of an earlier one.
    pub(crate) fn filling(&self) -> impl Iterator<Item = &VolumeInstance> {
        self.filling.iter()
    }

    /// Those of a slot, also of names that its service does not have any more.
    pub(crate) fn of_slot(
        &self,
        service: &ServiceName,
        slot: u32,
    ) -> impl Iterator<Item = &VolumeRecord> {
        let volumes = self.by_slot.get(&(service.to_string(), slot));
        let volumes = volumes.into_iter().flatten();
        volumes.filter_map(|volume| self.records.get(volume))
    }

    /// Those that a slot has: they are not being removed, and nothing of them is missing. While a volume is moved there are two of its
    /// name: the slot has the earlier one until the later one is whole.
    pub(crate) fn kept_of_slot(
        &self,
        service: &ServiceName,
        slot: u32,
    ) -> impl Iterator<Item = &VolumeRecord> {
        let present = |record: &&VolumeRecord| !record.removing;
        let all = self.of_slot(service, slot).filter(present);
        all.filter(move |record| {
            let others = self.of_slot(service, slot).filter(present);
            let mut others =
                others.filter(|it| it.volume.id == record.volume.id && it.volume != record.volume);
            match is_incoming(record) {
                // One that is restored may be the only one.
                true => others.next().is_none(),
                false => !others.any(|it| it.volume > record.volume && !is_incoming(it)),
            }
        })
    }

    /// Those of a service, ordered by slot.
    pub(crate) fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = &VolumeRecord> {
        let name = service.to_string();
        let slots = self.by_slot.range((name.clone(), 0)..=(name, u32::MAX));
        slots
            .flat_map(|(_, volumes)| volumes)
            .filter_map(|volume| self.records.get(volume))
    }

    /// Those on a worker.
    pub(crate) fn on(&self, node: &NodeName) -> impl Iterator<Item = &VolumeRecord> {
        let volumes = self.by_node.get(node).into_iter().flatten();
        volumes.filter_map(|volume| self.records.get(volume))
    }

    /// The workers that have volumes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.by_node.keys()
    }

    /// The size of all volumes on a worker, in bytes.
    pub(crate) fn size_on(&self, node: &NodeName) -> u64 {
        let sizes = self.on(node).map(|record| record.size.0);
        sizes.fold(0, u64::saturating_add)
    }

    pub(crate) fn insert(&mut self, record: VolumeRecord) {
        let volume = record.volume.clone();
        let slot = key(&volume);
        self.by_slot.entry(slot).or_default().insert(volume.clone());
        let on_node = self.by_node.entry(record.node.clone()).or_default();
        on_node.insert(volume.clone());
        if record.fill.is_some() {
            self.filling.insert(volume.clone());
        }
        self.records.insert(volume, record);
    }

    pub(crate) fn remove(&mut self, volume: &VolumeInstance) {
        let Some(record) = self.records.remove(volume) else {
            return;
        };
        self.filling.remove(volume);
        remove_from(&mut self.by_slot, &key(volume), volume);
        remove_from(&mut self.by_node, &record.node, volume);
    }
}

fn key(volume: &VolumeInstance) -> (String, u32) {
    (volume.id.service_name().to_owned(), volume.id.slot())
}

fn remove_from<K: Ord>(
    index: &mut BTreeMap<K, BTreeSet<VolumeInstance>>,
    key: &K,
    volume: &VolumeInstance,
) {
    if let Some(volumes) = index.get_mut(key) {
        volumes.remove(volume);
        if volumes.is_empty() {
            index.remove(key);
        }
    }
}
