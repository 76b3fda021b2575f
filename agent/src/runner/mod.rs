//! Runner: makes what runs on this node what the controller desires.
//!
//! One task, [`Runner`], owns all state. It plans ([`plan`], pure), has the steps carried out by tasks of their own
//! ([`execute`]), and takes their results as events; nothing slow ever happens in it but keeping state on disk.

pub mod adopt;
pub mod container;
pub mod execute;
pub mod images;
pub mod lifecycle;
pub mod network;
pub mod plan;
pub mod probe;
mod process;
pub mod state;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use process::Process;
use process::{Event, Message};
use tokio::sync::{mpsc, oneshot, watch};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ProcessReport, ReportAccepted},
    ids::{Digest, Generation, NodeName, ProcessId},
};
use tucano_oci_runtime::supervisor::Running;

use self::{
    execute::Executor,
    lifecycle::{Actual, Change, Health, Phase, Step},
    plan::{Desired, next_look, plan, same_container},
    probe::{Finding, Prober},
};
use crate::clock::{Stopwatch, timestamp};

/// How long a newer desired set that the controller has announced is waited for.
const ANNOUNCED_SET_WAIT: Duration = Duration::from_secs(5);
/// Time between two looks for images that nothing uses.
const IMAGES_LOOKED_AT: Duration = Duration::from_secs(30);
/// Messages that may wait for the runner.
const QUEUE: usize = 1024;

/// Why a desired set is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is older than the one held.
    #[error("generation {given} is older than {held}, which this agent holds")]
    Stale {
        /// Its generation.
        given: Generation,
        /// The generation held.
        held: Generation,
    },
    /// It is for another node.
    #[error("the desired set is for the node {given}, and this is {own}")]
    WrongNode {
        /// The node it is for.
        given: NodeName,
        /// This node.
        own: NodeName,
    },
    /// It cannot be kept.
    #[error("{0}")]
    NotKept(String),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// What runs here: everything of a report that the runner knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Generation of the desired set that is held.
    pub generation: Generation,
    /// Every process, ordered by id, without metrics.
    pub processes: Vec<ProcessReport>,
    /// What went wrong that is no process's own.
    pub notes: Vec<String>,
}

/// The way to the runner.
#[derive(Debug, Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    snapshot: watch::Receiver<Snapshot>,
}

impl Handle {
    /// Gives the runner a desired set; it is on disk when this returns its generation.
    pub async fn desire(&self, set: DesiredSet) -> Result<Generation, Refused> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Desire(Box::new(set), answer);
        self.messages
            .send(message)
            .await
            .map_err(|_| Refused::Ending)?;
        answered.await.map_err(|_| Refused::Ending)?
    }

    /// Tells the runner what the controller answered to a report.
    pub async fn controller_answered(&self, answer: ReportAccepted) {
        // A runner that has ended needs no answers.
        drop(self.messages.send(Message::Answered(answer)).await);
    }

    /// What runs, and every change of it.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }
}

/// What the runner begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The processes that an earlier agent left.
    pub adopted: Vec<Process>,
    /// The desired set that it held.
    pub desired: Option<DesiredSet>,
    /// The node's name, where the configuration has it.
    pub node: Option<NodeName>,
    /// How long to wait for the controller's first answer before anything is started.
    pub controller_wait: Duration,
    /// How the node is called in processes' environment while its name is not known.
    pub fallback_name: NodeName,
    /// What the node lacks.
    pub notes: Vec<String>,
}

/// The task that owns the state.
#[derive(Debug)]
pub struct Runner {
    executor: Arc<Executor>,
    probe_client: reqwest::Client,
    clock: Stopwatch,
    desired: Desired,
    generation: Generation,
    node: Option<NodeName>,
    fallback_name: NodeName,
    processes: BTreeMap<ProcessId, Process>,
    /// When processes may be started even if the controller has not been heard.
    starts_allowed_at: Duration,
    attempts: u64,
    notes: Vec<String>,
    messages: mpsc::Receiver<Message>,
    to_self: mpsc::Sender<Message>,
    snapshot: watch::Sender<Snapshot>,
}

