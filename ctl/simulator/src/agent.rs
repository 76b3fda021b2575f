//! A model of an agent: it starts and stops containers as its desired set says, and reports them.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{
        DesiredProcess, DesiredSet, Exit, NodeMetrics, NodeReport, ProcessMetrics, ProcessReport,
        ProcessState, SetIdentity,
    },
    ids::{Digest, Generation, NodeName, ProcessId},
    service::{AGENT_KEYS, Effect, NodeDevices},
    units::{Bytes, Span, Timestamp},
};
use tucano_planner::Worker;

use crate::volumes::AgentVolumes;

const STOP_TIME: Span = Span::millis(500);
/// Longer than the time between two reports: some tell of the time before a change.
const CHANGE_TIME: Span = Span::millis(1500);
const BACK_OFF: Span = Span::millis(700);
const REPORT_INTERVAL: Span = Span::secs(1);

/// How the programs in images behave.
#[derive(Debug, Clone)]
pub struct Workloads {
    /// Images whose programs end as soon as they are started.
    pub crashing: BTreeSet<Digest>,
    /// Images whose programs never answer a probe.
    pub unresponsive: BTreeSet<Digest>,
    /// From the start of a container to its program's first answer.
    pub start_time: Span,
    /// How long a process of a run takes, once it has started.
    pub run_time: Span,
}

/// A container of an agent.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it was started from.
    pub desired: DesiredProcess,
    /// Its state.
    pub state: ProcessState,
    /// The node's port that forwards to it.
    pub port: u16,
    /// How often it was restarted.
    pub restarts: u32,
    /// How it last ended.
    pub last_exit: Option<Exit>,
    /// Whether it has reached its limit of processes and threads.
    pub is_at_pids_limit: bool,
    /// When its state ends.
    until: Timestamp,
    /// A change of its limits, and when it is in force.
    change: Option<(DesiredProcess, Timestamp)>,
}

/// An agent and its node.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The node's name.
    pub name: NodeName,
    worker: Worker,
    /// Whether the node is on.
    pub powered: bool,
    /// On its disk: the last set that it accepted.
    pub desired: DesiredSet,
    /// What runs, by process.
    pub containers: BTreeMap<ProcessId, Container>,
    /// What it reports of its node.
    pub metrics: NodeMetrics,
    /// Whether the controller has asked for the set that it holds.
    pub send_held: bool,
    /// Whether it is of an earlier version, which replaces processes whose limits change.
    pub is_old: bool,
    /// Keys of configurations that its version came before.
    pub unknown_keys: Vec<&'static str>,
    /// Its volumes.
    pub volumes: AgentVolumes,
    /// Its `host_paths`.
    pub host_paths: Vec<String>,
    /// Its devices, as it describes them for containers.
    pub devices: NodeDevices,
    /// Its `device_paths`.
    pub device_paths: Vec<String>,
    /// The architecture that it claims to have.
    pub architecture: String,
    /// Images that do not run on it.
    pub foreign_images: BTreeSet<Digest>,
    /// Whether its memory was made smaller than what it runs.
    pub overcommitted: bool,
    /// On its disk: the processes of runs that it has begun to start.
    pub begun: BTreeSet<ProcessId>,
    /// How often it has started each process of a run, and whether it has lost its disk since.
    pub run_starts: BTreeMap<ProcessId, u32>,
    starts: u32,
    sequence: u64,
    report_at: Timestamp,
    next_port: u16,
}

impl Agent {
    /// An agent that has never received a set.
    pub fn new(worker: Worker, reservable: Bytes) -> Self {
        Self {
            name: worker.name.clone(),
            powered: true,
            desired: DesiredSet::empty(worker.name.clone()),
            containers: BTreeMap::new(),
            metrics: NodeMetrics {
                cpus: 4,
                memory_total: reservable,
                memory_reservable: reservable,
                ..NodeMetrics::default()
            },
            send_held: false,
            is_old: false,
            unknown_keys: Vec::new(),
            volumes: AgentVolumes::default(),
            host_paths: Vec::new(),
            devices: NodeDevices::new(),
            device_paths: Vec::new(),
            architecture: "amd64".to_owned(),
            foreign_images: BTreeSet::new(),
            overcommitted: false,
            begun: BTreeSet::new(),
            run_starts: BTreeMap::new(),
            starts: 0,
            sequence: 0,
            report_at: Timestamp(0),
            next_port: 20_000,
            worker,
        }
    }

