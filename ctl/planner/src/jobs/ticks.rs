//! Schedules: each tick is decided about once, in the order of time.
//!
//! The last tick that was decided about is recorded with the run that it begins, so no controller after this one decides about it
//! again. Of several that have passed the last one is run, where it is late by `catch_up` at most; so many there may be, the schedule
//! goes on. A database that was restored is of a new epoch, and ticks before that are not run: another controller may have run them.

use tucano_api::{
    ids::ServiceName,
    jobs::Trigger,
    schedule::{self, Schedule},
    service::ServiceConfig,
    units::{Span, Timestamp},
};

use super::{Job, overlap, update};
use crate::state::{Service, State};

/// A clock that was set back by more than this had been wrong: ticks that were decided about in its future are forgotten.
const CLOCK_CORRECTION: Span = Span::secs(3 * 3600);

/// Decides about the ticks that have passed.
pub(super) fn claim(state: &mut State, name: &ServiceName) {
    let Some((config, schedule)) = schedule_of(state.services.get(name)) else {
        return;
    };
    let known = state.jobs.get(name).and_then(|job| job.record.claimed);
    let Some(claimed) = known else {
        // It begins with the first tick after it was configured.
        let since = state.now;
        return update(state, name, |record| record.claimed = Some(since));
    };
    if claimed > state.now.after(CLOCK_CORRECTION) {
        let now = state.now;
        return update(state, name, |record| record.claimed = Some(now));
    }
    let Some(tick) = schedule.last(state.now).filter(|tick| *tick > claimed) else {
        return;
    };
    update(state, name, |record| record.claimed = Some(tick));
    let since = state.services.get(name).map(scheduled_since);
    if since.is_some_and(|since| tick <= since) {
        // The schedule was another one then.
        return;
    }
    let is_late = state.now.since(tick) > config.run_catch_up();
    let is_of_another_database = tick < epoch_begin(state);
    let zone = config.timezone.as_deref().unwrap_or(schedule::UTC);
    let trigger = Trigger::Schedule {
        tick,
        wall_time: schedule::wall_time(tick, zone),
    };
    let begun = !is_late
        && !is_of_another_database
        && overlap::begin(state, name, config.overlap.unwrap_or_default(), trigger);
    if !begun {
        update(state, name, |record| {
            record.left_out = record.left_out.saturating_add(1);
        });
    }
}

/// When the next tick is to be decided about.
pub(super) fn next(service: &Service, job: &Job) -> Option<Timestamp> {
    let (_, schedule) = schedule_of(Some(service))?;
    schedule.next(job.record.claimed?)
}

/// The next tick that is shown.
pub(super) fn next_shown(service: &Service, now: Timestamp) -> Option<Timestamp> {
    let (_, schedule) = schedule_of(Some(service))?;
    schedule.next(now)
}

fn schedule_of(service: Option<&Service>) -> Option<(ServiceConfig, Schedule)> {
    let config = &service?.current().config;
    let schedule = config.run_schedule().filter(|_| config.is_job())?;
    Some((config.clone(), schedule))
}

/// When the present schedule was configured, as far as revisions tell.
fn scheduled_since(service: &Service) -> Timestamp {
    let current = &service.current().config;
    let is_same = |config: &ServiceConfig| {
        (&config.schedule, &config.timezone) == (&current.schedule, &current.timezone)
    };
    let revisions = service.record.revisions.iter().rev();
    let same = revisions.take_while(|it| is_same(&it.config)).last();
    same.map_or(Timestamp(0), |record| record.configured_at)
}

/// Epochs are seconds since 1970.
fn epoch_begin(state: &State) -> Timestamp {
    Timestamp(state.identity.epoch.0.saturating_mul(1000))
}
