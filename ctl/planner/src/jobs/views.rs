//! Jobs and runs as the API shows them.

use tucano_api::{
    ids::ServiceName,
    jobs::{JobView, Run},
    schedule,
};

use super::ticks;
use crate::state::{Service, State};

/// Every job, ordered by name.
pub(crate) fn jobs(state: &State) -> Vec<JobView> {
    let jobs = state.services.values().filter(|it| super::is_job(it));
    jobs.map(|service| view(state, service)).collect()
}

/// A job, `None` if there is none of this name.
pub(crate) fn job(state: &State, name: &ServiceName) -> Option<JobView> {
    let service = state.services.get(name).filter(|it| super::is_job(it))?;
    Some(view(state, service))
}

/// The runs of a service that are kept, the newest first.
pub(crate) fn runs(state: &State, name: &ServiceName) -> Vec<Run> {
    let job = state.jobs.get(name).into_iter();
    let runs = job.flat_map(|job| job.runs.values().rev());
    runs.cloned().collect()
}

fn view(state: &State, service: &Service) -> JobView {
    let name = &service.record.name;
    let config = &service.current().config;
    let job = state.jobs.get(name);
    let runs = || job.into_iter().flat_map(|job| job.runs.values());
    let next = ticks::next_shown(service, state.now);
    let zone = config.timezone.as_deref().unwrap_or(schedule::UTC);
    JobView {
        name: name.clone(),
        revision: service.current().revision,
        schedule: config.schedule.clone(),
        timezone: config.timezone.clone(),
        next,
        next_wall_time: next.map(|next| schedule::wall_time(next, zone)),
        left_out: job.map_or(0, |job| job.record.left_out),
        active: runs().filter(|run| run.is_active()).cloned().collect(),
        last: runs().rfind(|run| !run.is_active()).cloned(),
        pending: job.and_then(|job| job.pending.clone()),
    }
}
