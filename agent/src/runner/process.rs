//! One process as the runner holds it.

use std::{net::SocketAddrV4, sync::Arc, time::Duration};

use tokio::task::AbortHandle;
use tucano_api::{
    agent::{Exit, ProcessReport},
    ids::ProcessId,
    units::{Bytes, Timestamp},
};
use tucano_oci_runtime::supervisor::Running;

use super::{
    execute::Executor,
    images::Unpacked,
    lifecycle::{Actual, Change, Health, Phase, Step},
    network::Lease,
    probe::{Finding, Prober},
    state::Record,
};
use crate::clock::timestamp;

/// One process.
#[derive(Debug)]
pub struct Process {
    /// What the plan sees of it.
    pub actual: Actual,
    pub(super) lease: Option<Lease>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<Exit>,
    pub(super) reason: Option<String>,
    pub(super) image: Option<Arc<Unpacked>>,
    pub(super) running: Option<Arc<Running>>,
    /// What its file system held when it was last measured, in bytes.
    disk_used: Option<u64>,
    /// Whether it is being killed for that.
    disk_exceeded: bool,
    /// Events of earlier attempts to run it are not meant for this one.
    pub(super) attempt: u64,
    stop_signal: Option<i32>,
    tasks: Vec<AbortHandle>,
}

impl AsRef<Actual> for Process {
    fn as_ref(&self) -> &Actual {
        &self.actual
    }
}

impl Process {
    /// Of which nothing exists yet.
    pub fn new(actual: Actual) -> Self {
        Self {
            actual,
            lease: None,
            started_at: None,
            restarts: 0,
            last_exit: None,
            reason: None,
            image: None,
            running: None,
            disk_used: None,
            disk_exceeded: false,
            attempt: 0,
            stop_signal: None,
            tasks: Vec::new(),
        }
    }

    /// As an earlier agent has left it.
    pub fn adopted(record: Record, phase: Phase, running: Option<Running>) -> Self {
        let actual = Actual {
            process: record.process,
            phase,
            crashes: record.crashes,
        };
        Self {
            lease: record.lease,
            started_at: record.started_at,
            restarts: record.restarts,
            last_exit: record.last_exit,
            stop_signal: record.stop_signal,
            running: running.map(Arc::new),
            ..Self::new(actual)
        }
    }

    /// Its identity.
    pub fn id(&self) -> &ProcessId {
        &self.actual.process.id
    }

    /// What is to be kept of it on disk.
    pub fn record(&self) -> Record {
        Record {
            process: self.actual.process.clone(),
            lease: self.lease,
            started_at: self.started_at,
            restarts: self.restarts,
            crashes: self.actual.crashes,
            last_exit: self.last_exit,
            stop_signal: self.stop_signal,
            healthy: self.health() == Some(Health::Healthy),
        }
    }

    /// What the controller is told of it; `wanted` says whether the desired set still holds it.
    pub fn report(&self, wanted: bool, executor: &Executor) -> ProcessReport {
        let process = &self.actual.process;
        ProcessReport {
            id: process.id.clone(),
            service: process.config.name.clone(),
            revision: process.revision,
            state: self.actual.state(wanted),
            reason: self.reason.clone(),
            node_port: self.lease.map(|lease| lease.node_port),
            started_at: self.started_at,
            restarts: self.restarts,
            last_exit: self.last_exit,
            relaxed: executor.relaxed(&process.config),
            disk_used: self.disk_used.map(Bytes),
            metrics: None,
        }
    }

    fn health(&self) -> Option<Health> {
        match self.actual.phase {
            Phase::Running { health, .. } => Some(health),
            _ => None,
        }
    }

    /// Says why a step is taken that needs a reason.
    pub(super) fn prepare(&mut self, step: Step, wanted: bool) {
        if step == Step::Terminate && wanted {
            let grace = self.actual.process.config.health.grace;
            let probe = self
                .reason
                .take()
                .unwrap_or_else(|| "no answer to its probe".to_owned());
            self.reason = Some(format!("restarted: not healthy for {grace}: {probe}"));
        }
    }

    pub(super) fn begin_attempt(&mut self, attempt: u64, task: AbortHandle) {
        self.end_attempt(attempt);
        self.tasks.push(task);
    }

    /// Ends the tasks of the attempt so far; from now on only events of `attempt` count.
    pub(super) fn end_attempt(&mut self, attempt: u64) {
        self.abort_tasks();
        self.attempt = attempt;
    }

    pub(super) fn add_task(&mut self, task: AbortHandle) {
        self.tasks.push(task);
    }

    pub(super) fn started(&mut self, running: Arc<Running>, now: Duration) {
        if self.started_at.is_some() {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.started_at = Some(timestamp());
        self.running = Some(running);
        self.reason = None;
        (self.disk_used, self.disk_exceeded) = (None, false);
        self.actual.apply(Change::Started, now);
    }

    pub(super) fn failed(&mut self, reason: String, now: Duration) {
        self.reason = Some(reason);
        self.actual.apply(Change::Failed, now);
    }

    /// Takes what its file system holds; whether that is more than it may be, for the first time.
    pub(super) fn wrote(&mut self, bytes: u64) -> bool {
        self.disk_used = Some(bytes);
        let exceeds = self.health().is_some() && bytes > self.actual.process.config.disk.0;
        exceeds && !std::mem::replace(&mut self.disk_exceeded, true)
    }

    pub(super) fn ended(&mut self, exit: Exit, now: Duration) {
        let exit = Exit {
            disk_exceeded: self.disk_exceeded,
            ..exit
        };
        // Asked to end because it was not healthy, it ended by our signal: the reason is the better explanation.
        if !matches!(self.actual.phase, Phase::Stopping { .. }) {
            self.reason = Some(exit.to_string());
        }
        self.last_exit = Some(exit);
        self.running = None;
        self.abort_tasks();
        self.actual.apply(Change::Ended, now);
    }

    pub(super) fn probed(&mut self, finding: Finding, now: Duration) {
        if self.health().is_some() {
            self.reason = finding.reason;
            self.actual.apply(Change::Probed(finding.health), now);
        }
    }

    /// The image's StopSignal, else SIGTERM.
    pub(super) fn stop_signal(&self) -> i32 {
        self.stop_signal.unwrap_or(nix::libc::SIGTERM)
    }

    pub(super) fn pulled(&mut self, image: Arc<Unpacked>, now: Duration) {
        let config = image.config.config().as_ref();
        let name = config.and_then(|config| config.stop_signal().clone());
        self.stop_signal = name.and_then(|name| signal_number(&name));
        self.image = Some(image);
        self.actual.apply(Change::Pulled, now);
    }

    pub(super) fn prober(&self, executor: &Executor, client: reqwest::Client) -> Option<Prober> {
        let process = &self.actual.process;
        Some(Prober {
            address: SocketAddrV4::new(self.lease?.ip, process.config.port),
            config: process.config.health.clone(),
            home: executor.data.process(&process.id).home(),
            runtime: Arc::clone(&executor.runtime),
            client,
        })
    }

    fn abort_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

/// The number of `SIGTERM`, `TERM` or `15`.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let full = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    full.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(signal_number("SIGQUIT"), Some(3));
        assert_eq!(signal_number("INT"), Some(2));
        assert_eq!(signal_number("15"), Some(15));
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_number("SIGNONSENSE"), None);
    }
}
