//! The processes of a run:
//!
//! ```text
//! start ──> placed ──(reports)──> started ──> ended      removed from the desired set once its end is recorded
//!              │                     ├──────> unknown    its worker is dead or has left
//!              └──── stop ──> stopping ─────> stopped    gone by its agent's report
//! ```

use std::collections::BTreeSet;

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::ProcessId,
    jobs::{Attempt, AttemptEnd, MAX_ATTEMPTS, Run},
    reasons::PendingReason,
    service::AssignedDevice,
    state::NodeCondition,
};

use super::runs;
use crate::{
    devices::{self, Holders},
    lifecycle,
    model::{CrashHistory, ProcessRecord, RevisionRecord},
    placement,
    rules::Rules,
    state::{Process, Resources, State},
};

/// What became of the processes that may run.
pub(super) fn collect(state: &mut State, run: &mut Run) {
    for index in 0..run.attempts.len() {
        let attempt = &run.attempts[index];
        if !attempt.is_active() {
            continue;
        }
        match found(state, attempt) {
            Found::Running => {}
            Found::Started => {
                run.attempts[index].started_at = Some(state.now);
                // Its agent must not start it again.
                let node = run.attempts[index].node.clone();
                state.changes.reassign.insert(node);
            }
            Found::Ended(end, report) => {
                let number = run.attempts[index].process.number();
                if let Some(report) = report {
                    take_report(&mut run.attempts[index], *report);
                }
                lifecycle::remove(state, number);
                ended(state, run, index, end);
            }
        }
    }
    forget(run);
}

/// Takes the processes out of the desired sets.
pub(super) fn stop(state: &mut State, run: &mut Run) {
    let active = run.attempts.iter_mut().filter(|it| it.is_active());
    for attempt in active.filter(|attempt| !attempt.stopping) {
        attempt.stopping = true;
        if state.process(&attempt.process).is_some() {
            lifecycle::remove(state, attempt.process.number());
        }
    }
    // Those that nothing can be left of.
    collect(state, run);
}

/// Places as many processes as the run may have. Returns why one more is not placed.
pub(super) fn start(state: &mut State, run: &mut Run) -> Option<PendingReason> {
    let is_due = run.retry_at.is_none_or(|at| at <= state.now);
    if run.began_at.is_none() || !is_due {
        return None;
    }
    run.retry_at = None;
    let revision = state.services.get(&run.service)?.revision(run.revision)?;
    let (revision, config) = (
        revision.clone(),
        revision.config.for_run(run.command.as_deref()),
    );
    loop {
        let busy: BTreeSet<u32> = run.active().map(|attempt| attempt.task).collect();
        if busy.len() >= run.parallelism as usize {
            return None;
        }
        let mut tasks = 1..=run.completions;
        let task = tasks.find(|task| !run.done.contains(task) && !busy.contains(task))?;
        let counts = spread(state, run);
        let rules = Rules::new(state, &config).with_image(&revision);
        let Some(node) = placement::choose(state, &rules, &counts) else {
            let all: Vec<usize> = (0..state.nodes.len()).collect();
            return Some(placement::why_not(state, &rules, &all, 0));
        };
        let devices = devices::allot(state, node, &config, Holders::All).unwrap_or_default();
        let process = place(state, run, &revision, node, devices);
        run.attempts.push(Attempt {
            process,
            task,
            node: state.nodes[node].record.name.clone(),
            placed_at: state.now,
            started_at: None,
            stopping: false,
            ended_at: None,
            end: None,
            memory_peak: None,
            last_lines: Vec::new(),
        });
    }
}

enum Found {
    /// Nothing new is known.
    Running,
    /// It was started.
    Started,
    /// It is known how it ended, or that nobody can tell.
    Ended(AttemptEnd, Option<Box<ProcessReport>>),
}

fn found(state: &State, attempt: &Attempt) -> Found {
    let unknown = |why: String| Found::Ended(AttemptEnd::Unknown { why }, None);
    let node = &attempt.node;
    let Some(process) = state.process(&attempt.process) else {
        return match (is_gone(state, attempt), attempt.stopping) {
            (false, _) => Found::Running,
            (true, true) => Found::Ended(AttemptEnd::Stopped, None),
            (true, false) => unknown(format!("its worker {node} is not there any more")),
        };
    };
    if state.nodes[process.node].record.condition == NodeCondition::Dead {
        return unknown(format!("its worker {node} is dead"));
    }
    let Some(report) = &process.report else {
        return Found::Running;
    };
    match report.state {
        ProcessState::Ended => Found::Ended(end_of(report), Some(Box::new(report.clone()))),
        ProcessState::Starting | ProcessState::Healthy | ProcessState::Unhealthy
            if attempt.started_at.is_none() =>
        {
            Found::Started
        }
        _ => Found::Running,
    }
}

