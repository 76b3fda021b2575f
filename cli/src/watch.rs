//! A service's way to healthy, told as it happens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::{Revision, ServiceName},
    state::{ProcessView, ServiceView},
};

use crate::{Error, client::Client, output};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until all processes of `revision` are healthy and nothing else of the service is left, and says each change on
/// the way.
///
/// # Errors
/// [`Error::NotHealthy`] with every process that is not healthy and why, when time is up.
pub async fn until_healthy(
    client: &Client,
    name: &ServiceName,
    revision: Revision,
    patience: Duration,
) -> Result<ServiceView, Error> {
    let deadline = Instant::now() + patience;
    let mut teller = Teller::default();
    loop {
        let view: ServiceView = client.get(&format!("/v1/services/{name}")).await?;
        if view.configured.revision > revision {
            let message = format!(
                "revision {revision} of {name} was replaced by revision {} while it was awaited",
                view.configured.revision
            );
            return Err(Error::NotHealthy(message));
        }
        teller
            .news(&view)
            .iter()
            .for_each(|line| output::talk(line));
        if is_settled(&view) {
            return Ok(view);
        }
        if Instant::now() >= deadline {
            return Err(Error::NotHealthy(complaint(&view, patience)));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether exactly what is configured runs, healthy.
fn is_settled(view: &ServiceView) -> bool {
    let wanted = view.configured.config.concurrency as usize;
    let processes = &view.active.processes;
    processes.len() == wanted && processes.iter().all(is_good) && view.active.pending.is_empty()
}

fn is_good(process: &ProcessView) -> bool {
    process.current && !process.draining && process.report.state == ProcessState::Healthy
}

fn complaint(view: &ServiceView, patience: Duration) -> String {
    let name = &view.configured.name;
    let current = view
        .active
        .processes
        .iter()
        .filter(|process| process.current);
    let processes = current.filter(|process| !is_good(process)).map(describe);
    let pending = view
        .active
        .pending
        .iter()
        .map(|pending| format!("{} pending: {}", pending.count, pending.reason));
    let reasons: Vec<String> = processes.chain(pending).collect();
    let healthy = view
        .active
        .processes
        .iter()
        .filter(|process| is_good(process))
        .count();
    format!(
        "{healthy} of {} processes of {name} are healthy after {}{}{}; see `tucano logs {name}`",
        view.configured.config.concurrency,
        tucano_api::units::Span(patience),
        if reasons.is_empty() { "" } else { ": " },
        reasons.join(", ")
    )
}

fn describe(process: &ProcessView) -> String {
    let ProcessReport { id, state, .. } = &process.report;
    let why = why(process)
        .map(|why| format!(" ({why})"))
        .unwrap_or_default();
    format!("{id} on {} is {}{why}", process.node, word(*state))
}

/// Why a process is not healthy, as far as it is known.
pub fn why(process: &ProcessView) -> Option<String> {
    let report = &process.report;
    let last_exit = || {
        report
            .last_exit
            .filter(|_| report.state != ProcessState::Healthy)
            .map(|exit| exit.to_string())
    };
    report.reason.clone().or_else(last_exit)
}

/// A state in a word.
pub fn word(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Assigned => "assigned",
        ProcessState::Pulling => "pulling",
        ProcessState::Starting => "starting",
        ProcessState::Healthy => "healthy",
        ProcessState::Unhealthy => "unhealthy",
        ProcessState::BackOff => "backing off",
        ProcessState::Stopping => "stopping",
    }
}

/// Remembers what it has said, and says only what is new.
#[derive(Debug, Default)]
struct Teller {
    said: BTreeMap<String, String>,
}

impl Teller {
    fn news(&mut self, view: &ServiceView) -> Vec<String> {
        let mut now = BTreeMap::new();
        for process in &view.active.processes {
            now.insert(process.report.id.to_string(), describe(process));
        }
        for pending in &view.active.pending {
            let line = format!("{} not placed yet: {}", pending.count, pending.reason);
            now.insert(format!("~{}", pending.reason), line);
        }
        let gone = self
            .said
            .keys()
            .filter(|id| !id.starts_with('~') && !now.contains_key(*id));
        let mut news: Vec<String> = gone.map(|id| format!("{id} is gone")).collect();
        news.extend(
            now.iter()
                .filter(|(id, line)| self.said.get(*id) != Some(line))
                .map(|(_, line)| line.clone()),
        );
        self.said = now;
        news
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A service with these processes, each a node and a state.
    pub(crate) fn service(processes: &[(&str, &str)]) -> ServiceView {
        let views: Vec<_> = processes
            .iter()
            .zip(1..)
            .map(|((node, state), number)| process(number, node, state))
            .collect();
        let digest = format!("sha256:{}", "ab".repeat(32));
        serde_json::from_value(serde_json::json!({
            "configured": {
                "name": "hello", "revision": 3, "image": digest, "configured_at": 0,
                "config": { "name": "hello", "concurrency": 2, "port": 8080 },
            },
            "active": {
                "name": "hello", "configured_service": "/v1/configured_services/hello",
                "healthy": processes.iter().filter(|(_, state)| *state == "healthy").count(),
                "processes": views, "pending": [],
            },
        }))
        .unwrap()
    }

    fn process(number: u64, node: &str, state: &str) -> serde_json::Value {
        serde_json::json!({
            "node": node, "current": true, "routed": state == "healthy", "draining": false,
            "id": format!("hello-{number}"), "service": "hello", "revision": 3, "state": state, "restarts": 0,
        })
    }

    #[test]
    fn each_change_is_said_once() {
        let mut teller = Teller::default();
        let before = service(&[("w1", "starting"), ("w2", "starting")]);
        assert_eq!(
            teller.news(&before),
            ["hello-1 on w1 is starting", "hello-2 on w2 is starting"]
        );
        assert!(teller.news(&before).is_empty());
        let after = service(&[("w1", "healthy")]);
        assert_eq!(
            teller.news(&after),
            ["hello-2 is gone", "hello-1 on w1 is healthy"]
        );
    }

    #[test]
    fn settled_means_all_and_only_healthy_current_processes() {
        assert!(is_settled(&service(&[
            ("w1", "healthy"),
            ("w2", "healthy")
        ])));
        assert!(!is_settled(&service(&[("w1", "healthy")])));
        assert!(!is_settled(&service(&[
            ("w1", "healthy"),
            ("w2", "starting")
        ])));
        assert!(!is_settled(&service(&[
            ("w1", "healthy"),
            ("w2", "healthy"),
            ("w3", "healthy")
        ])));
        let mut old = service(&[("w1", "healthy"), ("w2", "healthy")]);
        old.active.processes[0].current = false;
        assert!(!is_settled(&old));
    }

    #[test]
    fn the_complaint_names_each_process_and_why() {
        let mut view = service(&[("w1", "healthy"), ("w2", "back_off")]);
        view.active.processes[1].report.reason = Some("ended with exit code 1".to_owned());
        let text = complaint(&view, Duration::from_secs(90));
        assert_eq!(
            text,
            "1 of 2 processes of hello are healthy after 1m 30s: hello-2 on w2 is backing off (ended with exit code 1); \
             see `tucano logs hello`"
        );
    }
}
