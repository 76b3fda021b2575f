//! What to do next, given what is desired and what exists. Pure: the same input gives the same steps; there is no
//! clock, no disk and no network here. The phases and their order are drawn in [`super::lifecycle`].
//!
//! Deliberately absent: any memory of steps given before. A step that is being carried out shows in the phase.

use std::{collections::BTreeMap, time::Duration};

use tucano_api::{agent::DesiredProcess, ids::ProcessId};

use super::lifecycle::{Actual, Health, Phase, Step};

/// What is to run on this node.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The processes, or nothing while no desired set has ever been received: then nothing is started or stopped.
    pub processes: Option<BTreeMap<ProcessId, DesiredProcess>>,
    /// Whether processes may be started yet: not before the controller had its chance to say what is outdated.
    pub starts_allowed: bool,
}

impl Desired {
    /// Whether `actual` is, or can become, what is desired under its id.
    pub fn wants(&self, actual: &Actual) -> bool {
        match &self.processes {
            None => true,
            Some(processes) => processes
                .get(&actual.process.id)
                .is_some_and(|desired| same_container(desired, &actual.process)),
        }
    }
}

/// Every step to take now, in the order of the processes' ids; at most one for each.
pub fn plan(
    desired: &Desired,
    actual: &BTreeMap<ProcessId, impl AsRef<Actual>>,
    now: Duration,
) -> Vec<(ProcessId, Step)> {
    let existing = actual
        .iter()
        .filter_map(|(id, actual)| Some((id.clone(), decide(desired, actual.as_ref(), now).ok()?)));
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

/// When [`plan`] may give another answer although nothing has happened; nothing if only an event can change it.
pub fn next_look(
    desired: &Desired,
    actual: &BTreeMap<ProcessId, impl AsRef<Actual>>,
    now: Duration,
) -> Option<Duration> {
    actual
        .values()
        .filter_map(|actual| decide(desired, actual.as_ref(), now).err()?)
        .min()
}

/// The step for one process, or until when there is none.
fn decide(desired: &Desired, actual: &Actual, now: Duration) -> Result<Step, Option<Duration>> {
    let due = |at: Duration, step| if at <= now { Ok(step) } else { Err(Some(at)) };
    let wanted = desired.wants(actual);
    match actual.phase {
        Phase::Removing | Phase::Launching => Err(None),
        Phase::NotRemoved { retry_at } => due(retry_at, Step::Remove),
        Phase::Stopping { killing: true, .. } => Err(None),
        Phase::Stopping { kill_at, .. } => due(kill_at, Step::Kill),
        Phase::Running { .. } if !wanted => Ok(Step::Terminate),
        Phase::Running { health, since } => match health {
            Health::Healthy => Err(None),
            Health::Starting | Health::Unhealthy => due(
                since + actual.process.config.health.grace.0,
                Step::Terminate,
            ),
        },
        Phase::New | Phase::Pulling | Phase::Pulled | Phase::Ended { .. } if !wanted => {
            Ok(Step::Remove)
        }
        Phase::Pulling => Err(None),
        _ if !desired.starts_allowed => Err(None),
        Phase::New => Ok(Step::Pull),
        Phase::Pulled => Ok(Step::Start),
        Phase::Ended { restart_at } => due(restart_at, Step::Pull),
    }
}

/// Whether a container made for `b` is also one for `a`: changes that only the balancer sees need no new one.
pub fn same_container(a: &DesiredProcess, b: &DesiredProcess) -> bool {
    a.image == b.image && a.config.same_process(&b.config)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
