use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{DesiredProcess, NodeReport, ProcessReport},
    ids::{Epoch, Generation, ServiceName},
    service::{AssignedDevice, ServiceConfig, is_at_or_below},
    state::NodeCondition,
    units::{Span, Timestamp},
};

use super::{Resources, duplicates::DuplicateAgents, load::Load};
use crate::devices;
use crate::model::{NodeRecord, ProcessRecord, SetVersion, Worker};

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
    pub(crate) undesired: Vec<Undesired>,
    /// Processes that existed there when it was lost. They may still run until its agent holds a present set.
    pub(crate) unconfirmed: Vec<Undesired>,
    /// The processes of the set that its agent holds, where it was asked for them.
    pub(crate) held_set: Option<Vec<DesiredProcess>>,
    /// Up to which generation its agent may hold a set that no record tells of.
    pub(crate) first_generation: Generation,
    /// Numbers of the processes that are desired there.
    pub(crate) processes: BTreeSet<u64>,
    /// Numbers of the processes of runs that are desired there. They stay while it is missing.
    pub(crate) runs: BTreeSet<u64>,
    /// What all of those reserve.
    pub(crate) reserved: Resources,
    /// Since when its agent cannot be reached, and whether that was alerted.
    pub(crate) unreachable: Option<(Timestamp, bool)>,
    pub(crate) load: Load,
    pub(crate) restart: NodeRestart,
    /// Its silence as part of a mass silence, until a further lease has expired; without an end while no worker reports.
    pub(crate) silence: Option<Option<Timestamp>>,
    /// The processes that were desired on it when it was lost.
    pub(crate) lost: BTreeMap<u64, ProcessRecord>,
    /// Whether its agent has held a present set since this controller began to manage it. Until then it may run, or begin to run,
    /// processes that this controller does not know.
    pub(crate) is_surveyed: bool,
    /// The services that its processes need.
    pub(crate) needs: BTreeSet<ServiceName>,
    /// What is kept for processes of slots whose volumes are here.
    pub(crate) claims: BTreeMap<(ServiceName, u32), Resources>,
}

/// A process that exists on a node, or may exist, although it is not desired. It has what it reserved and its slot until the agent
/// no longer reports it.
#[derive(Debug, Clone)]
pub(crate) struct Undesired {
    pub(crate) report: ProcessReport,
    /// What it may use.
    pub(crate) reserved: Resources,
    pub(crate) slot: Slot,
    /// The devices that nobody else may have until then.
    pub(crate) devices: Vec<AssignedDevice>,
}

/// The slot of a process that is not desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It has this one, or none.
    Known(Option<u32>),
    /// It was started by a controller before this one: it may have any.
    Unknown,
}

