//! The life of a run, whose states [`tucano_api::jobs`] shows.

use tucano_api::{
    ids::ServiceName,
    jobs::{AttemptEnd, Outcome, Run, Trigger},
    reasons::PendingReason,
    state::AlertKind,
    units::{Span, Timestamp},
};

use super::{attempts, entry, overlap};
use crate::state::State;

/// Pause after the first failure of a run's process; it doubles with each further one.
const FIRST_PAUSE: Span = Span::secs(5);
/// Longest pause.
const LONGEST_PAUSE: Span = Span::secs(300);

/// Records a run of the newest revision. Returns its number.
pub(super) fn create(
    state: &mut State,
    name: &ServiceName,
    trigger: Trigger,
    command: Option<Vec<String>>,
) -> u64 {
    let Some(service) = state.services.get(name) else {
        return 0;
    };
    let revision = match trigger {
        Trigger::Before => service.upcoming().unwrap_or_else(|| service.current()),
        _ => service.current(),
    };
    let config = &revision.config;
    // Only runs of the job itself have its numbers.
    let is_own = config.is_job() && command.is_none();
    let hook = match trigger {
        Trigger::Before => config.before.as_ref(),
        Trigger::After => config.after.as_ref(),
        _ => None,
    };
    let deadline = match hook {
        Some(hook) => Some(hook.timeout),
        None => config.deadline,
    };
    let mut run = Run {
        command: hook.map(|hook| hook.args.clone()).or(command),
        deadline,
        ..Run::new(
            name.clone(),
            revision.revision,
            trigger,
            state.now,
            state.identity.epoch,
        )
    };
    if is_own {
        run.completions = config.run_completions();
        run.parallelism = config.run_parallelism();
        run.retries = config.run_retries();
    }
    let job = entry(state, name);
    job.record.last_run = job.record.last_run.saturating_add(1);
    let number = job.record.last_run;
    job.runs.insert(number, Run { number, ..run });
    state.changes.jobs.insert(name.clone());
    state.changes.runs.insert((name.clone(), number));
    state.changes.reconcile.insert(name.clone());
    number
}

/// Decides what became of a run that has not ended: its processes are stopped.
pub(super) fn conclude(state: &mut State, name: &ServiceName, number: u64, outcome: Outcome) {
    let job = state.jobs.all.get_mut(name);
    let Some(run) = job.and_then(|job| job.runs.get_mut(&number)) else {
        return;
    };
    if run.outcome.is_none() && run.is_active() {
        run.outcome = Some(outcome);
        state.changes.runs.insert((name.clone(), number));
        state.changes.reconcile.insert(name.clone());
    }
}

/// Brings a run nearer to its end. Returns why one of its processes is not placed.
pub(super) fn advance(state: &mut State, name: &ServiceName, number: u64) -> Option<PendingReason> {
    let job = state.jobs.get(name)?;
    let before = job.runs.get(&number)?;
    let mut run = before.clone();
    if run.began_at.is_none() && !overlap::waits(job, &run) {
        run.began_at = Some(state.now);
    }
    attempts::collect(state, &mut run);
    if run.outcome.is_none() {
        run.outcome = outcome(state, &run);
    }
    let mut pending = None;
    match run.outcome {
        Some(_) => attempts::stop(state, &mut run),
        None => pending = attempts::start(state, &mut run),
    }
    if run.outcome.is_some() && run.active().next().is_none() {
        run.ended_at = Some(state.now);
        run.retry_at = None;
        alert(state, &run);
        // What waits for it may begin.
        state.changes.reconcile.insert(name.clone());
    }
    store(state, run);
    pending
}

/// When time alone changes something for a run.
pub(super) fn due(state: &State, run: &Run) -> Option<Timestamp> {
    let deadline = run.deadline.filter(|_| run.outcome.is_none());
    let deadline = deadline.and_then(|span| Some(run.began_at?.after(span)));
    let retry = run.retry_at.filter(|_| run.outcome.is_none());
    let next = deadline.into_iter().chain(retry);
    next.filter(|at| *at > state.now).min()
}

