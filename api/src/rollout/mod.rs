//! How far a deploy has come, and why it failed: judged from what the controller shows of the service. Pure, so that controller
//! and command line come to the same result.
//!
//! ```text
//!   Waiting ──▶ Healthy      every process of the revision is healthy and routed, and no earlier one is routed
//!      ├──────▶ Failed       every attempt ends in the same way: waiting longer is pointless
//!      └──────▶ Superseded   another revision was configured, or the service was removed
//! ```

mod hints;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use hints::hints;

use crate::{
    agent::ProcessState,
    ids::{NodeName, ProcessId, Revision, ServiceName},
    jobs::{Outcome, Run},
    state::{ProcessView, ServiceView},
};

/// Lines of a process's output that explain a failure.
pub const LOG_LINES: usize = 10;
/// Most processes of one failed deploy that are explained.
pub const MAX_FAILURES: usize = 3;
/// A process that was restarted this often and still fails is not expected to recover.
const MAX_RESTARTS: u32 = 3;
/// The same for attempts in a row, which include those that started nothing.
const MAX_ATTEMPTS: u32 = 5;

/// How far a deploy has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is complete.
    Healthy,
    /// It is not complete yet, for these reasons.
    Waiting(Vec<String>),
    /// It cannot be completed, for these reasons.
    Failed(Vec<String>),
    /// The service has changed since.
    Superseded(String),
}

/// Why one process of a failed deploy is not healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// Its state.
    pub state: ProcessState,
    /// Why it is in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// TCP addresses that it listens on, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub listening: Option<Vec<SocketAddr>>,
    /// The last lines of its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// What may help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// How far `revision` has come, by what the controller shows of its service.
pub fn progress(name: &ServiceName, view: Option<&ServiceView>, revision: Revision) -> Progress {
    let Some(view) = view else {
        return Progress::Superseded(format!("{name} was removed"));
    };
    if let Some(progress) = of_hook(view, revision) {
        return progress;
    }
    let newest = view.configured.revision;
    if newest != revision {
        return Progress::Superseded(format!("revision {newest} was configured"));
    }
    let current: Vec<&ProcessView> = current(view).collect();
    let unready: Vec<&ProcessView> = unready(view).collect();
    let reasons = reasons(view, current.len(), &unready);
    if reasons.is_empty() {
        return Progress::Healthy;
    }
    let wanted = view.wanted() as usize;
    let is_complete = view.active.pending.is_empty() && current.len() >= wanted;
    let is_healthy_somewhere = unready.len() < current.len();
    // While a rollout waits for its first process, there are fewer current processes than wanted.
    let is_final = is_complete || !is_healthy_somewhere;
    let fails = !unready.is_empty() && unready.iter().all(|process| keeps_failing(process));
    match is_final && fails {
        true => Progress::Failed(reasons),
        false => Progress::Waiting(reasons),
    }
}

/// Whether a revision waits for what runs before its first process, or has failed with that.
fn of_hook(view: &ServiceView, revision: Revision) -> Option<Progress> {
    let hook = view.hook.as_ref()?;
    let newest = hook.revision.max(view.configured.revision);
    if hook.after || hook.revision != revision || newest != revision {
        return None;
    }
    let run = &hook.run;
    match &run.outcome {
        Some(Outcome::Succeeded) if view.configured.revision == revision => None,
        None | Some(Outcome::Succeeded) => Some(Progress::Waiting(vec![format!(
            "`before` runs, as {}",
            run.id()
        )])),
        Some(_) => Some(Progress::Failed(vec![before_failure(run)])),
    }
}

/// `before`, hello/3, failed: ended with exit code 1`, with the last lines of its output.
pub fn before_failure(run: &Run) -> String {
    let mut text = format!(
        "`before`, {}, {}; the rollout has not begun",
        run.id(),
        run.describe()
    );
    let lines = run.last_end().map(|attempt| &attempt.last_lines);
    for line in lines.into_iter().flatten() {
        text += &format!("\n  | {line}");
    }
    text
}

/// The processes that explain a failure: of those with the same reason, one.
pub fn failing(view: &ServiceView) -> Vec<&ProcessView> {
    let mut failing: Vec<&ProcessView> = Vec::new();
    for process in unready(view) {
        let is_new = failing.iter().all(|other| {
            (other.report.state, reason(other)) != (process.report.state, reason(process))
        });
        if is_new && failing.len() < MAX_FAILURES {
            failing.push(process);
        }
    }
    failing
}

impl Failure {
    /// Why a process is not healthy, with the last lines of its output.
    pub fn new(view: &ServiceView, process: &ProcessView, log: Vec<String>) -> Self {
        let report = &process.report;
        Self {
            process: report.id.clone(),
            node: process.node.clone(),
            state: report.state,
            reason: reason(process),
            listening: report.listening.clone(),
            hints: hints(&view.configured.config, report, &log),
            log,
        }
    }
}

/// Why a process is not healthy, if that is known.
pub fn reason(process: &ProcessView) -> Option<String> {
    let report = &process.report;
    let is_healthy = report.state == ProcessState::Healthy;
    let exit = report.last_exit.filter(|_| !is_healthy);
    report.reason.clone().or(exit.map(|exit| exit.to_string()))
}

fn current(view: &ServiceView) -> impl Iterator<Item = &ProcessView> {
    let processes = view.active.processes.iter();
    processes.filter(|process| process.current && !process.draining)
}

fn unready(view: &ServiceView) -> impl Iterator<Item = &ProcessView> {
    current(view).filter(|process| {
        process.report.state != ProcessState::Healthy || !process.routed || process.changing
    })
}

fn keeps_failing(process: &ProcessView) -> bool {
    let report = &process.report;
    let often = report.restarts >= MAX_RESTARTS || report.attempts >= MAX_ATTEMPTS;
    often && report.state == ProcessState::BackOff
}

fn reasons(view: &ServiceView, current: usize, unready: &[&ProcessView]) -> Vec<String> {
    let mut reasons: Vec<String> = unready.iter().map(|process| describe(process)).collect();
    let pending = view.active.pending.iter();
    reasons.extend(pending.map(|pending| format!("{} pending: {}", pending.count, pending.reason)));
    let earlier = view.active.processes.iter();
    let earlier = earlier.filter(|process| !process.current && process.routed);
    reasons.extend(earlier.map(|process| {
        let (id, node) = (&process.report.id, &process.node);
        format!(
            "{id} on {node}: of an earlier revision, restarted, or where it may not be any more, still routed"
        )
    }));
    let wanted = view.wanted() as usize;
    if reasons.is_empty() && current < wanted {
        reasons.push(format!("{current} of {wanted} processes are placed"));
    }
    reasons
}

/// `hello-3 on w1: back_off: ended with exit code 1`.
fn describe(process: &ProcessView) -> String {
    let report = &process.report;
    let state = match serde_json::to_value(report.state) {
        Ok(serde_json::Value::String(state)) => state,
        _ => format!("{:?}", report.state),
    };
    let text = format!("{} on {}: {state}", report.id, process.node);
    match reason(process) {
        Some(reason) => format!("{text}: {reason}"),
        None if process.changing => format!("{text}, its limits or its probe are not changed yet"),
        None if report.state == ProcessState::Healthy => format!("{text}, not routed yet"),
        None => text,
    }
}
