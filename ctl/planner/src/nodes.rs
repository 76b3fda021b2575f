//! Workers: their leases, and what is tried to get a lost one back.
//!
//! ```text
//!                 report                    lease runs out
//!   Unknown ───────────────> Alive ──────────────────────────┐
//!      │                       ^                             v
//!      └── lease runs out ──>  │ report ────────────────  Missing: restart ──fails──> back-off ─┐
//!                              │                             ^  │                               │
//!                              │ report                      │  └─ all attempts failed,         │
//!                              └──────────── Dead <──────────┼───  or no restart command        │
//!                                                            └──────────────────────────────────┘
//! ```

use std::collections::BTreeSet;

use tucano_api::{
    agent::{NodeReport, ProcessReport},
    ids::{Generation, NodeName},
    state::{AlertKind, NodeCondition},
    units::{Span, Timestamp},
};

use crate::{
    cluster::Cluster,
    model::{NodeRecord, Worker},
    reasons::{self, plural},
    rivals::Rivals,
    weight::Load,
};

/// Longest error of a restart command that is kept, in characters.
const MOST_REASON_CHARS: usize = 500;

/// A worker of the topology.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) worker: Worker,
    pub(crate) record: NodeRecord,
    /// When its lease began: its last report, or when it was first expected to report.
    pub(crate) leased_at: Timestamp,
    /// Its agent and that agent's last report, so that late ones are told from new ones.
    pub(crate) last_heard: Option<(String, u64)>,
    /// Which other agents claim to be this worker's.
    pub(crate) rivals: Rivals,
    /// Its last report, without the processes, while it is alive.
    pub(crate) report: Option<NodeReport>,
    /// Processes that exist there (or may) although they are not to run.
    pub(crate) strays: Vec<ProcessReport>,
    /// Numbers of the processes that are to run there.
    pub(crate) processes: BTreeSet<u64>,
    /// What those reserve, in bytes.
    pub(crate) reserved: u64,
    pub(crate) load: Load,
    pub(crate) revival: Revival,
}

/// How far the attempts to get a missing worker back are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revival {
    /// Nothing is tried.
    Idle,
    /// Its restart command runs.
    Running,
    /// The command failed; it is tried again at this time.
    BackOff(Timestamp),
    /// The command succeeded; a report is expected until this time.
    Grace(Timestamp),
}

impl Node {
    /// A worker that has not been heard of yet.
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

    /// A worker as its record has it; an alive one is yet to be heard of.
    pub(crate) fn restored(worker: Worker, record: NodeRecord, now: Timestamp) -> Self {
        Self {
            worker,
            record,
            leased_at: now,
            last_heard: None,
            rivals: Rivals::default(),
            report: None,
            strays: Vec::new(),
            processes: BTreeSet::new(),
            reserved: 0,
            load: Load::default(),
            revival: Revival::Idle,
        }
    }

    /// Its condition as people are shown it: one that was alive before the controller's restart is unknown
    /// until it reports.
    pub(crate) fn condition(&self) -> NodeCondition {
        match self.record.condition {
            NodeCondition::Alive if self.report.is_none() => NodeCondition::Unknown,
            condition => condition,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.condition() == NodeCondition::Alive
    }

    /// Whether it is neither missing nor dead: its lease runs.
    pub(crate) fn has_lease(&self) -> bool {
        matches!(
            self.condition(),
            NodeCondition::Alive | NodeCondition::Unknown
        )
    }

    /// Bytes that processes may reserve on it, all together; none unless it is alive.
    pub(crate) fn reservable(&self) -> u64 {
        let report = self.report.as_ref();
        report.map_or(0, |report| report.metrics.memory_reservable.0)
    }

    /// Bytes that are still free to reserve.
    pub(crate) fn free(&self) -> u64 {
        self.reservable().saturating_sub(self.reserved)
    }

    pub(crate) fn take_on(&mut self, process: u64, memory: u64) {
        self.processes.insert(process);
        self.reserved = self.reserved.saturating_add(memory);
    }

    pub(crate) fn hand_over(&mut self, process: u64, memory: u64) {
        if self.processes.remove(&process) {
            self.reserved = self.reserved.saturating_sub(memory);
        }
    }

    fn deadline(&self, lease: Span) -> Option<Timestamp> {
        match self.revival {
            _ if self.has_lease() => Some(self.leased_at.after(lease)),
            Revival::BackOff(until) | Revival::Grace(until) => Some(until),
            Revival::Idle | Revival::Running => None,
        }
    }
}

impl Cluster {
    pub(crate) fn next_node_deadline(&self) -> Option<Timestamp> {
        let lease = self.settings.lease;
        self.nodes
            .iter()
            .filter_map(|node| node.deadline(lease))
            .min()
    }

