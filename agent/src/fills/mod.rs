//! Volumes that this worker fills, each in a task of its own until it is whole, installed, or given up.
//!
//! - `copy`: from another worker. The agent passes on what that sends; a confined process reads it ([`crate::volumes::helper`]);
//! - `restored`: from a backup, by the program that reads repositories.

mod copy;
mod restored;
mod source;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::sleep,
};
use tucano_api::{
    agent::{NodeVolumes, VolumeInstance},
    units::Bytes,
    volumes::{FillReport, FillSource, VolumeFill},
};

use self::copy::{Copy, Failure};
use crate::{
    credentials::Credentials,
    runner::execute::Executor,
    settings::Limits,
    volumes::{Stage, Volumes},
};

/// Pause after the first failed attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The fills of this node.
#[derive(Debug)]
pub struct Fills {
    volumes: Arc<Volumes>,
    credentials: Arc<Credentials>,
    permits: Semaphore,
    most_entries: u64,
    stalled: Duration,
    /// What reads backups.
    executor: OnceLock<Weak<Executor>>,
    tasks: Mutex<BTreeMap<VolumeInstance, Task>>,
}

/// The task of one fill.
#[derive(Debug)]
struct Task {
    /// What the controller wants; nothing once it is given up.
    wanted: watch::Sender<Option<VolumeFill>>,
    progress: Arc<Progress>,
}

/// How far a fill is.
#[derive(Debug)]
struct Progress {
    report: Mutex<FillReport>,
    is_installed: AtomicBool,
}

