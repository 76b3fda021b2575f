//! Waits until a service is healthy, reports each change of its processes, and explains a failure.

mod log;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, Instant};

use tucano_api::{
    agent::ProcessState,
    ids::{Revision, ServiceName},
    rollout::{self, Failure, LOG_LINES, Progress},
    state::{ProcessView, ServiceView},
    units::Span,
};

use crate::{Error, client::Client, output};
use log::ProgressLog;

pub use rollout::reason as why;

/// Time between two requests.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until all processes of `revision` are healthy and no other process of the service is left. Reports each change.
///
/// # Errors
/// [`Error::NotHealthy`] with each process that is not healthy, and why: after `timeout`, or as soon as waiting is pointless.
pub async fn until_healthy(
    client: &Client,
    name: &ServiceName,
    revision: Revision,
    timeout: Duration,
) -> Result<ServiceView, Error> {
    let deadline = Instant::now() + timeout;
    let mut log = ProgressLog::default();
    loop {
        let view: ServiceView = client.get(&format!("/v1/services/{name}")).await?;
        let when = match rollout::progress(name, Some(&view), revision) {
            Progress::Superseded(_) => {
                let newer = view.configured.revision;
                let message = format!(
                    "revision {revision} of {name} was replaced by revision {newer} before it was healthy"
                );
                let failures = Vec::new();
                return Err(Error::NotHealthy { message, failures });
            }
            Progress::Healthy if !has_leftovers(&view) => {
                report_changes(&mut log, &view);
                return Ok(view);
            }
            Progress::Failed(why) if has_failed_before(&view, revision) => {
                let (message, failures) = (why.join("; "), Vec::new());
                return Err(Error::NotHealthy { message, failures });
            }
            Progress::Failed(_) => Some("and keep failing".to_owned()),
            _ if Instant::now() >= deadline => Some(format!("after {}", Span(timeout))),
            _ => None,
        };
        report_changes(&mut log, &view);
        if let Some(when) = when {
            let message = failure_message(&view, &when);
            let failures = failures(client, &view).await;
            return Err(Error::NotHealthy { message, failures });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether the rollout has not begun, since what runs before it has not succeeded.
fn has_failed_before(view: &ServiceView, revision: Revision) -> bool {
    let hook = view.hook.as_ref();
    let failed = |hook: &&tucano_api::jobs::HookView| {
        let outcome = hook.run.outcome.as_ref();
        !hook.after && outcome.is_some_and(|it| *it != tucano_api::jobs::Outcome::Succeeded)
    };
    hook.filter(failed)
        .is_some_and(|hook| hook.revision == revision)
}

fn report_changes(log: &mut ProgressLog, view: &ServiceView) {
    for line in log.changes(view) {
        output::status(&line);
    }
}

/// Whether processes that are not wanted any more have not been told to end yet.
fn has_leftovers(view: &ServiceView) -> bool {
    let processes = view.active.processes.iter();
    let mut others = processes.filter(|process| !process.current || process.draining);
    others.any(|process| process.report.state != ProcessState::Stopping)
}

/// The failing processes, with the last lines of their output as far as it can be had.
async fn failures(client: &Client, view: &ServiceView) -> Vec<Failure> {
    let mut failures = Vec::new();
    for process in rollout::failing(view) {
        let id = &process.report.id;
        let path = format!("/v1/processes/{id}/logs?stream=both&tail={LOG_LINES}");
        let text = client.get_text(&path).await.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        let last = last.iter().map(|line| (*line).to_owned()).collect();
        failures.push(Failure::new(view, process, last));
    }
    failures
}

fn failure_message(view: &ServiceView, when: &str) -> String {
    let name = &view.configured.name;
    let processes = &view.active.processes;
    let current = processes.iter().filter(|process| process.current);
    let unready = current.filter(|process| !is_ready(process)).map(describe);
    let pending = view.active.pending.iter();
    let pending = pending.map(|pending| format!("{} pending: {}", pending.count, pending.reason));
    let reasons: Vec<String> = unready.chain(pending).collect();
    let healthy = processes.iter().filter(|process| is_ready(process)).count();
    let earlier = processes
        .iter()
        .filter(|process| !process.current && process.routed)
        .count();
    let earlier = match earlier {
        0 => String::new(),
        1 => "; 1 process that is to be replaced still serves requests".to_owned(),
        count => format!("; {count} processes that are to be replaced still serve requests"),
    };
    format!(
        "{healthy} of {} processes of {name} are healthy {when}{}{}{earlier}",
        view.wanted(),
        if reasons.is_empty() { "" } else { ": " },
        reasons.join(", ")
    )
}

fn is_ready(process: &ProcessView) -> bool {
    process.current && !process.draining && process.report.state == ProcessState::Healthy
}

fn describe(process: &ProcessView) -> String {
    let report = &process.report;
    let why = why(process).map(|why| format!(" ({why})"));
    let (node, state) = (&process.node, state_name(report.state));
    format!(
        "{} on {node} is {state}{}",
        report.id,
        why.unwrap_or_default()
    )
}

/// A state in words.
pub fn state_name(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Assigned => "assigned",
        ProcessState::Pulling => "pulling",
        ProcessState::Starting => "starting",
        ProcessState::Healthy => "healthy",
        ProcessState::Unhealthy => "unhealthy",
        ProcessState::BackOff => "backing off",
        ProcessState::Stopping => "stopping",
        ProcessState::Ended => "ended",
    }
}

/// Several lines for a person: each process with its reason, its last lines of output, and what may help.
pub fn explain(failures: &[Failure]) -> String {
    let mut text = String::new();
    for failure in failures {
        let reason = failure.reason.as_deref().unwrap_or("no reason is known");
        let state = state_name(failure.state);
        text += &format!(
            "\n{} on {} is {state}: {reason}\n",
            failure.process, failure.node
        );
        for line in &failure.log {
            text += &format!("  | {}\n", crate::table::printable(line));
        }
        for hint in &failure.hints {
            text += &format!("  hint: {hint}\n");
        }
    }
    text
}