    /// When every lease has run out at once, and this step comes much later than it should have, then it is
    /// the controller that stood still (a suspended machine, a stopped process): the workers get one more
    /// lease, once, to be heard.
    pub(crate) fn forgive_pause(&mut self, now: Timestamp) {
        let lease = self.settings.lease;
        let leased = || self.nodes.iter().filter(|node| node.has_lease());
        let Some(first) = leased().map(|node| node.leased_at).min() else {
            return;
        };
        let all_ran_out = leased().all(|node| node.leased_at.after(lease) <= now);
        let silent_for = now.since(self.now);
        let late_by = now.since(first.after(lease));
        let stood_still = silent_for.0 > lease.0 / 2 && late_by.0 > lease.0 / 4;
        if all_ran_out && stood_still && !self.pause_forgiven {
            self.pause_forgiven = true;
            for node in self.nodes.iter_mut().filter(|node| node.has_lease()) {
                node.leased_at = now;
            }
        }
    }

    pub(crate) fn expire_nodes(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node
                .deadline(self.settings.lease)
                .is_none_or(|at| at > self.now)
            {
                continue;
            }
            match node.revival {
                _ if node.has_lease() => self.lose(index),
                Revival::BackOff(_) => self.try_restart(index),
                _ => {
                    self.attempt_failed(index, reasons::silent_restart(self.settings.restart_grace))
                }
            }
        }
    }

    pub(crate) fn restart_finished(&mut self, name: &NodeName, result: Result<(), String>) {
        let Some(index) = self.node_index.get(name).copied() else {
            return;
        };
        let node = &mut self.nodes[index];
        if node.revival != Revival::Running {
            return;
        }
        match result {
            Ok(()) => {
                let until = self.now.after(self.settings.restart_grace);
                node.revival = Revival::Grace(until);
                node.record.reason = Some("its restart command ended well".to_owned());
                self.changes.nodes.insert(name.clone());
            }
            Err(error) => {
                let error = error.chars().take(MOST_REASON_CHARS).collect();
                self.attempt_failed(index, error);
            }
        }
    }

