//! Hooks of a rollout: each runs once per revision, in a process of its own.
//!
//! A revision with `before` is held back until that has succeeded: the revision before it serves on, is scaled and re-placed as ever.
//! The first revision of a service has none before it, and no process until then. `after` runs once all processes of the revision
//! are healthy and no others are left. Neither runs where no process is replaced, nor for a revision that equals an earlier one that
//! is kept: a rollback. Whether a hook whose end nobody knows did its work, a person has to find out: its rollout does not begin, and
//! another deploy of the same configuration runs it again.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{Revision, ServiceName},
    jobs::{HookView, Outcome, Trigger},
    reasons::PendingReason,
};

use super::{runs, update};
use crate::{
    model::HookRecord,
    placement,
    state::{Service, State},
};

/// The revisions whose `before` has not succeeded: one that equals them is no rollback.
pub(crate) fn undone(state: &State, name: &ServiceName) -> BTreeSet<Revision> {
    let records = records(state, name);
    let undone = records.filter(|it| !it.after && !has_succeeded(state, name, it));
    undone.map(|record| record.revision).collect()
}

/// A revision was configured whose processes are new, and that equals none before.
pub(crate) fn configured(state: &mut State, name: &ServiceName, revision: Revision) {
    let Some(service) = state.services.get(name) else {
        return;
    };
    let config = service.revision(revision).map(|record| &record.config);
    let hooks = config.map(|it| [(false, it.before.is_some()), (true, it.after.is_some())]);
    let given = hooks.into_iter().flatten().filter(|(_, given)| *given);
    let new: Vec<HookRecord> = given
        .map(|(after, _)| HookRecord {
            revision,
            after,
            run: None,
        })
        .collect();
    if !new.is_empty() {
        update(state, name, |record| record.hooks.extend(new));
    }
}

/// The newest configuration was deployed once more: a `before` that has not succeeded runs again. Whether it does.
pub(crate) fn retry(state: &mut State, name: &ServiceName) -> bool {
    let Some(newest) = state.services.get(name).map(|it| it.newest().revision) else {
        return false;
    };
    let is_over = records(state, name).any(|it| {
        let run = it.run.and_then(|number| state.jobs.run(name, number));
        let is_over = run.is_some_and(|run| !run.is_active());
        it.revision == newest && !it.after && is_over && !has_succeeded(state, name, it)
    });
    if is_over {
        update(state, name, |record| {
            let hooks = record.hooks.iter_mut();
            for hook in hooks.filter(|it| it.revision == newest && !it.after) {
                hook.run = None;
            }
        });
        state.changes.reconcile.insert(name.clone());
    }
    is_over
}

/// Why no process of the current revision is placed: its `before` has not succeeded.
pub(crate) fn gate(state: &State, name: &ServiceName) -> Option<PendingReason> {
    let current = state.services.get(name)?.current().revision;
    let mut records = records(state, name);
    let record = records.find(|it| !it.after && it.revision == current)?;
    let run = record.run.and_then(|number| state.jobs.run(name, number));
    match run {
        Some(run) if run.outcome == Some(Outcome::Succeeded) => None,
        _ => Some(PendingReason::Before {
            run: record.run.unwrap_or(0),
            problem: run
                .filter(|run| run.outcome.is_some())
                .map(|run| run.describe()),
        }),
    }
}

/// The hook that is shown: that of the revision to come, or else the last one of the current revision.
pub(crate) fn view(state: &State, service: &Service) -> Option<HookView> {
    let name = &service.record.name;
    let wanted = service.newest().revision;
    let records = records(state, name).filter(|it| it.revision == wanted);
    let with_runs = records.filter_map(|it| Some((it, state.jobs.run(name, it.run?)?)));
    let (record, run) = with_runs.last()?;
    Some(HookView {
        revision: record.revision,
        after: record.after,
        run: run.clone(),
    })
}

/// Begins what is due, one hook of a service at a time.
pub(super) fn begin(state: &mut State, name: &ServiceName) {
    forget(state, name);
    let Some(job) = state.jobs.get(name) else {
        return;
    };
    let mut active = job.runs.values().filter(|run| run.is_active());
    if active.any(|run| run.trigger.is_hook()) {
        return;
    }
    let due = job.record.hooks.iter().find(|it| it.run.is_none());
    let Some(hook) = due.cloned() else {
        return;
    };
    if hook.after && !is_complete(state, name, hook.revision) {
        return;
    }
    let trigger = match hook.after {
        true => Trigger::After,
        false => Trigger::Before,
    };
    let number = runs::create(state, name, trigger, None);
    update(state, name, |record| {
        let hooks = record.hooks.iter_mut();
        for it in hooks.filter(|it| it.revision == hook.revision && it.after == hook.after) {
            it.run = Some(number);
        }
    });
}

/// The revision that was held back becomes the current one once its `before` has succeeded.
pub(super) fn settle(state: &mut State, name: &ServiceName) {
    let upcoming = state.services.get(name).and_then(|it| it.record.upcoming);
    if let Some(upcoming) = upcoming {
        let done = records(state, name)
            .find(|it| !it.after && it.revision == upcoming)
            .is_none_or(|it| has_succeeded(state, name, it));
        if done && let Some(service) = state.services.get_mut(name) {
            service.promote();
            changed(state, name);
        }
    }
    let in_use: BTreeSet<Revision> = super::revisions_in_use(state, name).collect();
    if let Some(service) = state.services.get_mut(name)
        && service.forget_held(&in_use)
    {
        state.changes.services.insert(name.clone());
    }
}

fn changed(state: &mut State, name: &ServiceName) {
    state.changes.services.insert(name.clone());
    state.changes.prune.insert(name.clone());
    state.changes.reconcile.insert(name.clone());
    state.changes.reroute.insert(name.clone());
}

/// Hooks of revisions that are not kept any more, and those that no longer come before anything.
fn forget(state: &mut State, name: &ServiceName) {
    let Some(service) = state.services.get(name) else {
        return;
    };
    let newest = service.newest().revision;
    let kept: BTreeSet<Revision> = service
        .record
        .revisions
        .iter()
        .map(|it| it.revision)
        .chain(service.record.upcoming)
        .collect();
    let is_kept = |hook: &HookRecord| {
        let is_past = hook.run.is_none() && hook.revision < newest;
        kept.contains(&hook.revision) && !is_past
    };
    if records(state, name).all(is_kept) {
        return;
    }
    update(state, name, |record| record.hooks.retain(is_kept));
}

/// Whether the rollout of a revision is complete.
fn is_complete(state: &State, name: &ServiceName, revision: Revision) -> bool {
    let Some(service) = state.services.get(name) else {
        return false;
    };
    if service.current().revision != revision || service.upcoming().is_some() {
        return false;
    }
    let inventory = placement::inventory(state, name);
    let is_full = inventory.current.len() == service.concurrency() && inventory.starting() == 0;
    is_full && inventory.old.is_empty() && gate(state, name).is_none()
}

fn has_succeeded(state: &State, name: &ServiceName, record: &HookRecord) -> bool {
    let run = record.run.and_then(|number| state.jobs.run(name, number));
    run.is_some_and(|run| run.outcome == Some(Outcome::Succeeded))
}

fn records<'a>(
    state: &'a State,
    name: &ServiceName,
) -> impl Iterator<Item = &'a HookRecord> + use<'a> {
    let job = state.jobs.get(name).into_iter();
    job.flat_map(|job| &job.record.hooks)
}
