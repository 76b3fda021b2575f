//! The task that owns the runner's state: it handles messages, plans, and publishes snapshots.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ReportAccepted},
    ids::{Generation, NodeName, ProcessId},
};

use super::{
    Node,
    acceptance::HeldVersion,
    events::Message,
    execute::Executor,
    handle::{DesiredSetError, Handle, Snapshot},
    lifecycle::Phase,
    plan::{Desired, next_change, plan, predecessor, same_container},
    process::Process,
};
use crate::clock::Stopwatch;

/// Time limit of the wait for a newer desired set that the controller announced.
const ANNOUNCED_SET_WAIT: Duration = Duration::from_secs(5);
/// Time between two collections of unused images.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(30);
/// Capacity of the runner's message queue.
const QUEUE_LENGTH: usize = 1024;
/// Note in reports during that wait.
const ANNOUNCED: &str = "waiting for the desired set that the controller has announced";

/// The state that the runner starts with.
#[derive(Debug)]
pub struct InitialState {
    /// The processes of an earlier agent.
    pub adopted: Vec<Process>,
    /// The desired set that it stored.
    pub desired: Option<DesiredSet>,
    /// The node's name, if configured.
    pub node: Option<NodeName>,
    /// Time limit of the wait for the controller's first answer, before which nothing is started.
    pub controller_wait: Duration,
    /// `TUCANO_NODE` of processes while the node's name is unknown.
    pub fallback_name: NodeName,
    /// The node's conditions, for reports.
    pub notes: Vec<String>,
}

/// The task that owns the state of all processes on a node.
#[derive(Debug)]
pub struct Runner<N: Node = Executor> {
    pub(super) machine: Arc<N>,
    pub(super) clock: Stopwatch,
    pub(super) desired: Desired,
    version: HeldVersion,
    /// Why desired sets are refused, since the last one that was accepted.
    refusal: Option<String>,
    pub(super) node: Option<NodeName>,
    pub(super) fallback_name: NodeName,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// When processes may be started without an answer of the controller.
    starts_allowed_at: Duration,
    pub(super) attempts: u64,
    notes: Vec<String>,
    messages: mpsc::Receiver<Message>,
    pub(super) to_self: mpsc::Sender<Message>,
    snapshot: watch::Sender<Snapshot>,
}

impl<N: Node> Runner<N> {
    /// Builds the runner; it does nothing before [`Self::run`].
    pub fn new(machine: Arc<N>, clock: Stopwatch, initial: InitialState) -> (Self, Handle) {
        let (to_self, messages) = mpsc::channel(QUEUE_LENGTH);
        let (snapshot, snapshots) = watch::channel(Snapshot::default());
        let handle = Handle {
            messages: to_self.clone(),
            snapshot: snapshots,
        };
        let version = initial.desired.as_ref().map(HeldVersion::of);
        if let Some(set) = &initial.desired {
            machine.copy_volumes(set);
        }
        let removed_volumes = initial
            .desired
            .as_ref()
            .map(|set| set.removed_volumes.clone());
        let adopted = initial.adopted.into_iter();
        let runner = Self {
            machine,
            clock,
            desired: Desired {
                processes: initial.desired.map(by_id),
                starts_allowed: false,
                removed_volumes: removed_volumes.unwrap_or_default(),
            },
            version: version.unwrap_or_default(),
            refusal: None,
            node: initial.node,
            fallback_name: initial.fallback_name,
            processes: adopted
                .map(|process| (process.id().clone(), process))
                .collect(),
            starts_allowed_at: clock.elapsed() + initial.controller_wait,
            attempts: 0,
            notes: initial.notes,
            messages,
            to_self,
            snapshot,
        };
        // Before the first report, which without the adopted processes would say that they are gone.
        runner.publish();
        (runner, handle)
    }