impl Runner {
    /// Builds it; nothing happens before [`Self::run`].
    pub fn new(
        executor: Arc<Executor>,
        probe_client: reqwest::Client,
        clock: Stopwatch,
        beginning: Beginning,
    ) -> (Self, Handle) {
        let (to_self, messages) = mpsc::channel(QUEUE);
        let (snapshot, snapshots) = watch::channel(Snapshot::default());
        let handle = Handle {
            messages: to_self.clone(),
            snapshot: snapshots,
        };
        let generation = beginning.desired.as_ref().map(|set| set.generation);
        let adopted = beginning.adopted.into_iter();
        let runner = Self {
            executor,
            probe_client,
            clock,
            desired: Desired {
                processes: beginning.desired.map(by_id),
                starts_allowed: false,
            },
            generation: generation.unwrap_or_default(),
            node: beginning.node,
            fallback_name: beginning.fallback_name,
            processes: adopted
                .map(|process| (process.id().clone(), process))
                .collect(),
            starts_allowed_at: clock.elapsed() + beginning.controller_wait,
            attempts: 0,
            notes: beginning.notes,
            messages,
            to_self,
            snapshot,
        };
        // Before anyone looks: a first report without the adopted processes would say that they are gone.
        runner.publish();
        (runner, handle)
    }

