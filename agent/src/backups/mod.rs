//! Backups of volumes, and what is restored from them.
//!
//! - [`Backups`]: the orders of the desired set, which of them run, and how they have ended;
//! - `repository`: where backups are, and the values of its secrets;
//! - `engine`: the program that stores and restores, one child for each operation;
//! - `tree`: the files of a volume, whose process is frozen for a moment; `dump`: the output of a command in the container;
//! - `load`: a stored output that a command in the container reads; [`restore_into`]: stored files;
//! - `session`: commands in containers.
//!
//! Orders are levels: one that is in the desired set begins once, and is reported until it is gone; one that is gone before its end is
//! given up. An agent knows nothing of its predecessor's: what had not ended begins anew, and what the predecessor's children had
//! begun ends with their standard input.

mod dump;
mod engine;
mod load;
mod repository;
mod session;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    process::ChildStdout,
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::timeout,
};
use tucano_api::{
    agent::{DesiredSet, NodeVolumes, ProcessState, VolumeInstance},
    ids::{NodeName, ProcessId, VolumeId},
    units::{Bytes, Timestamp},
    volumes::{
        BackupEnd, BackupOrder, BackupReport, Consistency, Repository as Wanted,
        Snapshot as Reported, VolumeLoad,
    },
};
use tucano_backup::{
    BackedUp, Backup, Failure, Forget, Init, Operation, Outcome, Parent, Repository, Request,
    Source,
};
use tucano_tls::Mode;

pub use self::load::restore_into;
use self::{
    engine::{Engine, Events, Input, internal},
    repository::Rules,
};
use crate::{
    runner::{Snapshot, execute::Executor},
    settings::{BackupSettings, DEFAULT_CGROUP, Settings},
};

/// Largest number of backups in a report: those that have ended first.
const MAX_REPORTED: usize = 1000;

/// A volume's name and instance.
type Instance = (VolumeId, u64);

/// The backups of this node.
#[derive(Debug)]
pub struct Backups {
    options: BackupSettings,
    engine: Engine,
    paths: Vec<PathBuf>,
    /// Secrets are given to nodes with identities only.
    has_identity: bool,
    state: Mutex<State>,
    changed: Notify,
    slots: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    node: Option<NodeName>,
    orders: Vec<BackupOrder>,
    tasks: BTreeMap<(Instance, u64), Task>,
    loads: Vec<(ProcessId, VolumeInstance, VolumeLoad)>,
    /// The volumes into which something is being loaded.
    loading: BTreeSet<Instance>,
}

/// An order that was begun.
#[derive(Debug)]
struct Task {
    progress: Arc<AtomicU64>,
    end: Option<BackupEnd>,
    task: AbortHandle,
}