    /// Cuts the power: all containers end.
    pub fn cut_power(&mut self) {
        self.powered = false;
        self.containers.clear();
        self.volumes.discard_unfinished();
    }

    /// Boots the node.
    pub fn power_on(&mut self) {
        self.powered = true;
        self.restart();
    }

    /// The agent dies and is started again; its containers keep running.
    pub fn restart(&mut self) {
        self.starts += 1;
        self.sequence = 0;
        self.report_at = Timestamp(0);
    }

    /// Loses its disk.
    pub fn lose_disk(&mut self) {
        self.desired.generation = Generation(0);
        self.desired.identity = SetIdentity::default();
        self.desired.processes.clear();
        self.desired.removed_volumes.clear();
        self.desired.exports.clear();
        self.begun.clear();
        self.run_starts.clear();
    }

    /// Receives a desired set.
    pub fn receive(&mut self, set: DesiredSet) {
        if self.powered && set.node == self.name && self.accepts(&set) {
            self.desired = set;
        }
    }

    /// The agent's rule: only a newer set of its own cluster, or of one that adopts it.
    fn accepts(&self, set: &DesiredSet) -> bool {
        let (held, new) = (&self.desired.identity, &set.identity);
        let own = held.cluster.is_none() || held.cluster == new.cluster;
        let version = |set: &DesiredSet| (set.identity.epoch, set.generation);
        let other = version(set) == version(&self.desired) && held.digest.is_some();
        (own || held.cluster == set.adopts)
            && version(set) >= version(&self.desired)
            && !(other && held.digest != new.digest)
    }

    /// The kernel kills a process for lack of memory.
    pub fn oom_kill(&mut self, id: &ProcessId, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(id) {
            container.end(now, true);
            self.report_at = now;
        }
    }

    /// A process reaches its limit of processes and threads, or is below it again.
    pub fn fill_pids(&mut self, id: &ProcessId, is_reached: bool, now: Timestamp) {
        if let Some(container) = self.containers.get_mut(id) {
            container.is_at_pids_limit = is_reached;
            self.report_at = now;
        }
    }

    /// Processes that are healthy.
    pub fn healthy(&self) -> impl Iterator<Item = &ProcessId> {
        let healthy = |c: &Container| c.state == ProcessState::Healthy;
        self.containers
            .iter()
            .filter(move |(_, c)| healthy(c))
            .map(|(id, _)| id)
    }

    /// Does what is due. Returns a report if one is due.
    pub fn poll(&mut self, now: Timestamp, workloads: &Workloads) -> Option<NodeReport> {
        if !self.powered {
            return None;
        }
        let changed = self.apply_desired(now, workloads) | self.advance(now, workloads);
        (changed || self.report_at <= now).then(|| self.report(now))
    }

    fn apply_desired(&mut self, now: Timestamp, workloads: &Workloads) -> bool {
        let mut changed = false;
        let desired: BTreeSet<&ProcessId> = self.desired.processes.iter().map(|p| &p.id).collect();
        for (id, container) in &mut self.containers {
            if !desired.contains(id) && container.state != ProcessState::Stopping {
                let created = self.volumes.created_at(&container.desired);
                let stopped = now.after(STOP_TIME);
                let until = created.map_or(stopped, |created| created.max(stopped));
                container.enter(ProcessState::Stopping, until);
                changed = true;
            }
        }
        changed |= self.volumes.finish_creations(now);
        changed |= self
            .volumes
            .remove(&self.desired.removed_volumes, &self.containers);
        changed |= self
            .volumes
            .fill(&self.desired.fills, &self.containers, now);
        changed |= self.volumes.back_up(&self.desired.backups, now);
        changed |= self.volumes.load(&self.containers);
        for process in &self.desired.processes {
            if let Some(container) = self.containers.get_mut(&process.id) {
                changed |= container.change(process, self.is_old, now);
                changed |= self.volumes.grow(&container.desired);
            } else if let Some(run) = &process.run {
                let may_start = run.may_start && self.begun.insert(process.id.clone());
                let container = Container::of_run(process.clone(), may_start, now, workloads);
                if may_start {
                    *self.run_starts.entry(process.id.clone()).or_default() += 1;
                }
                self.containers.insert(process.id.clone(), container);
                changed = true;
            } else if self.volumes.prepare(process, &self.containers, now) {
                self.next_port += 1;
                let created = self.volumes.created_at(process).unwrap_or(now);
                let container = Container::new(process.clone(), self.next_port, created, workloads);
                self.containers.insert(process.id.clone(), container);
                changed = true;
            }
        }
        changed
    }

