//! The next steps, computed from the desired and the actual state. Pure: the same input gives the same steps, and there is no
//! clock, disk or network here. [`super::lifecycle`] has the diagram of the phases.
//!
//! Deliberately absent: any memory of earlier steps. A step in progress is visible in the phase.

use std::{collections::BTreeMap, time::Duration};

use tucano_api::{
    agent::{DesiredProcess, VolumeInstance},
    ids::{ProcessId, VolumeId},
    service::AssignedDevice,
};

use super::{
    lifecycle::{Actual, Health, Phase, Resize, Step},
    live_changes,
};

/// The desired state of this node.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The processes; `None` before the first desired set, while nothing is started or stopped.
    pub processes: Option<BTreeMap<ProcessId, DesiredProcess>>,
    /// Whether processes may be started: not before the controller had time to replace an outdated set.
    pub starts_allowed: bool,
    /// Volumes to remove.
    pub removed_volumes: Vec<VolumeInstance>,
}

impl Desired {
    /// Whether the limits of `actual` differ, or may differ, from those of the desired process of its id. A change that was
    /// refused may have been made in part.
    fn resizes(&self, actual: &Actual) -> bool {
        let was_refused = matches!(actual.resize, Resize::Refused { .. });
        let desired = self.processes.as_ref();
        let desired = desired.and_then(|all| all.get(&actual.process.id));
        desired.is_some_and(|desired| {
            was_refused || live_changes::limits_differ(&desired.config, &actual.process.config)
        })
    }

    /// The processes of runs that may not be started, and that the agent does not know: it has lost what it knew of them.
    pub fn lost_runs<T>(&self, actual: &BTreeMap<ProcessId, T>) -> Vec<DesiredProcess> {
        let desired = self.processes.iter().flatten();
        let lost = desired.filter(|(id, process)| {
            let run = process.run.as_ref();
            run.is_some_and(|run| !run.may_start) && !actual.contains_key(id)
        });
        lost.map(|(_, process)| process.clone()).collect()
    }

    /// Whether `actual` is, or can become, the desired process of its id.
    pub fn wants(&self, actual: &Actual) -> bool {
        match &self.processes {
            None => true,
            Some(processes) => processes
                .get(&actual.process.id)
                .is_some_and(|desired| same_container(desired, &actual.process)),
        }
    }
}

/// The steps that are due now, at most one per process, ordered by id.
pub fn plan(
    desired: &Desired,
    actual: &BTreeMap<ProcessId, impl AsRef<Actual>>,
    now: Duration,
) -> Vec<(ProcessId, Step)> {
    let existing = actual
        .iter()
        .filter_map(|(id, it)| Some((id.clone(), decide(desired, actual, it.as_ref(), now).ok()?)));
    let missing = desired
        .processes
        .iter()
        .flatten()
        .filter(|(id, _)| desired.starts_allowed && !actual.contains_key(id))
        .map(|(id, _)| (id.clone(), Step::Pull));
    let mut steps: Vec<_> = existing.chain(missing).collect();
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    steps
}

/// When the result of [`plan`] changes without an event; `None` if only an event changes it.
pub fn next_change(
    desired: &Desired,
    actual: &BTreeMap<ProcessId, impl AsRef<Actual>>,
    now: Duration,
) -> Option<Duration> {
    actual
        .values()
        .filter_map(|it| decide(desired, actual, it.as_ref(), now).err()?)
        .min()
}

