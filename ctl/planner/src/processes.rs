//! The life of one process, as the controller sees it:
//!
//! ```text
//! start ──> assigned ──(its agent's reports)──> healthy ──retire──> draining ──drain time──> forgotten
//!              └───────────── retire: it has no requests that could end ─────────────────────────^
//! ```

use tucano_api::{
    agent::{ProcessReport, ProcessState},
    ids::{ProcessId, ServiceName},
    units::Timestamp,
};

use crate::{
    cluster::Cluster,
    model::{ProcessRecord, Trouble},
};

/// A process that is to run.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) record: ProcessRecord,
    /// Index of its node.
    pub(crate) node: usize,
    /// What it reserves there, in bytes.
    pub(crate) memory: u64,
    /// What its agent last said of it.
    pub(crate) report: Option<ProcessReport>,
    /// Since when it has been healthy without a break.
    pub(crate) healthy_since: Option<Timestamp>,
}

impl Process {
    /// Whether requests can be sent to it.
    pub(crate) fn is_healthy(&self) -> bool {
        self.node_port().is_some()
    }

    /// The node's port at which it answers, while it is healthy.
    pub(crate) fn node_port(&self) -> Option<u16> {
        let report = self.report.as_ref()?;
        let answers = report.state == ProcessState::Healthy;
        report.node_port.filter(|port| answers && *port != 0)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.record.draining_since.is_some()
    }
}

/// What stands for a report where the agent has not said anything.
pub(crate) fn unreported(record: &ProcessRecord) -> ProcessReport {
    ProcessReport {
        id: record.id.clone(),
        service: record.service.clone(),
        revision: record.revision,
        state: ProcessState::Assigned,
        reason: None,
        node_port: None,
        started_at: None,
        restarts: 0,
        last_exit: None,
        relaxed: Vec::new(),
        metrics: None,
        disk_used: None,
    }
}

impl Cluster {
    /// The process of this identity, if it is to run.
    pub(crate) fn process(&self, id: &ProcessId) -> Option<&Process> {
        let process = self.processes.get(&id.number())?;
        (process.record.id == *id).then_some(process)
    }

    /// Has a process of the service's current revision run on a node.
    pub(crate) fn start(&mut self, name: &ServiceName, node: usize, replaces: Option<ProcessId>) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let current = service.current();
        self.counters.last_process = self.counters.last_process.saturating_add(1);
        let number = self.counters.last_process;
        let worker = self.nodes[node].record.name.clone();
        let process = Process {
            record: ProcessRecord {
                id: ProcessId::new(name, number),
                service: name.clone(),
                revision: current.revision,
                node: worker.clone(),
                replaces,
                draining_since: None,
                trouble: Trouble::default(),
            },
            node,
            memory: current.config.memory.0,
            report: None,
            healthy_since: None,
        };
        service.processes.insert(number);
        self.nodes[node].take_on(number, process.memory);
        self.counters.last_placed_on = Some(worker.clone());
        self.changes.counters = true;
        self.changes.processes.insert(process.record.id.clone());
        self.changes.reassign.insert(worker);
        self.processes.insert(number, process);
    }

    /// Takes a process out of service: one that has requests drains first.
    pub(crate) fn retire(&mut self, number: u64) {
        let now = self.now;
        match self.processes.get_mut(&number) {
            Some(process) if process.is_healthy() && !process.is_draining() => {
                process.record.draining_since = Some(now);
                process.record.replaces = None;
                self.changes.processes.insert(process.record.id.clone());
                self.changes.reroute.insert(process.record.service.clone());
                self.draining.insert(number);
            }
            _ => self.forget(number),
        }
    }

    /// Takes a process out of its node's desired set at once.
    pub(crate) fn forget(&mut self, number: u64) {
        let Some(process) = self.processes.remove(&number) else {
            return;
        };
        let node = &mut self.nodes[process.node];
        node.hand_over(number, process.memory);
        // Until its agent says that it is gone, it exists.
        let last_seen = process
            .report
            .unwrap_or_else(|| unreported(&process.record));
        node.strays.push(last_seen);
        if let Some(service) = self.services.get_mut(&process.record.service) {
            service.processes.remove(&number);
            self.changes
                .reconcile
                .insert(process.record.service.clone());
            self.changes.reroute.insert(process.record.service.clone());
        }
        self.draining.remove(&number);
        self.watched.remove(&number);
        self.changes.capacity = true;
        self.changes.reassign.insert(process.record.node);
        self.changes.processes.insert(process.record.id);
        self.changes.prune.insert(process.record.service);
    }

    pub(crate) fn expire_drains(&mut self) {
        let due: Vec<u64> = self
            .draining
            .iter()
            .copied()
            .filter(|number| self.drained_at(*number).is_some_and(|at| at <= self.now))
            .collect();
        for number in due {
            self.forget(number);
        }
    }

    pub(crate) fn next_drain_deadline(&self) -> Option<Timestamp> {
        self.draining
            .iter()
            .filter_map(|number| self.drained_at(*number))
            .min()
    }

    fn drained_at(&self, number: u64) -> Option<Timestamp> {
        let since = self.processes.get(&number)?.record.draining_since?;
        Some(since.after(self.settings.drain))
    }
}