/// Brings times that lie in the future of a clock that was set back into its present. Whether there were any.
pub(super) fn clamp(run: &mut Run, now: Timestamp) -> bool {
    let before = (run.began_at, run.retry_at);
    run.began_at = run.began_at.map(|at| at.min(now));
    run.retry_at = run.retry_at.map(|at| at.min(now.after(LONGEST_PAUSE)));
    before != (run.began_at, run.retry_at)
}

/// The pause after a number of failures.
pub(super) fn pause(failures: u32) -> Span {
    let doubled = 1_u64 << failures.saturating_sub(1).min(10);
    let pause = Span::millis(FIRST_PAUSE.as_millis().saturating_mul(doubled));
    pause.min(LONGEST_PAUSE)
}

fn store(state: &mut State, run: Run) {
    let (name, number) = (run.service.clone(), run.number);
    let Some(job) = state.jobs.all.get_mut(&name) else {
        return;
    };
    if job.runs.get(&number) != Some(&run) {
        job.runs.insert(number, run);
        state.changes.runs.insert((name, number));
    }
}

fn outcome(state: &State, run: &Run) -> Option<Outcome> {
    let unknown = |why: &str| {
        Some(Outcome::Unknown {
            why: why.to_owned(),
        })
    };
    if run.epoch != state.identity.epoch {
        return unknown("the controller's database was restored since it began");
    }
    if run.done.len() >= run.completions as usize {
        return Some(Outcome::Succeeded);
    }
    if run.failures > run.retries {
        // It may have done its work.
        return match run.last_end().and_then(|attempt| attempt.end.clone()) {
            Some(AttemptEnd::Unknown { why }) => Some(Outcome::Unknown { why }),
            _ => Some(Outcome::Failed),
        };
    }
    let service = state.services.get(&run.service);
    if service.is_none_or(|service| service.revision(run.revision).is_none()) {
        return unknown("its revision is not kept any more");
    }
    let deadline = run.began_at.zip(run.deadline);
    deadline
        .filter(|(began_at, span)| began_at.after(*span) <= state.now)
        .map(|_| Outcome::Deadline)
}

/// Nobody waits for the runs of schedules and hooks: one that does not succeed is alerted, and a schedule's next success.
fn alert(state: &mut State, run: &Run) {
    let has_failed = |run: &Run| {
        let outcome = run.outcome.as_ref();
        outcome.is_some_and(|it| {
            !matches!(
                it,
                Outcome::Succeeded | Outcome::Stopped | Outcome::Replaced
            )
        })
    };
    let is_scheduled = |run: &Run| matches!(run.trigger, Trigger::Schedule { .. });
    let name = &run.service;
    let job = state.jobs.get(name);
    let earlier = job.into_iter().flat_map(|job| job.runs.values().rev());
    let mut earlier = earlier.filter(|it| it.number != run.number && !it.is_active());
    let had_failed = earlier.find(|it| is_scheduled(it)).is_some_and(has_failed);
    let how = run.describe();
    match (&run.trigger, has_failed(run)) {
        (Trigger::Schedule { wall_time, .. }, true) if !had_failed => {
            let message = format!(
                "the run of job {name} at {wall_time} has not succeeded: {how}. `tucano jobs {name}` shows its output"
            );
            state.alert(AlertKind::JobFailed, format!("job {name}"), message);
        }
        (Trigger::Schedule { wall_time, .. }, false)
            if had_failed && run.outcome == Some(Outcome::Succeeded) =>
        {
            let message = format!("the run of job {name} at {wall_time} has succeeded again");
            state.alert(AlertKind::JobRecovered, format!("job {name}"), message);
        }
        (Trigger::Before | Trigger::After, true) => {
            let (key, what) = match run.trigger {
                Trigger::After => ("after", "the rollout stays"),
                _ => ("before", "the rollout does not begin"),
            };
            let message = format!(
                "`{key}` of {name} revision {} has not succeeded: {how}. It is not run again by itself, and {what}",
                run.revision
            );
            state.alert(AlertKind::HookFailed, format!("{key} of {name}"), message);
        }
        _ => {}
    }
}
