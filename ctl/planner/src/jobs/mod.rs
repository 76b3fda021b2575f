//! What runs to completion: the runs of jobs, of hooks, and those that somebody asks for.
//!
//! - [`ticks`]: when a job's schedule begins a run; each tick is decided about once.
//! - [`overlap`]: which run waits for which.
//! - [`runs`]: the life of a run; [`attempts`]: that of its processes.
//! - [`hooks`]: what runs before the first process of a revision, and after its rollout.
//! - [`requests`]: runs that are asked for, and stopped. [`views`]: what is shown. [`adopted`]: of another controller.
//!
//! A run is recorded in the step that places its first process, and its processes are never placed again on suspicion: while their
//! worker is missing they are taken to run there. Where a worker is dead or has left, nobody can tell how they ended, and that counts
//! as a failure. What has ended is not begun again, whatever a later report says.

pub(crate) mod adopted;
mod attempts;
pub(crate) mod hooks;
mod overlap;
pub(crate) mod requests;
mod runs;
mod ticks;
pub(crate) mod views;

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::{NodeName, Revision, ServiceName},
    jobs::Run,
    reasons::PendingReason,
    units::Timestamp,
};

use crate::{
    lifecycle,
    model::JobRecord,
    state::{Service, State},
};

/// The runs of a service.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) record: JobRecord,
    pub(crate) runs: BTreeMap<u64, Run>,
    /// Why a process of an active run is not placed.
    pending: Option<PendingReason>,
    due: Option<Timestamp>,
}

/// The runs of all services, and when something is due for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs {
    all: BTreeMap<ServiceName, Job>,
    due: BTreeSet<(Timestamp, ServiceName)>,
}

impl Job {
    fn new(record: JobRecord) -> Self {
        Self {
            record,
            runs: BTreeMap::new(),
            pending: None,
            due: None,
        }
    }

    /// The numbers of the runs that have not ended, oldest first.
    fn active(&self) -> Vec<u64> {
        let active = self.runs.values().filter(|run| run.is_active());
        active.map(|run| run.number).collect()
    }
}

impl Jobs {
    /// Those of one service.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<&Job> {
        self.all.get(name)
    }

    /// A run.
    pub(crate) fn run(&self, name: &ServiceName, number: u64) -> Option<&Run> {
        self.all.get(name)?.runs.get(&number)
    }

    /// All records, ordered by service.
    pub(crate) fn records(&self) -> impl Iterator<Item = &JobRecord> {
        self.all.values().map(|job| &job.record)
    }

    /// All runs, ordered by service and number.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.all.values().flat_map(|job| job.runs.values())
    }

    /// Whether a process of a service waits for a place.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &ServiceName> {
        let waiting = self.all.iter().filter(|(_, job)| job.pending.is_some());
        waiting.map(|(name, _)| name)
    }

    fn set_due(&mut self, name: &ServiceName, due: Option<Timestamp>) {
        let Some(job) = self.all.get_mut(name) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut job.due, due) {
            self.due.remove(&(before, name.clone()));
        }
        if let Some(due) = due {
            self.due.insert((due, name.clone()));
        }
    }
}

/// Adds what was recorded.
pub(crate) fn load(state: &mut State, records: Vec<JobRecord>, runs: Vec<Run>) {
    for record in records {
        let name = record.service.clone();
        state.jobs.all.insert(name, Job::new(record));
    }
    for mut run in runs {
        if run.is_active() && runs::clamp(&mut run, state.now) {
            let changed = (run.service.clone(), run.number);
            state.changes.runs.insert(changed);
        }
        // Without a service nothing of it can run.
        if !state.services.contains_key(&run.service) {
            state.changes.runs.insert((run.service.clone(), run.number));
            continue;
        }
        let job = entry(state, &run.service.clone());
        job.record.last_run = job.record.last_run.max(run.number);
        job.runs.insert(run.number, run);
    }
    let gone = state.jobs.all.keys();
    let gone = gone.filter(|name| !state.services.contains_key(name));
    for name in gone.cloned().collect::<Vec<_>>() {
        state.jobs.all.remove(&name);
        state.changes.jobs.insert(name);
    }
}

/// When something is due next.
pub(crate) fn next_deadline(state: &State) -> Option<Timestamp> {
    state.jobs.due.first().map(|(time, _)| *time)
}

/// Has the services reconciled for which something is due.
pub(crate) fn expire(state: &mut State) {
    while let Some((time, name)) = state.jobs.due.first().cloned() {
        if time > state.now {
            return;
        }
        state.jobs.set_due(&name, None);
        state.changes.reconcile.insert(name);
    }
}

