//! Volumes: file systems of a service's slots, which outlive its processes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Backup, Effect, ServiceConfig, validate::length_problem};
use crate::{ids::VolumeName, settings::Problem, units::Bytes};

/// Most volumes of one slot.
pub const MAX_VOLUMES: usize = 8;
/// Smallest volume: what a file system of its own needs.
pub const MIN_VOLUME: Bytes = Bytes::mib(8);
/// Largest volume.
pub const MAX_VOLUME: Bytes = Bytes::mib(64 << 20);

/// A volume of each slot of a service. It lives on one worker, and the slot's process runs there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its name within the service.
    pub name: VolumeName,
    /// Its absolute path in the container. On first use it gets what the image has there.
    pub path: String,
    /// How much can be written to it. It can grow while it is in use, and does not shrink.
    pub size: Bytes,
    /// When and where it is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

impl Volume {
    /// The volume as agents need it: they are sent orders to back it up.
    pub(super) fn for_agents(&self) -> Self {
        Self {
            backup: None,
            ..self.clone()
        }
    }
}

/// What is wrong with the volumes of a service.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let volumes = &config.volume;
    let mut problems = Vec::new();
    problems.extend(length_problem(
        "volume",
        "volumes",
        volumes.len(),
        MAX_VOLUMES,
    ));
    for (index, volume) in volumes.iter().enumerate() {
        if !(MIN_VOLUME..=MAX_VOLUME).contains(&volume.size) {
            let message = format!(
                "{} is out of range: write {MIN_VOLUME} to {MAX_VOLUME}",
                volume.size
            );
            problems.push(Problem::new(format!("volume[{index}].size"), message));
        }
        let mut others = volumes[..index].iter();
        if others.any(|other| other.name == volume.name) {
            let message = format!("another volume is named {} already", volume.name);
            problems.push(Problem::new(format!("volume[{index}].name"), message));
        }
    }
    problems
}

/// What a change of the volumes means for running processes.
pub(super) fn effect(a: &[Volume], b: &[Volume]) -> Effect {
    let pairs = || a.iter().zip(b);
    if a.len() != b.len() || !pairs().all(|(a, b)| (&a.name, &a.path) == (&b.name, &b.path)) {
        return Effect::Process;
    }
    match pairs().all(|(a, b)| a.size == b.size) {
        true => Effect::Nothing,
        false => Effect::Resize,
    }
}

#[cfg(test)]
mod tests;