impl Drop for Task {
    /// Kills its programs, and thaws its process.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backups {
    /// Of these settings. Nothing begins before [`run`].
    pub fn new(settings: &Settings) -> Self {
        let options = settings.backups.clone();
        let cgroup = settings.cgroup.as_deref().unwrap_or(DEFAULT_CGROUP);
        Self {
            engine: Engine {
                program: options
                    .program
                    .clone()
                    .unwrap_or_else(engine::usual_program),
                cgroup: cgroup.to_owned(),
                memory: options.memory.0,
            },
            paths: settings.backup_paths.clone(),
            has_identity: settings.tls_mode() == Mode::On,
            slots: Arc::new(Semaphore::new(options.concurrency)),
            options,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Why this node makes no backups; none if it does.
    pub fn obstacle(&self) -> Option<String> {
        if !self.has_identity {
            return Some(
                "traffic with the controller is not TLS, and without it no node gets secrets"
                    .to_owned(),
            );
        }
        let program = &self.engine.program;
        let is_missing = !program.is_file();
        is_missing.then(|| {
            format!(
                "{} is missing: install the package tucano-agent, put the program beside tucano_agentd, or set backups.program in agent.toml",
                program.display()
            )
        })
    }

    /// The same, where the node's settings say that it should.
    pub(crate) fn condition(&self) -> Option<String> {
        let obstacle = self.obstacle().filter(|_| !self.paths.is_empty())?;
        Some(format!("volumes cannot be backed up here: {obstacle}"))
    }

    /// Takes the orders and loads of a desired set. Orders that are not in it are given up.
    pub fn desire(&self, set: &DesiredSet) {
        let mut state = self.state();
        state.node = Some(set.node.clone());
        state.orders.clone_from(&set.backups);
        let ordered: BTreeSet<_> = set.backups.iter().map(key).collect();
        state.tasks.retain(|key, _| ordered.contains(key));
        let loads = set.processes.iter().flat_map(|process| {
            let volumes = process.volumes.iter();
            volumes.filter_map(|it| Some((process.id.clone(), it.volume.clone(), it.load.clone()?)))
        });
        state.loads = loads.collect();
        drop(state);
        self.changed.notify_one();
    }

    /// Completes the report of the volumes.
    pub fn report(&self, volumes: &mut NodeVolumes) {
        volumes.can_back_up = self.obstacle().is_none();
        let paths = self.paths.iter();
        volumes.backup_paths = paths.map(|path| path.display().to_string()).collect();
        let state = self.state();
        let tasks = state.tasks.iter();
        let reports = tasks.map(|(((id, instance), number), task)| BackupReport {
            volume: VolumeInstance {
                id: id.clone(),
                instance: *instance,
            },
            number: *number,
            done: Bytes(task.progress.load(Ordering::Relaxed)),
            end: task.end.clone(),
        });
        volumes.backups = reports.collect();
        volumes.backups.sort_by_key(|report| report.end.is_none());
        volumes.backups.truncate(MAX_REPORTED);
    }

    /// Begins what is due.
    fn begin(self: &Arc<Self>, executor: &Arc<Executor>, snapshots: &watch::Receiver<Snapshot>) {
        let mut state = self.state();
        let Some(node) = state.node.clone() else {
            return;
        };
        for order in state.orders.clone() {
            let key = key(&order);
            if state.tasks.contains_key(&key) {
                continue;
            }
            let progress = Arc::new(AtomicU64::new(0));
            let prepared = Prepared {
                executor: Arc::clone(executor),
                order,
                node: node.clone(),
                progress: Arc::clone(&progress),
                snapshots: snapshots.clone(),
            };
            let (this, of) = (Arc::clone(self), key.clone());
            let task = tokio::spawn(async move {
                let end = this.back_up(prepared).await;
                if let Some(task) = this.state().tasks.get_mut(&of) {
                    task.end = Some(end);
                }
            });
            let task = Task {
                progress,
                end: None,
                task: task.abort_handle(),
            };
            state.tasks.insert(key, task);
        }
        let snapshot = snapshots.borrow();
        for (process, volume, load) in state.loads.clone() {
            let key = (volume.id.clone(), volume.instance);
            let is_new = !state.loading.contains(&key) && !executor.volumes.has_load(&volume);
            if !is_new || health(&snapshot, &process) != Some(ProcessState::Healthy) {
                continue;
            }
            state.loading.insert(key.clone());
            let (this, executor) = (Arc::clone(self), Arc::clone(executor));
            tokio::spawn(async move {
                load::load(executor, process, volume, load).await;
                this.state().loading.remove(&key);
            });
        }
    }

    /// Makes one backup.
    async fn back_up(&self, prepared: Prepared) -> BackupEnd {
        let id = prepared.order.volume.id.clone();
        let _slot = self.slots.acquire().await;
        tracing::info!(volume = %id, to = prepared.order.repository.location, "a backup begins");
        let limit = self.options.timeout;
        let made = timeout(limit.0, self.make(prepared)).await;
        let made = made.unwrap_or_else(|_| {
            Err(format!(
                "it took longer than {limit} (backups.timeout in agent.toml)"
            ))
        });
        match made {
            Ok(snapshot) => {
                tracing::info!(volume = %id, snapshot = snapshot.id, bytes = %snapshot.bytes, "a backup is stored");
                BackupEnd::Stored(snapshot)
            }
            Err(error) => {
                tracing::warn!(volume = %id, error, "a backup failed");
                BackupEnd::Failed { error }
            }
        }
    }

    async fn make(&self, prepared: Prepared) -> Result<Reported, String> {
        let Prepared {
            executor,
            order,
            node,
            progress,
            snapshots,
        } = prepared;
        let (volumes, volume) = (Arc::clone(&executor.volumes), order.volume.clone());
        let held = tokio::task::spawn_blocking(move || volumes.hold(&volume)).await;
        let held = held
            .map_err(|_| "the agent is ending".to_owned())?
            .map_err(|error| error.to_string())?;
        let repository = self.repository(&executor, &order.repository).await?;
        let mut job = Job {
            executor,
            order,
            node,
            progress,
            snapshots,
            repository,
        };
        let repository = match &job.repository.expected_id {
            Some(id) => id.clone(),
            None => job.initialise().await?,
        };
        job.repository.expected_id = Some(repository.clone());
        let stored = match job.order.dump.is_empty() {
            true => tree::store(&job, &held).await?,
            false => dump::store(&job).await?,
        };
        drop(held);
        job.forget().await;
        let location = job.order.repository.location.clone();
        Ok(stored.reported(location, repository))
    }

    /// A repository with the values of its secrets.
    async fn repository(&self, executor: &Executor, wanted: &Wanted) -> Result<Repository, String> {
        let own = [executor.data.root(), executor.volumes.place()];
        let rules = Rules {
            listed: &self.paths,
            own: &own,
            patience: self.options.process_wait.0,
        };
        repository::open(&executor.secrets, wanted, rules).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins backups and loads as they are desired, until the future is dropped.
pub async fn run(executor: Arc<Executor>, mut snapshots: watch::Receiver<Snapshot>) {
    let backups = Arc::clone(&executor.backups);
    let engine = backups.engine.clone();
    tokio::task::spawn_blocking(move || engine.clear())
        .await
        .ok();
    loop {
        snapshots.mark_unchanged();
        backups.begin(&executor, &snapshots);
        tokio::select! {
            () = backups.changed.notified() => {}
            changed = snapshots.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

/// An order and what it takes.
struct Prepared {
    executor: Arc<Executor>,
    order: BackupOrder,
    node: NodeName,
    progress: Arc<AtomicU64>,
    snapshots: watch::Receiver<Snapshot>,
}

/// A backup that is being made.
struct Job {
    executor: Arc<Executor>,
    order: BackupOrder,
    node: NodeName,
    progress: Arc<AtomicU64>,
    snapshots: watch::Receiver<Snapshot>,
    repository: Repository,
}

/// What is in the repository.
struct Stored {
    result: BackedUp,
    at: Timestamp,
    consistency: Consistency,
}

impl Stored {
    fn new(result: BackedUp, at: Timestamp, consistency: Consistency) -> Self {
        Self {
            result,
            at,
            consistency,
        }
    }

    fn reported(self, location: String, repository: String) -> Reported {
        Reported {
            id: self.result.snapshot,
            at: self.at,
            location,
            repository,
            bytes: Bytes(self.result.bytes),
            added: Bytes(self.result.added),
            consistency: self.consistency,
        }
    }
}

impl Job {
    async fn start(&self, operation: Operation) -> Result<(Input, Events, ChildStdout), Failure> {
        let request = Request {
            repository: self.repository.clone(),
            operation,
            limits: Default::default(),
        };
        let engine = &self.executor.backups.engine;
        engine.start(&request, &self.progress).await
    }

    fn backup(&self, source: Source, at: Timestamp) -> Backup {
        let id = &self.order.volume.id;
        Backup {
            source,
            volume: id.to_string(),
            host: self.node.to_string(),
            tags: vec![format!("service={}", id.service_name())],
            time: Some(rfc3339(at)),
            parent: Parent::Newest,
            draft: false,
            forget_parent: false,
            skip_unreadable: false,
        }
    }

    /// A failure in words for the user.
    fn explained<T>(&self, result: Result<T, Failure>) -> Result<T, String> {
        result.map_err(|failure| repository::explain(&failure, &self.order.repository))
    }

    /// Opens the repository, or creates it where there is none. Returns its id.
    async fn initialise(&self) -> Result<String, String> {
        let started = self.start(Operation::Init(Init {})).await;
        let (_input, mut events, _) = self.explained(started)?;
        match self.explained(events.result().await)? {
            Outcome::Initialised(found) => {
                if found.created {
                    tracing::info!(
                        location = self.order.repository.location,
                        "created a repository"
                    );
                }
                Ok(found.id)
            }
            other => Err(format!("tucano_backup has another result: {other:?}")),
        }
    }

    /// Removes what is beyond `keep`. The backup counts even if that fails: the next one does it again.
    async fn forget(&self) {
        let id = &self.order.volume.id;
        let forget = Operation::Forget(Forget {
            volume: id.to_string(),
            keep: tree::kept(self.order.keep),
            prune: true,
        });
        let forgotten = async {
            let (_input, mut events, _) = self.start(forget).await?;
            match events.result().await? {
                Outcome::Forgotten(forgotten) => Ok(forgotten),
                other => Err(internal(format!("another result: {other:?}"))),
            }
        };
        match forgotten.await {
            Ok(forgotten) => {
                if let Some(reason) = forgotten.put_off {
                    tracing::info!(volume = %id, reason, "pruning is put off until the next backup");
                }
            }
            Err(failure) => {
                tracing::warn!(volume = %id, %failure, "old backups stay until the next one");
            }
        }
    }

    /// Waits for the health of a process, for a limited time.
    async fn wait_until_healthy(&self, process: &ProcessId) -> Result<(), String> {
        let mut snapshots = self.snapshots.clone();
        let is_healthy =
            |snapshot: &Snapshot| health(snapshot, process) == Some(ProcessState::Healthy);
        let limit = self.executor.backups.options.process_wait;
        match timeout(limit.0, snapshots.wait_for(is_healthy)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!(
                "`dump` runs in {process}, which was not healthy within {limit} (backups.process_wait in agent.toml)"
            )),
        }
    }
}

fn health(snapshot: &Snapshot, process: &ProcessId) -> Option<ProcessState> {
    let mut processes = snapshot.processes.iter();
    let found = processes.find(|it| it.id == *process)?;
    Some(found.state)
}

fn key(order: &BackupOrder) -> (Instance, u64) {
    let VolumeInstance { id, instance } = &order.volume;
    ((id.clone(), *instance), order.number)
}

/// A time as RFC 3339 has it.
fn rfc3339(at: Timestamp) -> String {
    let text = at.to_string();
    let text = text.trim_end_matches(" UTC").replacen(' ', "T", 1);
    format!("{text}.{:03}Z", at.0 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_repositories_have_them() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        let at = Timestamp(1_796_022_000_042);
        assert_eq!(rfc3339(at), "2026-11-30T07:00:00.042Z");
    }
}