    fn advance(&mut self, now: Timestamp, workloads: &Workloads) -> bool {
        let desired = &self.desired.processes;
        let is_desired = |id: &ProcessId| desired.iter().any(|process| process.id == *id);
        self.begun
            .retain(|id| is_desired(id) || self.containers.contains_key(id));
        let before = self.containers.len();
        self.containers
            .retain(|_, c| c.state != ProcessState::Stopping || c.until > now);
        let mut changed = self.containers.len() != before;
        for container in self.containers.values_mut().filter(|c| c.until <= now) {
            changed |= container.advance(now, workloads);
        }
        changed
    }

    /// Memory of all its containers, also of those that are stopping.
    pub fn memory_used(&self) -> u64 {
        let containers = self.containers.values();
        containers.map(|it| it.desired.config.memory.0).sum()
    }

    /// CPUs that all its containers reserve, in thousandths, also those that are stopping.
    pub fn millicpus_used(&self) -> u64 {
        let containers = self.containers.values();
        let reserved = containers.map(|it| it.desired.kept.restore(&it.desired.config));
        reserved.map(|config| config.reserved_millicpus()).sum()
    }

    /// No container has an image that does not run on it.
    pub(crate) fn check_architecture(&self) {
        let containers = self.containers.values();
        let mut images = containers.map(|it| &it.desired.image);
        let foreign = images.find(|image| self.foreign_images.contains(image));
        assert_eq!(foreign, None, "{} cannot run it", self.name);
    }

    /// A report of the present state.
    pub fn report(&mut self, now: Timestamp) -> NodeReport {
        self.sequence += 1;
        self.report_at = now.after(REPORT_INTERVAL);
        NodeReport {
            node: Some(self.name.clone()),
            ip: self.worker.ip,
            agent_port: 7071,
            agent_id: format!("{}-{}", self.name, self.starts),
            sequence: self.sequence,
            version: "1.0.0".into(),
            architecture: self.architecture.clone(),
            live_changes: !self.is_old,
            keys: match self.is_old {
                true => Vec::new(),
                false => AGENT_KEYS
                    .into_iter()
                    .filter(|key| !self.unknown_keys.contains(key))
                    .map(str::to_owned)
                    .collect(),
            },
            host_paths: self.host_paths.clone(),
            devices: self.devices.clone(),
            device_paths: self.device_paths.clone(),
            volumes: (!self.is_old).then(|| self.volumes.report()),
            generation: self.desired.generation,
            identity: self.desired.identity.clone(),
            held: self.send_held.then(|| self.desired.processes.clone()),
            metrics: self.metrics.clone(),
            apis: None,
            notes: Vec::new(),
            processes: self.containers.values().map(Container::report).collect(),
        }
    }
}

impl Container {
    fn new(desired: DesiredProcess, port: u16, now: Timestamp, workloads: &Workloads) -> Self {
        Self {
            desired,
            state: ProcessState::Starting,
            port,
            restarts: 0,
            last_exit: None,
            is_at_pids_limit: false,
            until: now.after(workloads.start_time),
            change: None,
        }
    }

