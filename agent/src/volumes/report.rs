//! The report of the volumes.

use tucano_api::{
    agent::{NodeVolumes, VolumeInstance, VolumeReport},
    ids::VolumeId,
    units::Bytes,
};

use super::{Volumes, backing, health::Mounts, record::Known};

impl Volumes {
    /// All volumes of this node, and what they can hold; none where there are none and cannot be any. Blocking, yet not for long.
    pub fn report(&self) -> Option<NodeVolumes> {
        let (known, mut creating) = {
            let state = self.state();
            (state.record.volumes.clone(), state.creating.clone())
        };
        creating.retain(|id, _| !known.contains_key(id));
        let obstacle = self.obstacle().is_some();
        if known.is_empty() && obstacle {
            return None;
        }
        let place = self.check_place().map_err(|error| error.to_string());
        let created = known.keys().map(|id| self.place.volume(id));
        let unfinished = creating.keys().map(|id| self.place.new_volume(id));
        let fillings = self.place.fillings().unwrap_or_default();
        let fillings = fillings.iter().map(|id| self.place.filling_volume(id));
        let shares = created.chain(unfinished).chain(fillings);
        let allocated = shares.map(|it| backing::share(&it).total.0);
        let allocated = allocated.fold(0, u64::saturating_add);
        let can_create = place.is_ok() && !obstacle;
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
            enforcement: self.backings.of_new(&self.place),
            all,
            can_copy: can_create,
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
        let found = self.find(&volume);
        let backing = found.as_ref().ok().and_then(Option::as_ref);
        let backing = backing.map(|identity| (self.backing(identity), identity));
        let backing = backing.as_ref();
        let fault = backing.and_then(|(backing, identity)| backing.fault(identity, mounts));
        let not_found = found.as_ref().err().map(|error| error.to_string());
        let earlier = {
            let state = self.state();
            // As long as a process tries: the next one may succeed, and is placed only where there is no problem.
            let is_tried = state.claims.holder(id).is_some();
            state.problems.get(id).filter(|_| is_tried).cloned()
        };
        VolumeReport {
            load: self.load_report(&volume),
            size: known.size,
            used: backing.and_then(|(backing, _)| backing.used()),
            enforcement: backing.map(|(backing, _)| backing.enforcement()),
            problem: place.cloned().or(not_found).or(fault).or(earlier),
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
        enforcement: None,
        load: None,
    }
}