/// A mass silence that has not ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MassSilence {
    /// Workers that have reported again.
    pub(crate) returned: usize,
    /// Workers whose further lease has expired.
    pub(crate) lost: usize,
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
            sent: None,
            epoch: Epoch(0),
            adopts: None,
            hold: None,
        };
        Self::restored(worker, record, now)
    }

    /// A worker from its record. One that was alive has to report again.
    pub(crate) fn restored(worker: Worker, record: NodeRecord, now: Timestamp) -> Self {
        Self {
            worker,
            leased_at: now,
            last_sequence: None,
            duplicates: DuplicateAgents::default(),
            report: None,
            undesired: Vec::new(),
            unconfirmed: Vec::new(),
            held_set: None,
            first_generation: record.generation,
            processes: BTreeSet::new(),
            runs: BTreeSet::new(),
            reserved: Resources::default(),
            unreachable: None,
            load: Load::default(),
            restart: NodeRestart::Idle,
            silence: None,
            lost: BTreeMap::new(),
            is_surveyed: false,
            claims: BTreeMap::new(),
            needs: BTreeSet::new(),
            record,
        }
    }

    /// The condition that is shown. A worker that was alive before the controller's restart is unknown until it
    /// reports.
    pub(crate) fn condition(&self) -> NodeCondition {
        match self.record.condition {
            NodeCondition::Alive if self.report.is_none() => NodeCondition::Unknown,
            NodeCondition::Alive if self.silence.is_some() => NodeCondition::Missing,
            condition => condition,
        }
    }

    /// Whether processes can be placed on it.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_alive() && self.record.hold.is_none()
    }

    /// Whether its agent changes limits and probes of running processes.
    pub(crate) fn changes_live(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.live_changes)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.condition() == NodeCondition::Alive
    }

    /// Whether it has a lease: it is neither silent, missing nor dead.
    pub(crate) fn has_lease(&self) -> bool {
        let leased = matches!(
            self.record.condition,
            NodeCondition::Alive | NodeCondition::Unknown
        );
        leased && self.silence.is_none()
    }

    /// What all its processes together may reserve; nothing unless it is alive.
    pub(crate) fn reservable(&self) -> Resources {
        let report = self.report.as_ref();
        report.map_or_else(Resources::default, |report| Resources {
            memory: report.metrics.memory_reservable.0,
            millicpus: u64::from(report.metrics.cpus).saturating_mul(1000),
        })
    }

    /// What is not reserved.
    pub(crate) fn free(&self) -> Resources {
        self.unclaimed().minus(self.stopping())
    }

    /// What is not reserved as soon as the undesired processes are gone.
    pub(crate) fn unclaimed(&self) -> Resources {
        self.unreserved().minus(self.claimed())
    }

    /// The same, with what is kept for slots: what they themselves can have.
    pub(crate) fn unreserved(&self) -> Resources {
        self.reservable().minus(self.reserved)
    }

    /// What is kept for slots whose volumes are here.
    pub(crate) fn claimed(&self) -> Resources {
        self.claims.values().copied().sum()
    }

    /// The architecture of images that it runs; empty where its agent does not tell.
    pub(crate) fn architecture(&self) -> &str {
        let report = self.report.as_ref();
        report.map_or("", |report| &report.architecture)
    }

    /// Whether its agent knows all keys of this configuration.
    pub(crate) fn knows_keys(&self, config: &ServiceConfig) -> bool {
        self.report.as_ref().is_some_and(|report| {
            let mut keys = config.agent_keys();
            keys.all(|key| report.keys.iter().any(|known| known == key))
        })
    }

    /// Whether it gives containers all directories that this configuration mounts.
    pub(crate) fn has_host_paths(&self, config: &ServiceConfig) -> bool {
        self.report.as_ref().is_some_and(|report| {
            let mut paths = config.host_paths();
            let is_listed = |path| report.host_paths.iter().any(|it| is_at_or_below(path, it));
            paths.all(is_listed)
        })
    }

    /// Whether it gives containers all device nodes of this configuration.
    pub(crate) fn has_device_nodes(&self, config: &ServiceConfig) -> bool {
        self.report.as_ref().is_some_and(|report| {
            let mut nodes = config.device_nodes();
            nodes.all(|path| report.device_paths.iter().any(|it| it == path))
        })
    }

    /// Whether processes of this configuration can be placed on it, as far as its agent is concerned.
    pub(crate) fn can_run(&self, config: &ServiceConfig) -> bool {
        self.is_usable()
            && self.knows_keys(config)
            && self.has_host_paths(config)
            && self.has_device_nodes(config)
            && devices::has_all(self, config)
    }

    /// What processes may use which are no longer desired.
    pub(crate) fn stopping(&self) -> Resources {
        self.undesired.iter().map(|it| it.reserved).sum()
    }

    pub(crate) fn reserve(&mut self, process: u64, needed: Resources) {
        self.processes.insert(process);
        self.reserved = self.reserved.plus(needed);
    }

    /// The same for a process of a run.
    pub(crate) fn reserve_for_run(&mut self, process: u64, needed: Resources) {
        self.runs.insert(process);
        self.reserved = self.reserved.plus(needed);
    }

    /// All processes that are desired there, in the order of their numbers.
    pub(crate) fn all_processes(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.processes.iter().chain(&self.runs).copied().collect();
        all.sort_unstable();
        all
    }

    /// Changes what one of its processes reserves.
    pub(crate) fn change_reservation(&mut self, before: Resources, after: Resources) {
        self.reserved = self.reserved.minus(before).plus(after);
    }

    pub(crate) fn release(&mut self, process: u64, reserved: Resources) {
        if self.processes.remove(&process) || self.runs.remove(&process) {
            self.reserved = self.reserved.minus(reserved);
        }
    }

    /// Whether its agent holds this set, as far as its last report tells.
    pub(crate) fn holds(&self, version: &SetVersion) -> bool {
        self.report.as_ref().is_some_and(|report| {
            if report.identity.is_legacy() {
                let absurd = report.generation.is_absurd_after(version.generation);
                return report.generation >= version.generation && !absurd;
            }
            let digest = &report.identity.digest;
            (report.identity.epoch, report.generation) == (version.epoch, version.generation)
                && (digest.is_none() || *digest == version.digest)
        })
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

    /// When something is due for it: the end of its lease or of its silence, or of a wait between restart attempts.
    pub(crate) fn deadline(&self, lease: Span) -> Option<Timestamp> {
        if self.has_lease() {
            return Some(self.leased_at.after(lease));
        }
        let restart = match self.restart {
            NodeRestart::BackOff(until) | NodeRestart::AwaitingReport(until) => Some(until),
            NodeRestart::Idle | NodeRestart::Running => None,
        };
        self.silence.flatten().into_iter().chain(restart).min()
    }
}
