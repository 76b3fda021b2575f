//! Runs that somebody asks for, and stops.

use tucano_api::{
    ids::ServiceName,
    jobs::{Outcome, Run, Trigger},
};

use super::runs;
use crate::state::State;

/// Most runs of a service that were asked for and have not ended.
const MAX_REQUESTED: usize = 50;

/// Why no run can be begun. A message for the user.
pub(crate) fn obstacle(
    state: &State,
    name: &ServiceName,
    command: Option<&[String]>,
) -> Option<String> {
    let service = state.services.get(name)?;
    if command.is_none() && !super::is_job(service) {
        return Some(format!(
            "{name} is a service, whose processes are kept alive: write the command to run, such as `tucano run {name} -- ./task`"
        ));
    }
    let job = state.jobs.get(name)?;
    let requested = job
        .runs
        .values()
        .filter(|run| run.is_active() && run.trigger == Trigger::Request);
    (requested.count() >= MAX_REQUESTED)
        .then(|| format!("{MAX_REQUESTED} runs of {name} have not ended: wait, or stop some"))
}

/// The newest run of a job's present revision, of its own command, that has succeeded or has not ended.
pub(crate) fn of_revision(state: &State, name: &ServiceName) -> Option<u64> {
    let revision = state.services.get(name)?.current().revision;
    let mut runs = state.jobs.get(name)?.runs.values().rev();
    let counts = |run: &&Run| run.is_active() || run.outcome == Some(Outcome::Succeeded);
    let found = runs.find(|run| run.revision == revision && run.command.is_none() && counts(run));
    found.map(|run| run.number)
}

/// The number that the next run of a service gets.
pub(crate) fn next_number(state: &State, name: &ServiceName) -> u64 {
    let job = state.jobs.get(name);
    job.map_or(0_u64, |job| job.record.last_run)
        .saturating_add(1)
}

/// Begins a run.
pub(crate) fn request(state: &mut State, name: &ServiceName, command: Option<Vec<String>>) {
    if state.services.contains_key(name) && obstacle(state, name, command.as_deref()).is_none() {
        runs::create(state, name, Trigger::Request, command);
    }
}

/// Stops a run. One that waits for another one ends at once.
pub(crate) fn stop(state: &mut State, name: &ServiceName, number: u64) {
    runs::conclude(state, name, number, Outcome::Stopped);
}