/// The step for one process, or the time until which there is none.
fn decide(
    desired: &Desired,
    all: &BTreeMap<ProcessId, impl AsRef<Actual>>,
    actual: &Actual,
    now: Duration,
) -> Result<Step, Option<Duration>> {
    let due = |at: Duration, step| if at <= now { Ok(step) } else { Err(Some(at)) };
    let wanted = desired.wants(actual);
    match actual.phase {
        Phase::Removing | Phase::Launching => Err(None),
        Phase::NotRemoved { retry_at } => due(retry_at, Step::Remove),
        Phase::Stopping { killing: true, .. } => Err(None),
        Phase::Stopping { kill_at, .. } => due(kill_at, Step::Kill),
        Phase::Running { .. } if !wanted => Ok(Step::Terminate),
        Phase::Running { health, since } => {
            let grace = actual.process.config.health.grace.0;
            let restart_at = (health != Health::Healthy).then(|| since + grace);
            let resize_at = resize_at(desired, actual);
            match (restart_at, resize_at) {
                (Some(at), _) if at <= now => Ok(Step::Terminate),
                (_, Some(at)) if at <= now => Ok(Step::Resize),
                (restart, resize) => Err(restart.into_iter().chain(resize).min()),
            }
        }
        Phase::New | Phase::Pulling | Phase::Pulled | Phase::Ended { .. } if !wanted => {
            Ok(Step::Remove)
        }
        Phase::Pulling => Err(None),
        _ if !desired.starts_allowed => Err(None),
        Phase::New => Ok(Step::Pull),
        Phase::Pulled if predecessor(desired, all, actual).is_some() => Err(None),
        Phase::Pulled => Ok(Step::Start),
        Phase::Ended { .. } if actual.is_over() => Err(None),
        Phase::Ended { restart_at } => due(restart_at, Step::Pull),
    }
}

/// Another process that has, or may have, a volume or a device of this one, and which. Until nothing of it is left this one does not
/// start: a volume has one writer, and a device one process. Of several that could start the one with the lowest id does.
pub fn predecessor<'a>(
    desired: &Desired,
    all: &'a BTreeMap<ProcessId, impl AsRef<Actual>>,
    actual: &'a Actual,
) -> Option<(&'a ProcessId, String)> {
    let own = &actual.process;
    let others = all.iter().filter(|(id, _)| **id != own.id);
    let mut shared = others.filter_map(|(id, other)| {
        let other = other.as_ref();
        let goes_first = other.phase == Phase::Pulled && *id < own.id && desired.wants(other);
        let has = other.was_started || goes_first && !actual.was_started;
        let shared = || {
            let volume = shared_volume(own, &other.process).map(|it| format!("volume {it}"));
            volume.or_else(|| shared_device(own, &other.process))
        };
        Some((id, has.then(shared).flatten()?))
    });
    shared.next()
}

/// A volume that two processes have.
pub fn shared_volume<'a>(a: &'a DesiredProcess, b: &DesiredProcess) -> Option<&'a VolumeId> {
    let mut of_a = a.volumes.iter().map(|it| &it.volume.id);
    of_a.find(|id| b.volumes.iter().any(|it| it.volume.id == **id))
}

/// A device that two processes have.
fn shared_device(a: &DesiredProcess, b: &DesiredProcess) -> Option<String> {
    let mut of_a = a.devices.iter().flat_map(AssignedDevice::held);
    let has = |it: &(_, _)| {
        b.devices
            .iter()
            .flat_map(AssignedDevice::held)
            .any(|other| other == *it)
    };
    let (kind, unit) = of_a.find(has)?;
    Some(format!("device {kind}={unit}"))
}

/// When the limits of a running process are changed, if they are to be.
fn resize_at(desired: &Desired, actual: &Actual) -> Option<Duration> {
    let at = match actual.resize {
        Resize::Idle => Duration::ZERO,
        Resize::Refused { retry_at } => retry_at,
        Resize::InProgress => return None,
    };
    desired.resizes(actual).then_some(at)
}

/// Whether a container of `b` serves `a` too, perhaps with other limits or another probe.
pub fn same_container(a: &DesiredProcess, b: &DesiredProcess) -> bool {
    let instances = |process: &DesiredProcess| -> Vec<VolumeInstance> {
        let volumes = process.volumes.iter();
        volumes.map(|it| it.volume.clone()).collect()
    };
    a.image == b.image
        && a.config.same_process(&b.config)
        && a.slot == b.slot
        && instances(a) == instances(b)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
