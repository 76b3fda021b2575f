//! The task that owns the state: it takes messages, plans, and publishes what has become of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tucano_api::{
    agent::{DesiredProcess, DesiredSet, ReportAccepted},
    ids::{Generation, NodeName, ProcessId},
};

use super::{
    events::Message,
    execute::Executor,
    handle::{Handle, Refused, Snapshot},
    plan::{Desired, next_look, plan, same_container},
    process::Process,
};
use crate::clock::Stopwatch;

/// How long a newer desired set that the controller has announced is waited for.
const ANNOUNCED_SET_WAIT: Duration = Duration::from_secs(5);
/// Time between two looks for images that nothing uses.
const IMAGES_LOOKED_AT: Duration = Duration::from_secs(30);
/// Messages that may wait for the runner.
const QUEUE: usize = 1024;
/// Note while a newer desired set is waited for.
const ANNOUNCED: &str = "waiting for the desired set that the controller has announced";

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
    pub(super) executor: Arc<Executor>,
    pub(super) probe_client: reqwest::Client,
    pub(super) clock: Stopwatch,
    pub(super) desired: Desired,
    generation: Generation,
    pub(super) node: Option<NodeName>,
    pub(super) fallback_name: NodeName,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// When processes may be started even if the controller has not been heard.
    starts_allowed_at: Duration,
    pub(super) attempts: u64,
    notes: Vec<String>,
    messages: mpsc::Receiver<Message>,
    pub(super) to_self: mpsc::Sender<Message>,
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
            Message::Count(answer) => drop(answer.send(self.processes.len())),
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

    fn publish(&self) {
        let snapshot = Snapshot {
            generation: self.generation,
            processes: self
                .processes
                .values()
                .map(|process| {
                    let wanted = self.desired.wants(&process.actual);
                    process.report(wanted, &self.executor)
                })
                .collect(),
            notes: self.notes.clone(),
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
