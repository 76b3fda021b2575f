//! The report of the volumes.

use tucano_api::{
    agent::{Enforcement, NodeVolumes, VolumeInstance, VolumeReport},
    ids::VolumeId,
    units::Bytes,
};

use super::{
    Volumes, filesystem,
    health::{self, Mounts},
    record::Known,
};

impl Volumes {
    /// All volumes of this node, and what they can hold; none where there are none and cannot be any. Blocking, yet not for long.
    pub fn report(&self) -> Option<NodeVolumes> {
        let (known, mut creating) = {
            let state = self.state();
            (state.record.volumes.clone(), state.creating.clone())
        };
        creating.retain(|id, _| !known.contains_key(id));
        if known.is_empty() && self.obstacle.is_some() {
            return None;
        }
        let place = self.check_place().map_err(|error| error.to_string());
        let created = known.keys().map(|id| self.place.volume(id));
        let unfinished = creating.keys().map(|id| self.place.new_volume(id));
        let allocated = created.chain(unfinished).map(|it| it.allocated().0);
        let allocated = allocated.fold(0, u64::saturating_add);
        let can_create = place.is_ok() && self.obstacle.is_none();
        let free = match can_create {
            true => self.room.free().unwrap_or_default(),
            false => Bytes(0),
        };
        // Once for all of them: a node may have many mounts.
        let mounts = Mounts::read().ok();
        let (place, mounts) = (place.as_ref().err(), mounts.as_ref());
        let all = known.iter();
        let all = all.map(|(id, known)| self.report_of(id, known, place, mounts));
        let mut all: Vec<_> = all
            .chain(creating.into_iter().map(unfinished_report))
            .collect();
        all.sort_by(|a, b| a.volume.id.cmp(&b.volume.id));
        Some(NodeVolumes {
            capacity: Bytes(allocated.saturating_add(free.0)),
            enforcement: Enforcement::LoopFile,
            all,
            can_copy: false,
            fills: Vec::new(),
            can_back_up: false,
            backup_paths: Vec::new(),
            backups: Vec::new(),
        })
    }

    fn report_of(
        &self,
        id: &VolumeId,
        known: &Known,
        place: Option<&String>,
        mounts: Option<&Mounts>,
    ) -> VolumeReport {
        let volume = VolumeInstance {
            id: id.clone(),
            instance: known.instance,
        };
        let directory = self.place.volume(id);
        let mount_point = directory.mount_point();
        let is_mounted = filesystem::is_mounted(&mount_point).unwrap_or(false);
        let used = is_mounted.then(|| filesystem::used(&mount_point).ok());
        let found = || self.find(&volume).err().map(|error| error.to_string());
        let mounts = mounts.filter(|_| is_mounted);
        let broken = mounts.is_some_and(|it| health::is_damaged(&mount_point, it).unwrap_or(false));
        let broken = broken.then(|| {
            format!(
                "volume {id}: its file system had errors or is read-only: it is checked when its process starts again"
            )
        });
        let earlier = {
            let state = self.state();
            // As long as a process tries: the next one may succeed, and is placed only where there is no problem.
            let is_tried = state.claims.holder(id).is_some();
            state.problems.get(id).filter(|_| is_tried).cloned()
        };
        VolumeReport {
            size: known.size,
            used: used.flatten(),
            problem: place.cloned().or_else(found).or(broken).or(earlier),
            load: self.load_report(&volume),
            volume,
        }
    }
}

/// A volume that is being created. It cannot be used yet, so its creation does not count as seen.
fn unfinished_report((id, known): (VolumeId, Known)) -> VolumeReport {
    VolumeReport {
        problem: Some(format!("volume {id} is being created")),
        volume: VolumeInstance {
            id,
            instance: known.instance,
        },
        size: known.size,
        used: None,
        load: None,
    }
}