    /// Runs until every [`Handle`] and every task is gone, which is never; dropping the future leaves all containers running.
    pub async fn run(mut self) {
        let running: Vec<_> = self.processes.keys().cloned().collect();
        for id in running {
            self.attend(&id);
        }
        self.proceed().await;
        let mut housekeeping = tokio::time::interval(IMAGES_LOOKED_AT);
        loop {
            let wake = self.wake();
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                () = sleep_until(wake) => {}
                _ = housekeeping.tick() => self.tidy(),
            }
            self.proceed().await;
        }
    }

    /// When there may be something to do although nothing happens.
    fn wake(&self) -> Option<std::time::Instant> {
        let look = next_look(&self.desired, &self.processes, self.clock.elapsed());
        let gate = (!self.desired.starts_allowed).then_some(self.starts_allowed_at);
        let first = look.into_iter().chain(gate).min()?;
        Some(self.clock.instant(first))
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Desire(set, answer) => {
                let result = self.desire(*set).await;
                // Who asked may have left.
                drop(answer.send(result));
            }
            Message::Answered(answer) => self.controller_answered(answer),
            Message::Happened { id, attempt, event } => self.happened(&id, attempt, event).await,
        }
    }

    async fn desire(&mut self, set: DesiredSet) -> Result<Generation, Refused> {
        if let Some(own) = self.node.as_ref().filter(|own| **own != set.node) {
            return Err(Refused::WrongNode {
                given: set.node,
                own: own.clone(),
            });
        }
        if self.desired.processes.is_some() && set.generation < self.generation {
            return Err(Refused::Stale {
                given: set.generation,
                held: self.generation,
            });
        }
        let generation = set.generation;
        let executor = Arc::clone(&self.executor);
        let kept =
            tokio::task::spawn_blocking(move || executor.data.keep_desired(&set).map(|()| set));
        let set = kept
            .await
            .map_err(|_| Refused::Ending)?
            .map_err(|error| Refused::NotKept(error.to_string()))?;
        tracing::info!(%generation, processes = set.processes.len(), "new desired set");
        self.generation = generation;
        self.desired.processes = Some(by_id(set));
        self.desired.starts_allowed = true;
        Ok(generation)
    }

    fn controller_answered(&mut self, answer: ReportAccepted) {
        if self.desired.starts_allowed {
            self.node = Some(answer.node);
            return;
        }
        if answer.generation <= self.generation {
            self.desired.starts_allowed = true;
        } else if !self.notes.iter().any(|note| note == ANNOUNCED) {
            // A newer set is on its way: what is stored may be outdated.
            self.starts_allowed_at = self.clock.elapsed() + ANNOUNCED_SET_WAIT;
            self.notes.push(ANNOUNCED.to_owned());
        }
        self.node = Some(answer.node);
    }

    /// Takes every step that is due, and tells what has become of it all.
    async fn proceed(&mut self) {
        let now = self.clock.elapsed();
        if now >= self.starts_allowed_at {
            self.desired.starts_allowed = true;
        }
        if self.desired.starts_allowed {
            self.notes.retain(|note| note != ANNOUNCED);
        }
        self.follow_routing();
        for (id, step) in plan(&self.desired, &self.processes, now) {
            self.begin(&id, step, now);
        }
        self.publish();
    }

    /// A new revision that needs no new container is taken over by the one that runs.
    fn follow_routing(&mut self) {
        for desired in self
            .desired
            .processes
            .iter()
            .flatten()
            .map(|(_, desired)| desired)
        {
            if let Some(process) = self.processes.get_mut(&desired.id)
                && same_container(desired, &process.actual.process)
                && process.actual.process != *desired
            {
                process.actual.process = desired.clone();
            }
        }
    }

    fn begin(&mut self, id: &ProcessId, step: Step, now: Duration) {
        if !self.processes.contains_key(id) {
            let Some(desired) = self.desired.processes.as_ref().and_then(|all| all.get(id)) else {
                return;
            };
            let process = Process::new(Actual::new(desired.clone()));
            self.processes.insert(id.clone(), process);
        }
        let wanted = self
            .processes
            .get(id)
            .is_some_and(|process| self.desired.wants(&process.actual));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        tracing::debug!(%id, ?step, "step");
        process.prepare(step, wanted);
        process.actual.begin(step, now);
        match step {
            Step::Pull => self.pull(id),
            Step::Start => self.start(id),
            Step::Terminate => self.terminate(id),
            Step::Kill => self.kill(id),
            Step::Remove => self.remove(id),
        }
    }

    fn pull(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (executor, tell) = (Arc::clone(&self.executor), self.teller(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let image = process.actual.process.image.clone();
        let task = tokio::spawn(async move {
            let event = match executor.images.ensure(&image).await {
                Ok(image) => Event::Pulled(image),
                Err(error) => Event::Failed(error.to_string()),
            };
            tell.tell(event).await;
        });
        process.begin_attempt(attempt, task.abort_handle());
    }

    fn start(&mut self, id: &ProcessId) {
        let executor = Arc::clone(&self.executor);
        let node = self
            .node
            .clone()
            .unwrap_or_else(|| self.fallback_name.clone());
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let leased = process.lease.map_or_else(|| executor.network.lease(), Ok);
        process.lease = leased.ok();
        let (record, image) = (process.record(), process.image.clone());
        let tell = self.teller(id, self.attempt(id));
        // Not aborted by anything: its end tells whether there is a container.
        tokio::spawn(async move {
            let started = match (leased, image) {
                (Err(exhausted), _) => Err(exhausted.to_string()),
                (_, None) => Err("its image is gone".to_owned()),
                (_, Some(image)) => executor
                    .start(&record, &image, &node)
                    .await
                    .map_err(|error| error.to_string()),
            };
            tell.tell(match started {
                Ok(running) => Event::Started(running),
                Err(reason) => Event::Failed(reason),
            })
            .await;
        });
    }

    fn terminate(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let (Some(running), signal) = (process.running.clone(), process.stop_signal()) else {
            return;
        };
        let (executor, id) = (Arc::clone(&self.executor), id.clone());
        tokio::spawn(async move {
            if let Err(error) = executor.signal(running, signal).await {
                tracing::warn!(%id, %error, "cannot ask the process to end; it will be killed");
            }
        });
    }

    fn kill(&mut self, id: &ProcessId) {
        let Some(running) = self
            .processes
            .get(id)
            .and_then(|process| process.running.clone())
        else {
            return;
        };
        let (executor, tell) = (
            Arc::clone(&self.executor),
            self.teller(id, self.attempt(id)),
        );
        tokio::spawn(async move {
            if let Err(error) = executor.kill(&tell.id, running).await {
                tell.tell(Event::NotKilled(error.to_string())).await;
            }
        });
    }

    fn remove(&mut self, id: &ProcessId) {
        self.attempts += 1;
        let attempt = self.attempts;
        let (executor, tell) = (Arc::clone(&self.executor), self.teller(id, attempt));
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        process.end_attempt(attempt);
        let record = process.record();
        tokio::spawn(async move {
            let event = match executor.remove(&record).await {
                Ok(()) => Event::Removed,
                Err(error) => Event::NotRemoved(error.to_string()),
            };
            tell.tell(event).await;
        });
    }

    async fn happened(&mut self, id: &ProcessId, attempt: u64, event: Event) {
        let Some(process) = self.processes.get_mut(id).filter(|p| p.attempt == attempt) else {
            return;
        };
        let now = self.clock.elapsed();
        match event {
            Event::Pulled(image) => process.pulled(image, now),
            Event::Started(running) => {
                tracing::info!(%id, pid = running.pid, "started");
                process.started(running, now);
                self.keep(id).await;
                self.attend(id);
            }
            Event::Failed(reason) => {
                tracing::warn!(%id, %reason, "cannot start");
                process.failed(reason, now);
            }
            Event::Ended(exit) => {
                tracing::info!(%id, %exit, "ended");
                process.ended(exit, now);
                self.keep(id).await;
            }
            Event::Probed(finding) => {
                process.probed(finding, now);
                self.keep(id).await;
            }
            Event::NotKilled(reason) => {
                tracing::warn!(%id, %reason, "cannot kill");
                process.reason = Some(reason);
                process.actual.apply(Change::NotKilled, now);
            }
            Event::NotRemoved(reason) => {
                tracing::warn!(%id, %reason, "cannot remove");
                process.reason = Some(reason);
                process.actual.apply(Change::NotRemoved, now);
            }
            Event::Removed => {
                tracing::info!(%id, "removed");
                self.processes.remove(id);
                self.tidy();
            }
        }
    }

    /// Watches and probes a process that runs.
    fn attend(&mut self, id: &ProcessId) {
        let tell = self.teller(id, self.attempt(id));
        let executor = Arc::clone(&self.executor);
        let client = self.probe_client.clone();
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let (Some(running), Phase::Running { health, .. }) =
            (process.running.clone(), process.actual.phase)
        else {
            return;
        };
        if let Some(prober) = process.prober(&executor, client) {
            let task = tokio::spawn(probe(prober, health, tell.clone()));
            process.add_task(task.abort_handle());
        }
        let record = process.record();
        let task = tokio::spawn(watch_end(executor, record, running, tell));
        process.add_task(task.abort_handle());
    }

    /// After the last process, nothing that all shared remains; and images that nothing uses any more are removed.
    fn tidy(&self) {
        let executor = Arc::clone(&self.executor);
        let unused = self.processes.is_empty();
        let in_use = self.images_in_use();
        tokio::spawn(async move {
            if unused && let Err(error) = executor.remove_cgroup_parent().await {
                tracing::warn!(%error, "cannot remove the processes' parent cgroup");
            }
            if let Err(error) = executor.images.remove_unused(&in_use).await {
                tracing::warn!(%error, "cannot remove unused images");
            }
        });
    }

    /// Images of processes that exist or are to exist.
    fn images_in_use(&self) -> Vec<Digest> {
        let existing = self
            .processes
            .values()
            .map(|process| &process.actual.process);
        let desired = self
            .desired
            .processes
            .iter()
            .flatten()
            .map(|(_, desired)| desired);
        let mut images: Vec<_> = existing
            .chain(desired)
            .map(|process| process.image.clone())
            .collect();
        images.sort();
        images.dedup();
        images
    }

    /// Keeps what a later agent must know; a failure is told, and the process goes on.
    async fn keep(&mut self, id: &ProcessId) {
        let Some(record) = self.processes.get(id).map(Process::record) else {
            return;
        };
        let executor = Arc::clone(&self.executor);
        let kept = tokio::task::spawn_blocking(move || {
            let directory = executor.data.process(&record.process.id);
            directory.keep(&record, crate::files::Durability::Cached)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%id, %error, "cannot keep the process's state");
        }
    }

    fn publish(&self) {
        let snapshot = Snapshot {
            generation: self.generation,
            processes: self
                .processes
                .values()
                .map(|process| process.report(self.desired.wants(&process.actual)))
                .collect(),
            notes: self.notes.clone(),
        };
        self.snapshot.send_if_modified(|published| {
            let changed = *published != snapshot;
            *published = snapshot;
            changed
        });
    }

    fn attempt(&self, id: &ProcessId) -> u64 {
        self.processes.get(id).map_or(0, |process| process.attempt)
    }

    fn teller(&self, id: &ProcessId, attempt: u64) -> Teller {
        Teller {
            id: id.clone(),
            attempt,
            messages: self.to_self.clone(),
        }
    }
}

/// Tells the runner what happened in one attempt to run one process.
#[derive(Debug, Clone)]
struct Teller {
    id: ProcessId,
    attempt: u64,
    messages: mpsc::Sender<Message>,
}

impl Teller {
    async fn tell(&self, event: Event) {
        let message = Message::Happened {
            id: self.id.clone(),
            attempt: self.attempt,
            event,
        };
        // The runner ends only with the agent.
        drop(self.messages.send(message).await);
    }
}

/// Note while a newer desired set is waited for.
const ANNOUNCED: &str = "waiting for the desired set that the controller has announced";

async fn probe(prober: Prober, from: Health, tell: Teller) {
    let told = |finding: Finding| {
        let tell = tell.clone();
        async move { tell.tell(Event::Probed(finding)).await }
    };
    prober.run(from, told).await;
}

async fn watch_end(
    executor: Arc<Executor>,
    record: state::Record,
    running: Arc<Running>,
    tell: Teller,
) {
    let exit = match executor.watch(&record, &running).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::warn!(id = %tell.id, %error, "cannot tell how the process ended");
            tucano_api::agent::Exit {
                code: None,
                signal: None,
                oom_killed: false,
                at: timestamp(),
            }
        }
    };
    tell.tell(Event::Ended(exit)).await;
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
