//! The progress of a deploy. It is complete when all of its processes are healthy and routed, and none of an earlier
//! revision is.

use std::time::Duration;

use tucano_api::{
    agent::ProcessState,
    ids::{Revision, ServiceName},
    state::{Deployed, ProcessView, ServiceView},
};

use super::Outcome;
use crate::state_loop::{Refused, StateHandle};

/// Restarts after which a process that is in back-off counts as failed.
const FAILED_AFTER_RESTARTS: u32 = 3;

/// The progress of a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is complete.
    Healthy,
    /// It is not complete yet, for these reasons.
    Waiting(Vec<String>),
    /// It is not expected to complete, for these reasons.
    Failed(Vec<String>),
    /// The service was reconfigured or removed.
    Superseded(String),
}

/// Waits until a deploy is complete, at most `max_wait`, and records the result in it.
///
/// # Errors
/// The controller shuts down.
pub async fn until_healthy(
    state: &StateHandle,
    mut outcome: Outcome,
    max_wait: Duration,
) -> Result<Outcome, Refused> {
    let deadline = tokio::time::Instant::now() + max_wait;
    let mut changes = state.changes();
    loop {
        changes.borrow_and_update();
        let (name, revision) = (outcome.deployed.name.clone(), outcome.deployed.revision);
        let view = state.query({
            let name = name.clone();
            move |cluster| cluster.service(&name)
        });
        let why = match progress(&name, view.await?.as_ref(), revision) {
            Progress::Healthy => {
                outcome.deployed.healthy = Some(true);
                return Ok(outcome);
            }
            Progress::Failed(why) => {
                fail(&mut outcome.deployed, why, "and keep failing");
                return Ok(outcome);
            }
            Progress::Superseded(by) => {
                supersede(&mut outcome.deployed, by);
                return Ok(outcome);
            }
            Progress::Waiting(why) => why,
        };
        let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refused::Stopping),
            Err(_) => {
                let after = humantime::format_duration(max_wait).to_string();
                fail(&mut outcome.deployed, why, &format!("after {after}"));
                return Ok(outcome);
            }
        }
    }
}

/// Waits until no node reports a process of a removed service. False if `max_wait` elapses first.
///
/// # Errors
/// The controller shuts down.
pub async fn until_gone(
    state: &StateHandle,
    name: &ServiceName,
    max_wait: Duration,
) -> Result<bool, Refused> {
    let deadline = tokio::time::Instant::now() + max_wait;
    let mut changes = state.changes();
    loop {
        changes.borrow_and_update();
        let name = name.clone();
        if state
            .query(move |cluster| cluster.existing(&name).is_empty())
            .await?
        {
            return Ok(true);
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refused::Stopping),
            Err(_) => return Ok(false),
        }
    }
}

fn fail(deployed: &mut Deployed, why: Vec<String>, when: &str) {
    deployed.healthy = Some(false);
    deployed.error = Some(format!(
        "{} revision {} is deployed, but not all of its processes are healthy {when}: {}",
        deployed.name,
        deployed.revision,
        why.join("; ")
    ));
    deployed.unhealthy = why;
    deployed.code = Some("not_healthy".to_owned());
}

fn supersede(deployed: &mut Deployed, by: String) {
    deployed.healthy = Some(false);
    let (name, revision) = (&deployed.name, deployed.revision);
    deployed.error = Some(format!(
        "{name} revision {revision} was deployed, but before it was healthy {by}"
    ));
    deployed.unhealthy = vec![by];
    deployed.code = Some("not_healthy".to_owned());
}

/// The progress of `revision`, derived from the service's state.
pub fn progress(name: &ServiceName, view: Option<&ServiceView>, revision: Revision) -> Progress {
    let Some(view) = view else {
        return Progress::Superseded(format!("{name} was removed"));
    };
    if view.configured.revision != revision {
        let newer = view.configured.revision;
        return Progress::Superseded(format!("revision {newer} was configured"));
    }
    let current: Vec<&ProcessView> = view
        .active
        .processes
        .iter()
        .filter(|process| process.current && !process.draining)
        .collect();
    let unhealthy: Vec<&ProcessView> = current
        .iter()
        .copied()
        .filter(|process| process.report.state != ProcessState::Healthy || !process.routed)
        .collect();
    let mut why: Vec<String> = unhealthy.iter().map(|process| describe(process)).collect();
    why.extend(
        view.active
            .pending
            .iter()
            .map(|pending| format!("{} pending: {}", pending.count, pending.reason)),
    );
    let stale = view
        .active
        .processes
        .iter()
        .filter(|p| !p.current && p.routed);
    why.extend(stale.map(|process| {
        format!(
            "{} on {}: of an earlier revision, still routed",
            process.report.id, process.node
        )
    }));
    let wanted = view.configured.config.concurrency as usize;
    if why.is_empty() && current.len() < wanted {
        why.push(format!(
            "{} of {wanted} processes are placed",
            current.len()
        ));
    }
    if why.is_empty() {
        return Progress::Healthy;
    }
    let has_failed = |process: &&ProcessView| {
        process.report.restarts >= FAILED_AFTER_RESTARTS
            && process.report.state == ProcessState::BackOff
    };
    let may_change = !view.active.pending.is_empty() || current.len() < wanted;
    if !may_change && !unhealthy.is_empty() && unhealthy.iter().all(has_failed) {
        return Progress::Failed(why);
    }
    Progress::Waiting(why)
}