    /// Runs until the future is dropped, which leaves all containers running.
    pub async fn run(mut self) {
        let running: Vec<_> = self.processes.keys().cloned().collect();
        for id in running {
            self.watch(&id);
        }
        self.reconcile().await;
        let mut garbage = tokio::time::interval(GARBAGE_INTERVAL);
        loop {
            let wake = self.next_wake();
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(message) => self.handle_message(message).await,
                    None => return,
                },
                () = sleep_until(wake) => {}
                _ = garbage.tick() => self.collect_garbage(),
            }
            self.reconcile().await;
        }
    }

    /// When the plan may change without an event.
    fn next_wake(&self) -> Option<std::time::Instant> {
        let look = next_change(&self.desired, &self.processes, self.clock.elapsed());
        let gate = (!self.desired.starts_allowed).then_some(self.starts_allowed_at);
        let first = look.into_iter().chain(gate).min()?;
        Some(self.clock.instant(first))
    }

    async fn handle_message(&mut self, message: Message) {
        match message {
            Message::Desire(set, answer) => {
                let result = self.desire(*set).await;
                // The client may have disconnected.
                drop(answer.send(result));
            }
            Message::Answered(answer) => self.controller_answered(answer).await,
            Message::Held(answer) => {
                let held = self.desired.processes.iter().flatten();
                drop(answer.send(held.map(|(_, process)| process.clone()).collect()));
            }
            Message::Count(answer) => drop(answer.send(self.processes.len())),
            Message::Event { id, attempt, event } => self.handle_event(&id, attempt, event).await,
        }
    }

    async fn desire(&mut self, set: DesiredSet) -> Result<Generation, DesiredSetError> {
        if let Some(own) = self.node.as_ref().filter(|own| **own != set.node) {
            return Err(DesiredSetError::WrongNode {
                given: set.node,
                own: own.clone(),
            });
        }
        if let Err(error) = self.version.accepts(&set) {
            if error.is_lasting() {
                tracing::warn!(%error, "a desired set was refused");
                self.refusal = Some(error.to_string());
            }
            return Err(error);
        }
        let version = HeldVersion::of(&set);
        let generation = set.generation;
        let stored = self.machine.store_desired(&set).await;
        stored.map_err(DesiredSetError::NotStored)?;
        self.machine.copy_volumes(&set);
        tracing::info!(%generation, processes = set.processes.len(), "accepted a desired set");
        self.version = version;
        self.refusal = None;
        self.desired
            .removed_volumes
            .clone_from(&set.removed_volumes);
        self.desired.processes = Some(by_id(set));
        self.desired.starts_allowed = true;
        if !self.desired.removed_volumes.is_empty() {
            self.tidy_volumes();
        }
        Ok(generation)
    }

    async fn controller_answered(&mut self, mut answer: ReportAccepted) {
        if let Some(set) = answer.desired.take()
            && let Err(refused) = self.desire(*set).await
        {
            tracing::debug!(%refused, "the desired set of the controller's answer was refused");
        }
        if self.desired.starts_allowed {
            self.node = Some(answer.node);
            return;
        }
        if answer.generation <= self.version.generation {
            self.desired.starts_allowed = true;
        } else if !self.notes.iter().any(|note| note == ANNOUNCED) {
            // The stored set may be outdated: a newer one is on its way.
            self.starts_allowed_at = self.clock.elapsed() + ANNOUNCED_SET_WAIT;
            self.notes.push(ANNOUNCED.to_owned());
        }
        self.node = Some(answer.node);
    }

    /// Starts every step that is due, and publishes the new state.
    async fn reconcile(&mut self) {
        let now = self.clock.elapsed();
        if now >= self.starts_allowed_at {
            self.desired.starts_allowed = true;
        }
        if self.desired.starts_allowed {
            self.notes.retain(|note| note != ANNOUNCED);
        }
        self.take_changes().await;
        for lost in self.desired.lost_runs(&self.processes) {
            tracing::warn!(id = %lost.id, "it was started, and nothing is known of it any more");
            let id = lost.id.clone();
            self.processes.insert(id, Process::lost(lost, now));
        }
        for (id, step) in plan(&self.desired, &self.processes, now) {
            self.begin(&id, step, now);
        }
        self.publish();
    }

    /// Gives processes what has changed in the desired set, where that needs no new container.
    async fn take_changes(&mut self) {
        let desired = self.desired.processes.iter().flatten();
        let changed = desired.filter_map(|(id, desired)| {
            let actual = &self.processes.get(id)?.actual;
            let differs = actual.process != *desired && same_container(desired, &actual.process);
            differs.then(|| desired.clone())
        });
        let changed: Vec<DesiredProcess> = changed.collect();
        for desired in changed {
            self.take_change(&desired).await;
        }
    }

    async fn take_change(&mut self, desired: &DesiredProcess) {
        let id = &desired.id;
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let taken = process.take(desired);
        let tries = process.needs_probe_trial(desired);
        let disk_used = process.last_disk_used();
        if tries {
            self.try_probe(desired);
        }
        if taken.probe {
            self.probe(id);
        }
        if !taken.any {
            return;
        }
        if let Some(bytes) = disk_used {
            self.disk_used(id, bytes);
        }
        if self.processes.get(id).is_some_and(Process::has_record) {
            self.store_record(id).await;
        }
    }

    /// Why a process waits for another one.
    fn waiting_reason(&self, process: &Process) -> Option<String> {
        if process.actual.phase != Phase::Pulled {
            return None;
        }
        let (other, what) = predecessor(&self.desired, &self.processes, &process.actual)?;
        Some(format!("it waits until {other}, which has {what}, is gone"))
    }

    fn publish(&self) {
        let snapshot = Snapshot {
            generation: self.version.generation,
            identity: self.version.identity.clone(),
            processes: self
                .processes
                .values()
                .map(|process| {
                    let wanted = self.desired.wants(&process.actual);
                    let relaxed = self.machine.relaxed(&process.actual.process.config);
                    let mut report = process.report(wanted, relaxed);
                    report.reason = report.reason.or_else(|| self.waiting_reason(process));
                    report
                })
                .collect(),
            notes: self.notes.iter().chain(&self.refusal).cloned().collect(),
        };
        self.snapshot.send_if_modified(|published| {
            let changed = *published != snapshot;
            *published = snapshot;
            changed
        });
    }
}

fn by_id(set: DesiredSet) -> BTreeMap<ProcessId, DesiredProcess> {
    let processes = set.processes.into_iter();
    processes
        .map(|process| (process.id.clone(), process))
        .collect()
}

async fn sleep_until(moment: Option<std::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