/// Brings the runs of a service nearer to their end.
pub(crate) fn advance(state: &mut State, name: &ServiceName) {
    let Some(service) = state.services.get(name) else {
        return;
    };
    if !state.jobs.all.contains_key(name) && !service.current().config.is_job() {
        return;
    }
    ticks::claim(state, name);
    hooks::begin(state, name);
    let active = state.jobs.get(name).map(Job::active).unwrap_or_default();
    let mut pending = None;
    for number in active {
        pending = runs::advance(state, name, number).or(pending);
    }
    hooks::settle(state, name);
    prune(state, name);
    let due = next_due(state, name);
    if let Some(job) = state.jobs.all.get_mut(name) {
        job.pending = pending;
    }
    state.jobs.set_due(name, due);
}

/// Takes in a process's part of a report, `None` if the report does not name it.
pub(crate) fn observe(state: &mut State, number: u64, report: Option<ProcessReport>) {
    let Some(process) = state.processes.get_mut(&number) else {
        return;
    };
    let key = |report: &Option<ProcessReport>| {
        let report = report.as_ref();
        report.map(|it| (it.state, it.started_at.is_some()))
    };
    let is_news = key(&process.report) != key(&report)
        || report
            .as_ref()
            .is_some_and(|it| it.state == ProcessState::Ended);
    process.report = report;
    if is_news {
        let name = process.record.service.clone();
        state.changes.reconcile.insert(name);
    }
}

/// A service was removed, with all its processes.
pub(crate) fn remove(state: &mut State, name: &ServiceName) {
    state.jobs.set_due(name, None);
    let Some(job) = state.jobs.all.remove(name) else {
        return;
    };
    let runs = job.runs.into_keys().map(|number| (name.clone(), number));
    state.changes.runs.extend(runs);
    state.changes.jobs.insert(name.clone());
}

/// The condition of a worker has changed: what is known of the processes on it may have, too.
pub(crate) fn node_changed(state: &mut State, node: &NodeName) {
    let on_node = state.jobs.runs().filter(|run| run.is_active());
    let on_node = on_node.filter(|run| run.active().any(|attempt| attempt.node == *node));
    let names: Vec<ServiceName> = on_node.map(|run| run.service.clone()).collect();
    state.changes.reconcile.extend(names);
}

/// A worker has left: its processes are not desired there any more.
pub(crate) fn node_left(state: &mut State, index: usize) {
    for number in std::mem::take(&mut state.nodes[index].runs) {
        state.nodes[index].runs.insert(number);
        lifecycle::remove(state, number);
    }
    let name = state.nodes[index].record.name.clone();
    node_changed(state, &name);
}

/// The revisions that active runs are of.
pub(crate) fn revisions_in_use<'a>(
    state: &'a State,
    name: &ServiceName,
) -> impl Iterator<Item = Revision> + use<'a> {
    let runs = state.jobs.get(name).into_iter();
    let runs = runs.flat_map(|job| job.runs.values());
    runs.filter(|run| run.is_active()).map(|run| run.revision)
}

/// The runs of a service, which are created with the first one.
fn entry<'a>(state: &'a mut State, name: &ServiceName) -> &'a mut Job {
    let jobs = state.jobs.all.entry(name.clone());
    jobs.or_insert_with(|| Job::new(JobRecord::new(name.clone())))
}

/// Changes what is recorded of a service's runs.
fn update(state: &mut State, name: &ServiceName, change: impl FnOnce(&mut JobRecord)) {
    let job = entry(state, name);
    let before = job.record.clone();
    change(&mut job.record);
    if job.record != before {
        state.changes.jobs.insert(name.clone());
    }
}

/// Drops the oldest runs that have ended, beyond those to keep. Those of hooks that count stay.
fn prune(state: &mut State, name: &ServiceName) {
    let kept = state.settings.runs_kept.max(1);
    let Some(job) = state.jobs.all.get_mut(name) else {
        return;
    };
    let hooks: BTreeSet<u64> = job.record.hooks.iter().filter_map(|it| it.run).collect();
    let ended = job.runs.values().filter(|run| !run.is_active());
    let ended: Vec<u64> = ended
        .map(|run| run.number)
        .filter(|number| !hooks.contains(number))
        .collect();
    for number in ended.iter().take(ended.len().saturating_sub(kept)) {
        job.runs.remove(number);
        state.changes.runs.insert((name.clone(), *number));
    }
}

fn next_due(state: &State, name: &ServiceName) -> Option<Timestamp> {
    let service = state.services.get(name)?;
    let job = state.jobs.get(name)?;
    let runs = job.runs.values().filter(|run| run.is_active());
    let of_runs = runs.filter_map(|run| runs::due(state, run));
    let tick = ticks::next(service, job);
    let due = of_runs.chain(tick).min();
    // What was due has been done, as far as it can be.
    due.filter(|due| *due > state.now)
}

/// Whether a service is a job.
pub(crate) fn is_job(service: &Service) -> bool {
    service.current().config.is_job()
}
