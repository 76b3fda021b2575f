//! The runner's state of one process.

use std::{net::SocketAddr, time::Duration};

use tokio::task::AbortHandle;
use tucano_api::{
    agent::{DesiredProcess, Exit, ProcessReport},
    ids::ProcessId,
    units::{Bytes, Timestamp},
};

use super::{
    images::ProcessImages,
    lifecycle::{Actual, Change, Health, Phase, Resize, Step},
    listening, live_changes,
    live_changes::probes_differ,
    network::{Exhausted, FurtherPorts, Lease, by_name},
    node::Node,
    probe::Finding,
    state::Record,
};
use crate::clock::timestamp;

/// One process, in any phase of its life.
#[derive(Debug)]
pub struct Process {
    /// The plan's view of it.
    pub actual: Actual,
    pub(super) lease: Option<Lease>,
    /// Ports of the node beyond the one of the lease.
    pub(super) ports: FurtherPorts,
    pub(super) started_at: Option<Timestamp>,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<Exit>,
    /// The last lines of its output, where it belongs to a run and has ended.
    pub(super) last_lines: Vec<String>,
    pub(super) reason: Option<String>,
    pub(super) images: Option<ProcessImages>,
    /// Whether it has a container that was started and has not ended.
    pub(super) is_launched: bool,
    /// Pid of its container's first process, while that is known to run.
    pid: Option<i32>,
    /// Last measured disk usage, in bytes.
    disk_used: Option<u64>,
    /// Whether it is being killed for its disk usage.
    disk_exceeded: bool,
    /// Number of the current attempt to run it; events of earlier ones are ignored.
    pub(super) attempt: u64,
    stop_signal: Option<i32>,
    tasks: Vec<AbortHandle>,
    probe: Option<AbortHandle>,
    /// The task that tries the desired probe, and the desired process that it has it from.
    probe_trial: Option<(DesiredProcess, AbortHandle)>,
    /// Why the desired probe is not in use.
    probe_refusal: Option<String>,
    /// The desired process whose limits were refused, and why.
    resize_refusal: Option<(DesiredProcess, String)>,
}

/// What a process has taken of a desired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whether anything of it was new.
    pub(super) any: bool,
    /// Whether its probe was.
    pub(super) probe: bool,
}

impl AsRef<Actual> for Process {
    fn as_ref(&self) -> &Actual {
        &self.actual
    }
}

impl Process {
    /// A process of which nothing exists yet.
    pub fn new(actual: Actual) -> Self {
        Self {
            actual,
            lease: None,
            ports: FurtherPorts::new(),
            started_at: None,
            restarts: 0,
            last_exit: None,
            last_lines: Vec::new(),
            reason: None,
            images: None,
            is_launched: false,
            pid: None,
            disk_used: None,
            disk_exceeded: false,
            attempt: 0,
            stop_signal: None,
            tasks: Vec::new(),
            probe: None,
            probe_trial: None,
            probe_refusal: None,
            resize_refusal: None,
        }
    }

    /// A process of an earlier agent.
    pub fn adopted(record: Record, phase: Phase) -> Self {
        let actual = Actual {
            phase,
            crashes: record.crashes,
            was_started: phase != Phase::New,
            ..Actual::new(record.process)
        };
        Self {
            lease: record.lease,
            ports: record.ports,
            started_at: record.started_at,
            restarts: record.restarts,
            last_exit: record.last_exit,
            stop_signal: record.stop_signal,
            is_launched: matches!(phase, Phase::Running { .. }),
            ..Self::new(actual)
        }
    }

    /// A process of a run of which nothing is known but that it was started.
    pub(super) fn lost(process: DesiredProcess, now: Duration) -> Self {
        let actual = Actual {
            phase: Phase::Ended { restart_at: now },
            was_started: true,
            ..Actual::new(process)
        };
        Self {
            last_exit: Some(Exit::unknown(timestamp())),
            reason: Some("its worker has no record of it any more".to_owned()),
            ..Self::new(actual)
        }
    }