impl Progress {
    fn change(&self, change: impl FnOnce(&mut FillReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn report(&self) -> FillReport {
        let report = self.report.lock();
        report.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Fills {
    /// Of a node without any fill yet.
    pub fn new(volumes: Arc<Volumes>, credentials: Arc<Credentials>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            volumes,
            credentials,
            permits: Semaphore::new(limits.volume_copies),
            most_entries: limits.volume_entries as u64,
            stalled: limits.stalled_transfer.0,
            executor: OnceLock::new(),
            tasks: Mutex::default(),
        })
    }

    /// Says what reads backups. Until then nothing is restored.
    pub fn restore_with(&self, executor: &Arc<Executor>) {
        self.executor.set(Arc::downgrade(executor)).ok();
    }

    /// Adds the fills to a report of the node's volumes. Workers without certificates cannot tell each other from anybody else: they
    /// copy nothing.
    pub fn add_to(&self, volumes: &mut NodeVolumes) {
        volumes.can_copy &= self.credentials.requires_controller_identity();
        let tasks = self.tasks();
        let reported = tasks.values().filter(|task| {
            let is_installed = &task.progress.is_installed;
            !is_installed.load(std::sync::atomic::Ordering::Relaxed)
        });
        volumes.fills = reported.map(|task| task.progress.report()).collect();
    }

    /// Begins new fills, and gives up those that are not wanted any more, also those of an earlier agent.
    pub fn desire(self: &Arc<Self>, wanted: &[VolumeFill]) {
        let mut tasks = self.tasks();
        for (volume, task) in tasks.iter() {
            let fill = wanted.iter().find(|fill| fill.volume == *volume);
            task.wanted.send_if_modified(|present| {
                let changed = present.as_ref() != fill;
                *present = fill.cloned();
                changed
            });
        }
        for fill in wanted {
            self.begin(&mut tasks, fill.volume.clone(), Some(fill.clone()));
        }
        for volume in self.volumes.fills() {
            if !wanted.iter().any(|fill| fill.volume == volume) {
                self.begin(&mut tasks, volume, None);
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        tasks: &mut BTreeMap<VolumeInstance, Task>,
        volume: VolumeInstance,
        fill: Option<VolumeFill>,
    ) {
        if tasks.contains_key(&volume) {
            return;
        }
        let (sender, wanted) = watch::channel(fill);
        let progress = Arc::new(Progress {
            report: Mutex::new(FillReport {
                volume: volume.clone(),
                done: Bytes(0),
                total: None,
                whole: false,
                problem: None,
                failed: false,
            }),
            is_installed: AtomicBool::new(false),
        });
        let task = Task {
            wanted: sender,
            progress: Arc::clone(&progress),
        };
        tasks.insert(volume.clone(), task);
        let fills = Arc::clone(self);
        tokio::spawn(async move { fills.run(&volume, wanted, &progress).await });
    }

    /// Works on one fill until it is given up and removed.
    async fn run(
        &self,
        volume: &VolumeInstance,
        mut wanted: watch::Receiver<Option<VolumeFill>>,
        progress: &Arc<Progress>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let fill = wanted.borrow_and_update().clone();
            let Some(fill) = fill else {
                if self.give_up(volume, &wanted).await {
                    return;
                }
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
                continue;
            };
            let outcome = tokio::select! {
                outcome = self.attempt(&fill, progress) => outcome,
                _ = wanted.changed() => continue,
            };
            match outcome {
                // Until something else is wanted.
                Ok(()) => drop(wanted.changed().await),
                Err(Failure {
                    message,
                    is_lasting,
                }) => {
                    tracing::warn!(id = %volume.id, error = message, "a volume is not copied");
                    progress.change(|report| {
                        report.problem = Some(message);
                        report.failed = is_lasting;
                    });
                    let next = async {
                        match is_lasting {
                            true => std::future::pending().await,
                            false => sleep(pause).await,
                        }
                    };
                    tokio::select! {
                        () = next => pause = LONGEST_PAUSE.min(pause * 2),
                        _ = wanted.changed() => pause = FIRST_PAUSE,
                    }
                }
            }
        }
    }

    /// Takes a fill as far as it is wanted.
    async fn attempt(&self, fill: &VolumeFill, progress: &Arc<Progress>) -> Result<(), Failure> {
        let stage = self.blocking(fill, Volumes::begin_fill).await?;
        if stage == Stage::Filling {
            let _permit = self.permits.acquire().await;
            match &fill.from {
                FillSource::Volume { .. } => self.copy(fill, progress).await?,
                FillSource::Snapshot {
                    repository,
                    snapshot,
                } => {
                    let executor = self.executor.get().and_then(Weak::upgrade);
                    let executor =
                        executor.ok_or_else(|| Failure::passing(&"the agent is starting"))?;
                    restored::restore(self, &executor, fill, repository, snapshot, progress)
                        .await?;
                }
            }
        }
        if stage != Stage::Installed {
            progress.change(|report| {
                report.whole = true;
                report.problem = None;
                report.done = report.total.unwrap_or(report.done);
            });
        }
        if stage != Stage::Installed && fill.install {
            self.blocking(fill, Volumes::install).await?;
        }
        if fill.install || stage == Stage::Installed {
            let is_installed = &progress.is_installed;
            is_installed.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    async fn copy(&self, fill: &VolumeFill, progress: &Arc<Progress>) -> Result<(), Failure> {
        let copy = Copy {
            fill,
            volumes: &self.volumes,
            credentials: &self.credentials,
            progress,
            stalled: self.stalled,
            most_entries: self.most_entries,
        };
        copy.run().await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        fill: &VolumeFill,
        run: impl FnOnce(&Volumes, &VolumeFill) -> Result<T, crate::volumes::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let (volumes, fill) = (Arc::clone(&self.volumes), fill.clone());
        let done = spawn_blocking(move || run(&volumes, &fill)).await;
        done.map_err(|error| Failure::passing(&error))?
            .map_err(Failure::from)
    }

    /// Removes what there is of a fill. Returns whether its task ends.
    async fn give_up(
        &self,
        volume: &VolumeInstance,
        wanted: &watch::Receiver<Option<VolumeFill>>,
    ) -> bool {
        let volumes = Arc::clone(&self.volumes);
        let own = volume.clone();
        let removed = spawn_blocking(move || volumes.discard_fill(&own)).await;
        let removed = removed.map_err(|error| error.to_string());
        if let Err(error) = removed.and_then(|it| it.map_err(|error| error.to_string())) {
            tracing::warn!(id = %volume.id, error, "cannot remove a copy that is not wanted");
            return false;
        }
        let mut tasks = self.tasks();
        let is_over = wanted.borrow().is_none();
        if is_over {
            tasks.remove(volume);
        }
        is_over
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<VolumeInstance, Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
