//! Runs of a job that would overlap: one begins when nothing of the earlier ones is left. Hooks, and runs of another command,
//! overlap with nothing.

use tucano_api::{
    ids::ServiceName,
    jobs::{Outcome, Run, Trigger},
    service::Overlap,
};

use super::{Job, runs};
use crate::state::State;

/// Begins the run of a tick, or leaves it out. Whether it is begun.
pub(super) fn begin(
    state: &mut State,
    name: &ServiceName,
    overlap: Overlap,
    trigger: Trigger,
) -> bool {
    let earlier = state.jobs.get(name).map(active).unwrap_or_default();
    let is_waiting = |number: &u64| {
        let run = state.jobs.run(name, *number);
        run.is_some_and(|run| run.began_at.is_none())
    };
    let is_free = match overlap {
        _ if earlier.is_empty() => true,
        Overlap::Skip => false,
        Overlap::Queue => !earlier.iter().any(is_waiting),
        Overlap::Replace => {
            for number in earlier {
                runs::conclude(state, name, number, Outcome::Replaced);
            }
            true
        }
    };
    if is_free {
        runs::create(state, name, trigger, None);
    }
    is_free
}

/// Whether a run waits for an earlier one.
pub(super) fn waits(job: &Job, run: &Run) -> bool {
    counts(run) && active(job).iter().any(|number| *number < run.number)
}

/// The runs that do not overlap with each other and have not ended, oldest first.
pub(super) fn active(job: &Job) -> Vec<u64> {
    let active = job
        .runs
        .values()
        .filter(|run| run.is_active() && counts(run));
    active.map(|run| run.number).collect()
}

fn counts(run: &Run) -> bool {
    !run.trigger.is_hook() && run.command.is_none()
}
