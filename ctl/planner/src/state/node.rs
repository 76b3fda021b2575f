use std::collections::BTreeSet;

use tucano_api::{
    agent::{NodeReport, ProcessReport},
    ids::Generation,
    state::NodeCondition,
    units::{Span, Timestamp},
};

use super::{duplicates::DuplicateAgents, load::Load};
use crate::model::{NodeRecord, Worker};

/// A worker of the topology.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) worker: Worker,
    pub(crate) record: NodeRecord,
    /// When its lease began: its last report, or when its first one was expected.
    pub(crate) leased_at: Timestamp,
    /// Its agent and that agent's last sequence number, by which late reports are recognised.
    pub(crate) last_sequence: Option<(String, u64)>,
    pub(crate) duplicates: DuplicateAgents,
    /// Its last report, without the processes, while it is alive.
    pub(crate) report: Option<NodeReport>,
    /// Processes that exist there, or may exist, although they are not desired.
    pub(crate) undesired: Vec<ProcessReport>,
    /// Numbers of the processes that are desired there.
    pub(crate) processes: BTreeSet<u64>,
    /// What those reserve, in bytes.
    pub(crate) reserved: u64,
    pub(crate) load: Load,
    pub(crate) restart: NodeRestart,
}

/// The state of the attempts to restart a missing worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeRestart {
    /// No attempt is made.
    Idle,
    /// The restart command is running.
    Running,
    /// The command failed; the next attempt is at this time.
    BackOff(Timestamp),
    /// The command succeeded; a report is expected until this time.
    AwaitingReport(Timestamp),
}

impl Node {
    /// A worker that has never reported.
    pub(crate) fn new(worker: Worker, generation: Generation, now: Timestamp) -> Self {
        let record = NodeRecord {
            name: worker.name.clone(),
            generation,
            condition: NodeCondition::Unknown,
            since: now,
            reason: None,
            restart_attempts: 0,
        };
        Self::restored(worker, record, now)
    }

    /// A worker from its record. One that was alive has to report again.
    pub(crate) fn restored(worker: Worker, record: NodeRecord, now: Timestamp) -> Self {
        Self {
            worker,
            record,
            leased_at: now,
            last_sequence: None,
            duplicates: DuplicateAgents::default(),
            report: None,
            undesired: Vec::new(),
            processes: BTreeSet::new(),
            reserved: 0,
            load: Load::default(),
            restart: NodeRestart::Idle,
        }
    }

    /// The condition that is shown. A worker that was alive before the controller's restart is unknown until it
    /// reports.
    pub(crate) fn condition(&self) -> NodeCondition {
        match self.record.condition {
            NodeCondition::Alive if self.report.is_none() => NodeCondition::Unknown,
            condition => condition,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.condition() == NodeCondition::Alive
    }

    /// Whether it has a lease: it is neither missing nor dead.
    pub(crate) fn has_lease(&self) -> bool {
        matches!(
            self.condition(),
            NodeCondition::Alive | NodeCondition::Unknown
        )
    }

    /// Bytes that all its processes together may reserve; 0 unless it is alive.
    pub(crate) fn reservable(&self) -> u64 {
        let report = self.report.as_ref();
        report.map_or(0, |report| report.metrics.memory_reservable.0)
    }

    /// Bytes that are not reserved.
    pub(crate) fn free(&self) -> u64 {
        self.reservable().saturating_sub(self.reserved)
    }

    pub(crate) fn reserve(&mut self, process: u64, memory: u64) {
        self.processes.insert(process);
        self.reserved = self.reserved.saturating_add(memory);
    }

    pub(crate) fn release(&mut self, process: u64, memory: u64) {
        if self.processes.remove(&process) {
            self.reserved = self.reserved.saturating_sub(memory);
        }
    }

    /// Whether the report is a duplicate, or older than the last one of the same agent.
    pub(crate) fn is_late(&self, report: &NodeReport) -> bool {
        self.last_sequence
            .as_ref()
            .is_some_and(|(agent, last)| *agent == report.agent_id && report.sequence <= *last)
    }

    /// Whether a newer agent, which is alive, has replaced this one. When the newer one is lost, any agent counts.
    pub(crate) fn is_superseded(&self, agent: &str) -> bool {
        self.is_alive() && self.duplicates.is_superseded(agent)
    }

    /// Records that this agent has sent a report with this sequence number and is the node's present one.
    pub(crate) fn set_agent(&mut self, agent: &str, sequence: u64) {
        if let Some((previous, _)) = self.last_sequence.as_ref().filter(|(id, _)| id != agent) {
            self.duplicates.supersede(previous.clone(), agent);
        }
        self.last_sequence = Some((agent.to_owned(), sequence));
    }

    /// When something is due for it: the end of its lease, or of a wait between restart attempts.
    pub(crate) fn deadline(&self, lease: Span) -> Option<Timestamp> {
        match self.restart {
            _ if self.has_lease() => Some(self.leased_at.after(lease)),
            NodeRestart::BackOff(until) | NodeRestart::AwaitingReport(until) => Some(until),
            NodeRestart::Idle | NodeRestart::Running => None,
        }
    }
}