    /// Makes a worker alive that reports again, or for the first time.
    pub(crate) fn welcome(&mut self, index: usize, before: NodeCondition) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let name = node.record.name.clone();
        node.revival = Revival::Idle;
        if node.record.condition == NodeCondition::Unknown {
            // It may hold processes of another life: a new set, if an empty one, ends them.
            self.changes.reassign.insert(name.clone());
        }
        if node.record.condition != NodeCondition::Alive {
            node.record.condition = NodeCondition::Alive;
            node.record.since = now;
            node.record.reason = None;
            node.record.restart_attempts = 0;
            self.changes.nodes.insert(name.clone());
        }
        self.changes.resend.insert(name.clone());
        self.alive_nodes_changed();
        self.stop_waiting_for(&name);
        if matches!(before, NodeCondition::Missing | NodeCondition::Dead) {
            let ip = self.nodes[index].worker.ip;
            self.alert(
                AlertKind::NodeBack,
                &name,
                format!("worker {name} ({ip}) reports again"),
            );
        }
    }

    /// The set of alive workers is another: who could not be placed may be, and nothing is moved for a while.
    pub(crate) fn alive_nodes_changed(&mut self) {
        self.alive_unchanged_since = self.now;
        self.may_rebalance = false;
        self.changes.reconcile.extend(self.services.keys().cloned());
    }

    /// One fewer to wait for; after the last one everything is looked at and published.
    pub(crate) fn stop_waiting_for(&mut self, name: &NodeName) {
        if self.awaited.remove(name) && self.awaited.is_empty() {
            self.changes.publish = true;
            self.changes.reconcile.extend(self.services.keys().cloned());
        }
    }

    /// Counts what ran on a worker as gone. Its generation grows, so that its agent, should it come back,
    /// stops what runs elsewhere by then.
    pub(crate) fn forget_processes_of(&mut self, index: usize) {
        let numbers = std::mem::take(&mut self.nodes[index].processes);
        for number in numbers {
            self.forget(number);
        }
        let node = &mut self.nodes[index];
        node.reserved = 0;
        node.strays.clear();
    }

    /// The generations of a worker that has left the topology are not used again.
    pub(crate) fn retire_generation(&mut self, last: Generation) {
        self.counters.first_generation = self.counters.first_generation.max(last);
        self.changes.counters = true;
    }

    fn lose(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let lost = node.processes.len();
        let lease = self.settings.lease;
        node.report = None;
        node.record.condition = NodeCondition::Missing;
        node.record.since = self.now;
        node.record.reason = Some(format!("no report for {lease}"));
        node.record.restart_attempts = 0;
        let name = node.record.name.clone();
        let message = format!(
            "worker {name} ({}) has not reported for {lease}; {}",
            node.worker.ip,
            reasons::what_is_lost(lost),
        );
        self.alert(AlertKind::NodeMissing, &name, message);
        self.forget_processes_of(index);
        self.alive_nodes_changed();
        self.stop_waiting_for(&name);
        self.try_restart(index);
    }

    fn try_restart(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.worker.can_restart {
            return self.give_up(index, reasons::no_restart_command());
        }
        if node.record.restart_attempts >= self.settings.restart_attempts {
            return self.give_up(index, "no further restart is to be attempted".to_owned());
        }
        node.record.restart_attempts += 1;
        node.revival = Revival::Running;
        let name = node.record.name.clone();
        let attempt = (name.clone(), node.record.restart_attempts);
        self.changes.restarts.push(attempt);
        self.changes.nodes.insert(name);
    }

    fn attempt_failed(&mut self, index: usize, error: String) {
        let node = &mut self.nodes[index];
        let attempts = node.record.restart_attempts;
        if attempts >= self.settings.restart_attempts {
            let tried = plural(attempts as usize, "restart has", "restarts have");
            return self.give_up(index, format!("{tried} failed; the last one: {error}"));
        }
        let wait = back_off(self.settings.restart_backoff, attempts);
        node.revival = Revival::BackOff(self.now.after(wait));
        node.record.reason = Some(format!("restart {attempts} failed: {error}"));
        self.changes.nodes.insert(node.record.name.clone());
    }

    fn give_up(&mut self, index: usize, reason: String) {
        let node = &mut self.nodes[index];
        let name = node.record.name.clone();
        let message = format!(
            "worker {name} ({}) is dead: {reason}. It is used again as soon as its agent reports",
            node.worker.ip
        );
        node.revival = Revival::Idle;
        node.record.condition = NodeCondition::Dead;
        node.record.since = self.now;
        node.record.reason = Some(reason);
        self.changes.nodes.insert(name.clone());
        self.alert(AlertKind::NodeDead, name, message);
    }
}

/// How long to wait after the `attempts`-th failure: twice as long each time.
pub(crate) fn back_off(first: Span, attempts: u32) -> Span {
    let factor = 2_u32.saturating_pow(attempts.saturating_sub(1));
    Span(first.0.saturating_mul(factor))
}