/// `hello-3 on w1: back_off: ended with exit code 1`.
fn describe(process: &ProcessView) -> String {
    let report = &process.report;
    let state = match serde_json::to_value(report.state) {
        Ok(serde_json::Value::String(state)) => state,
        _ => format!("{:?}", report.state),
    };
    let mut text = format!("{} on {}: {state}", report.id, process.node);
    if let Some(reason) = &report.reason {
        text.push_str(&format!(": {reason}"));
    } else if let Some(exit) = &report.last_exit {
        text.push_str(&format!(": {exit}"));
    } else if report.state == ProcessState::Healthy {
        text.push_str(", not routed yet");
    }
    text
}

#[cfg(test)]
mod tests {
    use tucano_api::{
        agent::{Exit, ProcessReport},
        ids::ProcessId,
        settings::parse,
        state::{ActiveService, ConfiguredService, Pending},
        units::Timestamp,
    };

    use super::*;

    fn name() -> ServiceName {
        "hello".parse().unwrap()
    }

    fn process(number: u64, state: ProcessState) -> ProcessView {
        ProcessView {
            node: "w1".parse().unwrap(),
            current: true,
            routed: state == ProcessState::Healthy,
            draining: false,
            report: ProcessReport {
                id: ProcessId::new(&name(), number),
                service: name(),
                revision: Revision(2),
                state,
                reason: None,
                node_port: None,
                started_at: None,
                restarts: 0,
                last_exit: None,
                relaxed: Vec::new(),
                metrics: None,
                disk_used: None,
            },
        }
    }

    fn view(processes: Vec<ProcessView>) -> ServiceView {
        let image = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        ServiceView {
            configured: ConfiguredService {
                name: name(),
                revision: Revision(2),
                image,
                config: parse("x", "name = \"hello\"\nconcurrency = 2\nport = 80").unwrap(),
                configured_at: Timestamp(0),
            },
            active: ActiveService {
                name: name(),
                configured_service: String::new(),
                healthy: 0,
                processes,
                stopping: Vec::new(),
                pending: Vec::new(),
            },
        }
    }

    fn progress_of(view: &ServiceView) -> Progress {
        progress(&name(), Some(view), Revision(2))
    }

    fn crashed(number: u64, restarts: u32) -> ProcessView {
        let mut process = process(number, ProcessState::BackOff);
        process.report.restarts = restarts;
        process.report.last_exit = Some(Exit {
            code: Some(1),
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            at: Timestamp(0),
        });
        process
    }

    #[test]
    fn a_deploy_is_complete_when_all_processes_are_healthy_and_routed() {
        let healthy = |n| process(n, ProcessState::Healthy);
        assert_eq!(
            progress_of(&view(vec![healthy(1), healthy(2)])),
            Progress::Healthy
        );
        let too_few = progress_of(&view(vec![healthy(1)]));
        assert_eq!(
            too_few,
            Progress::Waiting(vec!["1 of 2 processes are placed".into()])
        );
        let mut old = healthy(0);
        old.current = false;
        let with_old = progress_of(&view(vec![old, healthy(1), healthy(2)]));
        assert!(matches!(with_old, Progress::Waiting(why) if why[0].contains("earlier revision")));
    }

    #[test]
    fn each_unhealthy_process_has_a_reason() {
        let mut starting = process(1, ProcessState::Starting);
        starting.report.reason = Some("connection refused".into());
        let mut view = view(vec![starting, crashed(3, 1)]);
        view.active.pending.push(Pending {
            cause: None,
            count: 1,
            reason: "no worker has 256 MiB left".into(),
        });
        assert_eq!(
            progress_of(&view),
            Progress::Waiting(vec![
                "hello-1 on w1: starting: connection refused".into(),
                "hello-3 on w1: back_off: ended with exit code 1".into(),
                "1 pending: no worker has 256 MiB left".into(),
            ])
        );
    }

    #[test]
    fn repeated_crashes_end_the_wait() {
        let hopeless = view(vec![process(1, ProcessState::Healthy), crashed(2, 3)]);
        assert!(matches!(progress_of(&hopeless), Progress::Failed(_)));
        let hopeful = view(vec![process(1, ProcessState::Starting), crashed(2, 3)]);
        assert!(matches!(progress_of(&hopeful), Progress::Waiting(_)));
    }

    #[test]
    fn a_newer_revision_or_a_removal_ends_the_wait() {
        let view = view(Vec::new());
        let newer = progress(&name(), Some(&view), Revision(1));
        assert_eq!(
            newer,
            Progress::Superseded("revision 2 was configured".into())
        );
        assert_eq!(
            progress(&name(), None, Revision(1)),
            Progress::Superseded("hello was removed".into())
        );
        let mut deployed = Deployed {
            name: name(),
            changed: true,
            revision: Revision(1),
            image: view.configured.image,
            warnings: Vec::new(),
            healthy: None,
            unhealthy: Vec::new(),
            error: None,
            code: None,
        };
        supersede(&mut deployed, "hello was removed".into());
        assert_eq!(
            deployed.error.as_deref(),
            Some("hello revision 1 was deployed, but before it was healthy hello was removed")
        );
    }
}