fn end_of(report: &ProcessReport) -> AttemptEnd {
    let why = || report.reason.clone();
    match report.last_exit {
        Some(exit) if (exit.code, exit.signal) != (None, None) => AttemptEnd::Exited { exit },
        // Its agent knows that it has ended, and not how.
        Some(_) => AttemptEnd::Unknown {
            why: why().unwrap_or_else(|| "its worker does not know how it ended".to_owned()),
        },
        None if report.started_at.is_some() => AttemptEnd::Unknown {
            why: why().unwrap_or_else(|| "its worker does not know how it ended".to_owned()),
        },
        None => AttemptEnd::NotStarted {
            why: why().unwrap_or_else(|| "no reason is known".to_owned()),
        },
    }
}

fn take_report(attempt: &mut Attempt, report: ProcessReport) {
    let metrics = report.metrics.as_ref().map(|it| it.memory_peak);
    let exit = report.last_exit.and_then(|exit| exit.memory_peak);
    attempt.memory_peak = exit.or(metrics).filter(|peak| peak.0 > 0);
    attempt.started_at = report.started_at.or(attempt.started_at);
    attempt.last_lines = report.last_lines;
}

fn ended(state: &State, run: &mut Run, index: usize, end: AttemptEnd) {
    let attempt = &mut run.attempts[index];
    attempt.ended_at = Some(state.now);
    if end.is_success() {
        run.done.insert(attempt.task);
    } else if end != AttemptEnd::Stopped && !attempt.stopping {
        run.failures = run.failures.saturating_add(1);
        run.retry_at = Some(state.now.after(runs::pause(run.failures)));
    }
    attempt.end = Some(end);
}

/// Whether nothing of a process that is not desired can be left, as far as anybody can tell.
fn is_gone(state: &State, attempt: &Attempt) -> bool {
    let Some(index) = state.node_index.get(&attempt.node) else {
        return true;
    };
    let node = &state.nodes[*index];
    if node.record.condition == NodeCondition::Dead {
        return true;
    }
    let mut undesired = node.undesired.iter().chain(&node.unconfirmed);
    let exists = undesired.any(|it| it.report.id == attempt.process);
    let reassigned = state.changes.reassign.contains(&node.record.name);
    node.is_alive() && node.is_surveyed && !exists && !reassigned
}

/// The oldest processes that have ended are forgotten.
fn forget(run: &mut Run) {
    let ended = run.attempts.iter().filter(|it| !it.is_active()).count();
    let mut surplus = ended.saturating_sub(MAX_ATTEMPTS);
    run.attempts.retain(|attempt| {
        let is_forgotten = surplus > 0 && !attempt.is_active();
        surplus -= usize::from(is_forgotten);
        !is_forgotten
    });
}

/// How many processes of the run are on each worker.
fn spread(state: &State, run: &Run) -> Vec<u32> {
    let mut counts = vec![0; state.nodes.len()];
    for attempt in run.active() {
        if let Some(index) = state.node_index.get(&attempt.node) {
            counts[*index] += 1;
        }
    }
    counts
}

fn place(
    state: &mut State,
    run: &Run,
    revision: &RevisionRecord,
    node: usize,
    devices: Vec<AssignedDevice>,
) -> ProcessId {
    state.counters.last_process = state.counters.last_process.saturating_add(1);
    let number = state.counters.last_process;
    let worker = state.nodes[node].record.name.clone();
    let process = Process {
        record: ProcessRecord {
            id: ProcessId::new(&run.service, number),
            service: run.service.clone(),
            revision: run.revision,
            node: worker.clone(),
            slot: None,
            replaces: None,
            draining_since: None,
            crashes: CrashHistory::default(),
            run: Some(run.number),
            devices,
        },
        node,
        reserved: Resources::of(&revision.config),
        report: None,
        healthy_since: None,
        at_pids_limit: None,
        was_routed: false,
    };
    let id = process.record.id.clone();
    if let Some(service) = state.services.get_mut(&run.service) {
        service.runs.insert(number);
    }
    state.nodes[node].reserve_for_run(number, process.reserved);
    state.counters.last_placed_on = Some(worker.clone());
    state.changes.counters = true;
    state.changes.processes.insert(id.clone());
    state.changes.reassign.insert(worker);
    state.processes.insert(number, process);
    id
}