    /// One that runs to completion, or of which nothing is known any more.
    fn of_run(
        desired: DesiredProcess,
        may_start: bool,
        now: Timestamp,
        workloads: &Workloads,
    ) -> Self {
        let mut container = Self::new(desired, 0, now, workloads);
        if !may_start {
            container.exit(None, now);
        }
        container
    }

    /// It has ended, and is not started again.
    fn exit(&mut self, code: Option<i32>, now: Timestamp) {
        self.last_exit = Some(Exit {
            code,
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            memory_peak: code.map(|_| Bytes::mib(1)),
            at: now,
        });
        self.enter(ProcessState::Ended, Timestamp(u64::MAX));
    }

    /// Follows its desired process: as it runs, or by being replaced.
    fn change(&mut self, desired: &DesiredProcess, is_old: bool, now: Timestamp) -> bool {
        if self.state == ProcessState::Stopping || self.desired == *desired {
            self.change = None;
            return false;
        }
        if desired.run.is_some() {
            // Only whether it may be started has changed.
            self.desired = desired.clone();
            return false;
        }
        let effect = self.desired.config.change_to(&desired.config);
        let stays = self.desired.image == desired.image && effect < Effect::Process;
        if !stays || is_old && effect > Effect::Routes {
            self.enter(ProcessState::Stopping, now.after(STOP_TIME));
            return true;
        }
        match &self.change {
            Some((change, at)) if change == desired && *at <= now => {
                self.desired = desired.clone();
                self.change = None;
                true
            }
            Some((change, _)) if change == desired => false,
            _ => {
                self.change = Some((desired.clone(), now.after(CHANGE_TIME)));
                false
            }
        }
    }

    fn enter(&mut self, state: ProcessState, until: Timestamp) {
        self.state = state;
        self.until = until;
    }

    fn end(&mut self, now: Timestamp, oom_killed: bool) {
        if self.desired.run.is_some() {
            return self.exit(Some(137), now);
        }
        self.last_exit = Some(Exit {
            code: (!oom_killed).then_some(1),
            signal: oom_killed.then_some(9),
            oom_killed,
            disk_exceeded: false,
            memory_peak: None,
            at: now,
        });
        self.enter(ProcessState::BackOff, now.after(BACK_OFF));
    }

    fn advance(&mut self, now: Timestamp, workloads: &Workloads) -> bool {
        let image = &self.desired.image;
        let is_run = self.desired.run.is_some();
        match self.state {
            ProcessState::Starting if is_run => {
                self.enter(ProcessState::Healthy, now.after(workloads.run_time));
            }
            ProcessState::Healthy if is_run => {
                let fails = workloads.crashing.contains(image);
                self.exit(Some(i32::from(fails)), now);
            }
            ProcessState::BackOff => {
                self.restarts += 1;
                self.is_at_pids_limit = false;
                self.enter(ProcessState::Starting, now.after(workloads.start_time));
            }
            ProcessState::Starting if workloads.crashing.contains(image) => self.end(now, false),
            ProcessState::Starting if !workloads.unresponsive.contains(image) => {
                self.enter(ProcessState::Healthy, Timestamp(u64::MAX));
            }
            _ => return false,
        }
        true
    }

    fn report(&self) -> ProcessReport {
        ProcessReport {
            id: self.desired.id.clone(),
            service: self.desired.config.name.clone(),
            revision: self.desired.revision,
            state: self.state,
            reason: None,
            node_port: Some(self.port).filter(|port| *port > 0),
            ports: Default::default(),
            started_at: None,
            restarts: self.restarts,
            last_exit: self.last_exit,
            relaxed: Vec::new(),
            metrics: Some(ProcessMetrics {
                memory_limit: self.desired.config.memory,
                pids_limit: u64::from(self.desired.config.pids),
                pids_current: match self.is_at_pids_limit {
                    true => u64::from(self.desired.config.pids),
                    false => 1,
                },
                ..ProcessMetrics::default()
            }),
            attempts: 0,
            listening: None,
            disk_used: None,
            last_lines: Vec::new(),
            devices: self.desired.devices.clone(),
        }
    }
}
