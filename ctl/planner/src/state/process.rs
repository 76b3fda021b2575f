use tucano_api::{
    agent::{ProcessReport, ProcessState},
    units::Timestamp,
};

use super::Resources;
use crate::model::ProcessRecord;

/// A desired process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) record: ProcessRecord,
    /// Index of its node.
    pub(crate) node: usize,
    /// What it reserves there.
    pub(crate) reserved: Resources,
    /// Its part of the node's last report.
    pub(crate) report: Option<ProcessReport>,
    /// Since when it has been healthy without interruption.
    pub(crate) healthy_since: Option<Timestamp>,
    /// When it was last reported at its limit of processes and threads.
    pub(crate) at_pids_limit: Option<Timestamp>,
    /// Whether a balancer may have sent it requests.
    pub(crate) was_routed: bool,
}

impl Process {
    /// Whether requests can be sent to it.
    pub(crate) fn is_healthy(&self) -> bool {
        self.node_port().is_some()
    }

    /// The node's port that forwards to it, while it is healthy.
    pub(crate) fn node_port(&self) -> Option<u16> {
        let report = self.report.as_ref()?;
        let healthy = report.state == ProcessState::Healthy;
        report.node_port.filter(|port| healthy && *port != 0)
    }

    /// Whether requests may be in flight to it.
    pub(crate) fn may_have_requests(&self) -> bool {
        self.is_healthy() && self.was_routed
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.record.draining_since.is_some()
    }

    /// Whether its agent has reported it, and not yet that its last changes are in force.
    pub(crate) fn is_changing(&self) -> bool {
        let reported = self.report.as_ref().map(|report| report.revision);
        reported.is_some_and(|reported| reported < self.record.revision)
    }

    /// Applies its part of a report, `None` if the report does not name it. Whether its route or its service's
    /// rollout may change.
    pub(crate) fn update(&mut self, report: Option<ProcessReport>, now: Timestamp) -> bool {
        let port = self.node_port();
        let restarts = self.report.as_ref().map(|report| report.restarts);
        self.report = report;
        let healthy = self
            .report
            .as_ref()
            .filter(|r| r.state == ProcessState::Healthy);
        self.healthy_since = match (healthy, self.healthy_since) {
            // It is healthy again, but was restarted in between.
            (Some(report), Some(_)) if restarts != Some(report.restarts) => Some(now),
            (Some(_), since) => since.or(Some(now)),
            (None, _) => None,
        };
        if self.pids_limit().is_some() {
            self.at_pids_limit = Some(now);
        }
        self.node_port() != port
    }

    /// Its limit of processes and threads, if it has reached it.
    pub(crate) fn pids_limit(&self) -> Option<u64> {
        let metrics = self.report.as_ref()?.metrics.as_ref()?;
        let limit = metrics.pids_limit;
        (limit > 0 && metrics.pids_current >= limit).then_some(limit)
    }

    /// How often it has ended since it last recovered.
    pub(crate) fn crashes(&self) -> u32 {
        let restarts = self.report.as_ref().map_or(0, |report| report.restarts);
        restarts.saturating_sub(self.record.crashes.baseline_restarts)
    }

    /// When the kernel last killed it for exceeding its memory limit.
    pub(crate) fn oom_killed_at(&self) -> Option<Timestamp> {
        let exit = self.report.as_ref()?.last_exit?;
        exit.oom_killed.then_some(exit.at)
    }

    /// Whether its recovery may have to be reported.
    pub(crate) fn may_recover(&self) -> bool {
        self.record.crashes.is_alerted() || self.crashes() > 0
    }
}

/// The report that stands for a process that its agent has not reported yet.
pub(crate) fn unreported(record: &ProcessRecord) -> ProcessReport {
    ProcessReport {
        id: record.id.clone(),
        service: record.service.clone(),
        revision: record.revision,
        state: ProcessState::Assigned,
        reason: None,
        node_port: None,
        ports: Default::default(),
        started_at: None,
        restarts: 0,
        last_exit: None,
        relaxed: Vec::new(),
        metrics: None,
        attempts: 0,
        listening: None,
        disk_used: None,
        last_lines: Vec::new(),
        devices: record.devices.clone(),
    }
}