    /// The same with the pid of its container's first process.
    #[must_use]
    pub fn with_pid(mut self, pid: i32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// Its id.
    pub fn id(&self) -> &ProcessId {
        &self.actual.process.id
    }

    /// The record to store on disk.
    pub fn record(&self) -> Record {
        Record {
            process: self.actual.process.clone(),
            lease: self.lease,
            ports: self.ports.clone(),
            started_at: self.started_at,
            restarts: self.restarts,
            crashes: self.actual.crashes,
            last_exit: self.last_exit,
            stop_signal: self.stop_signal,
            healthy: self.health() == Some(Health::Healthy),
            begun: self.actual.is_run() && self.actual.was_started,
        }
    }

    /// Reserves an address and ports for it, unless it has them.
    pub(super) fn lease(&mut self, node: &impl Node) -> Result<(), Exhausted> {
        if self.lease.is_none() {
            let (lease, ports) = node.lease(&self.actual.process.config)?;
            (self.lease, self.ports) = (Some(lease), ports);
        }
        Ok(())
    }

    /// Its entry in the report; `wanted` says whether the desired set still has it.
    pub fn report(&self, wanted: bool, relaxed: Vec<String>) -> ProcessReport {
        let process = &self.actual.process;
        ProcessReport {
            id: process.id.clone(),
            service: process.config.name.clone(),
            revision: process.revision,
            state: self.actual.state(wanted),
            reason: self.reason().cloned(),
            node_port: self.lease.map(|lease| lease.node_port),
            ports: self.node_ports(),
            started_at: self.started_at,
            restarts: self.restarts,
            last_exit: self.last_exit,
            relaxed,
            devices: process.devices.clone(),
            attempts: self.actual.crashes,
            listening: self.listening(),
            disk_used: self.disk_used.map(Bytes),
            metrics: None,
            last_lines: self.last_lines.clone(),
        }
    }

    /// The node's port for each of its named ports, where the configuration names any.
    fn node_ports(&self) -> FurtherPorts {
        let config = &self.actual.process.config;
        let lease = self.lease.filter(|_| !config.ports.is_empty());
        lease.map_or_else(FurtherPorts::new, |it| by_name(it, &self.ports, config))
    }

    /// Why it is not healthy, or why a change is not in force.
    fn reason(&self) -> Option<&String> {
        let own = self.reason.as_ref();
        let limits = self.resize_refusal.as_ref();
        own.or(limits.map(|(_, reason)| reason))
            .or(self.probe_refusal.as_ref())
    }

    /// The TCP addresses that it listens on, while its probe fails.
    fn listening(&self) -> Option<Vec<SocketAddr>> {
        match self.health()? {
            Health::Healthy => None,
            Health::Starting | Health::Unhealthy => listening::of(self.pid?),
        }
    }

    fn health(&self) -> Option<Health> {
        match self.actual.phase {
            Phase::Running { health, .. } => Some(health),
            _ => None,
        }
    }

    /// Notes the reason of a restart that its health causes.
    pub(super) fn explain(&mut self, step: Step, wanted: bool) {
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

    /// Aborts the tasks of the previous attempt; only events of `attempt` are accepted from now on.
    pub(super) fn end_attempt(&mut self, attempt: u64) {
        self.abort_tasks();
        self.attempt = attempt;
    }

    /// Runs a task that is aborted when the process ends.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task).abort_handle());
    }

    pub(super) fn started(&mut self, pid: i32, now: Duration) {
        self.pid = Some(pid);
        if self.started_at.is_some() {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.started_at = Some(timestamp());
        self.is_launched = true;
        self.reason = None;
        (self.disk_used, self.disk_exceeded) = (None, false);
        self.actual.apply(Change::Started, now);
    }

    pub(super) fn failed(&mut self, reason: String, now: Duration) {
        self.reason = Some(reason);
        self.actual.apply(Change::Failed, now);
    }

    /// Notes its disk usage; true if it exceeds the limit for the first time.
    pub(super) fn exceeds_disk(&mut self, bytes: u64) -> bool {
        self.disk_used = Some(bytes);
        let exceeds = self.health().is_some() && bytes > self.actual.process.config.disk.0;
        exceeds && !std::mem::replace(&mut self.disk_exceeded, true)
    }

    pub(super) fn ended(&mut self, exit: Exit, last_lines: Vec<String>, now: Duration) {
        self.last_lines = last_lines;
        let exit = Exit {
            disk_exceeded: self.disk_exceeded,
            ..exit
        };
        // A process that was stopped for its health keeps that reason; the exit by our signal explains less.
        if !matches!(self.actual.phase, Phase::Stopping { .. }) {
            self.reason = Some(exit.to_string());
        }
        self.last_exit = Some(exit);
        self.is_launched = false;
        self.pid = None;
        self.abort_tasks();
        self.actual.apply(Change::Ended, now);
    }

    pub(super) fn probed(&mut self, finding: Finding, now: Duration) {
        if self.health().is_some() {
            self.reason = finding.reason;
            self.actual.apply(Change::Probed(finding.health), now);
        }
    }

    /// The service's stop signal, else the image's, else SIGTERM.
    pub(super) fn stop_signal(&self) -> i32 {
        let own = self.actual.process.config.stop_signal.as_deref();
        let own = own.and_then(tucano_oci_image::signal_number);
        own.or(self.stop_signal).unwrap_or(nix::libc::SIGTERM)
    }

    pub(super) fn pulled(&mut self, images: ProcessImages, now: Duration) {
        let config = images.own.config.config().as_ref();
        let name = config.and_then(|config| config.stop_signal().clone());
        self.stop_signal = name.and_then(|name| tucano_oci_image::signal_number(&name));
        self.images = Some(images);
        self.actual.apply(Change::Pulled, now);
    }

    /// Replaces the task that probes the process.
    pub(super) fn set_probe(&mut self, task: AbortHandle) {
        if let Some(earlier) = self.probe.replace(task) {
            earlier.abort();
        }
    }

    /// Takes what of `desired` is in force without anybody's consent.
    pub(super) fn take(&mut self, desired: &DesiredProcess) -> Taken {
        self.forget_refusal(desired);
        let next = live_changes::in_force(&self.actual, desired);
        let before = std::mem::replace(&mut self.actual.process, next);
        let (old, new) = (&before.config, &self.actual.process.config);
        Taken {
            any: before != self.actual.process,
            probe: old.health != new.health || probes_differ(old, new),
        }
    }

    /// Whether a record of it is on disk, and stays there.
    pub(super) fn has_record(&self) -> bool {
        let is_removed = matches!(
            self.actual.phase,
            Phase::Removing | Phase::NotRemoved { .. }
        );
        self.started_at.is_some() && !is_removed
    }

    /// Whether the desired probe has to be tried, and is not yet. A trial that is no longer needed ends.
    pub(super) fn needs_probe_trial(&mut self, desired: &DesiredProcess) -> bool {
        let awaits = live_changes::awaits_probe(&self.actual, desired);
        let trial = self.probe_trial.as_ref();
        let is_tried = trial.is_some_and(|(of, _)| !probes_differ(&of.config, &desired.config));
        if !(awaits && is_tried) {
            self.end_probe_trial();
        }
        awaits && !is_tried
    }

    pub(super) fn set_probe_trial(&mut self, of: DesiredProcess, task: AbortHandle) {
        self.end_probe_trial();
        self.probe_trial = Some((of, task));
    }

    /// It has answered the probe of `tried`.
    pub(super) fn take_probe(&mut self, tried: &DesiredProcess) {
        if self.probe_trial.as_ref().is_none_or(|(of, _)| of != tried) {
            return;
        }
        live_changes::set_probe(&mut self.actual.process.config, &tried.config);
        self.end_probe_trial();
    }

    pub(super) fn probe_refused(&mut self, reason: &str) {
        if self.probe_trial.is_some() {
            self.probe_refusal = Some(format!("it is not probed in the new way yet: {reason}"));
        }
    }

    /// It has the limits of `with`.
    pub(super) fn resized(&mut self, with: &DesiredProcess, now: Duration) {
        live_changes::set_limits(&mut self.actual.process.config, &with.config);
        self.resize_refusal = None;
        self.actual.apply(Change::Resized, now);
    }

    pub(super) fn not_resized(&mut self, tried: DesiredProcess, reason: &str, now: Duration) {
        if self.health().is_some() {
            let reason = format!("its limits are not changed yet: {reason}");
            self.resize_refusal = Some((tried, reason));
            self.actual.apply(Change::NotResized, now);
        }
    }

    /// Limits other than the refused ones are tried at once.
    fn forget_refusal(&mut self, desired: &DesiredProcess) {
        let differ = |(tried, _): &mut (DesiredProcess, String)| {
            live_changes::limits_differ(&tried.config, &desired.config)
        };
        if self.resize_refusal.take_if(differ).is_some() {
            self.actual.resize = Resize::Refused {
                retry_at: Duration::ZERO,
            };
        }
    }

    /// Its last measured disk usage, in bytes.
    pub(super) fn last_disk_used(&self) -> Option<u64> {
        self.disk_used
    }

    fn end_probe_trial(&mut self) {
        self.probe_refusal = None;
        if let Some((_, task)) = self.probe_trial.take() {
            task.abort();
        }
    }

    fn abort_tasks(&mut self) {
        self.end_probe_trial();
        self.resize_refusal = None;
        for task in self.tasks.drain(..).chain(self.probe.take()) {
            task.abort();
        }
    }
}
