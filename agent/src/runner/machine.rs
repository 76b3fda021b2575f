//! [`Executor`] as the runner's [`Node`].

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddrV4,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tucano_api::{
    agent::{DesiredProcess, DesiredSet, Exit, VolumeInstance},
    ids::{Digest, NodeName, ProcessId},
    jobs::{LAST_LINES, MAX_LINE_BYTES},
    service::ServiceConfig,
};
use tucano_oci_runtime::{cgroup::Limits, supervisor::Running};

use super::{
    Node, disk,
    events::{Event, EventSender},
    execute::{Error, Executor, blocking},
    freezer::Frozen,
    images::ProcessImages,
    lifecycle::Health,
    network::{Exhausted, FurtherPorts, Lease},
    probe::{self, Prober, host_of},
    state::Record,
};
use crate::{
    logs::{self, Bounds, Part, Selection},
    volumes,
};

/// The running containers by process.
#[derive(Debug, Default)]
pub struct Containers {
    running: Mutex<HashMap<ProcessId, Arc<Running>>>,
    /// Those that are being started.
    launching: Mutex<HashSet<ProcessId>>,
}

/// Whether a process has a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has none.
    Absent,
    /// It is being started.
    Launching,
    /// It runs.
    Running,
}

/// A process that is being started, until this is dropped.
#[derive(Debug)]
struct Launching<'a>(&'a Containers, ProcessId);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        self.0.launching().remove(&self.1);
    }
}

impl Containers {
    /// Adds a running container.
    pub fn insert(&self, id: ProcessId, running: Arc<Running>) {
        self.lock().insert(id, running);
    }

    fn get(&self, id: &ProcessId) -> Result<Arc<Running>, Error> {
        self.lock().get(id).cloned().ok_or(Error::NotRunning)
    }

    fn remove(&self, id: &ProcessId) {
        self.lock().remove(id);
    }

    /// Whether a process has a container.
    pub fn presence(&self, id: &ProcessId) -> Presence {
        // In this order: a start adds the one before it removes the other.
        if self.launching().contains(id) {
            return Presence::Launching;
        }
        match self.lock().contains_key(id) {
            true => Presence::Running,
            false => Presence::Absent,
        }
    }

    fn launch(&self, id: &ProcessId) -> Launching<'_> {
        self.launching().insert(id.clone());
        Launching(self, id.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProcessId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launching(&self) -> MutexGuard<'_, HashSet<ProcessId>> {
        self.launching
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node for Executor {
    async fn pull(&self, process: &DesiredProcess) -> Result<ProcessImages, String> {
        self.images.of_process(process).await.map_err(sentence)
    }

    fn lease(&self, config: &ServiceConfig) -> Result<(Lease, FurtherPorts), Exhausted> {
        self.network.lease(config)
    }

    async fn launch(
        &self,
        record: &Record,
        images: &ProcessImages,
        node: &NodeName,
    ) -> Result<i32, String> {
        let ids_base = record.lease.and_then(|lease| self.ids_base(lease));
        let secrets = self.secrets.prepare(&record.process, ids_base.unwrap_or(0));
        secrets.await?;
        let _launching = self.containers.launch(&record.process.id);
        let running = self.start(record, images, node).await.map_err(sentence)?;
        let pid = running.pid;
        let id = record.process.id.clone();
        self.containers.insert(id, running);
        Ok(pid)
    }

    async fn wait(&self, record: &Record) -> Result<Exit, String> {
        let id = &record.process.id;
        let running = self.containers.get(id).map_err(sentence)?;
        let exit = self.wait_for_end(record, &running).await;
        self.containers.remove(id);
        exit.map_err(sentence)
    }

    async fn last_lines(&self, id: &ProcessId) -> Vec<String> {
        let home = self.data.process(id).home();
        let lines = blocking(move || Ok(last_lines(&home)));
        lines.await.unwrap_or_default()
    }

    async fn probe(&self, record: &Record, from: Health, events: EventSender) {
        let Some(prober) = self.prober(record) else {
            return;
        };
        let send = |finding| {
            let events = events.clone();
            async move { events.send(Event::Probed(finding)).await }
        };
        prober.run(from, send).await;
    }

    async fn try_probe(&self, record: &Record, events: EventSender) {
        let Some(prober) = self.prober(record) else {
            return;
        };
        let mut last = None;
        while let Err(reason) = prober.probe().await {
            if last.as_ref() != Some(&reason) {
                events.send(Event::ProbeFailed(reason.clone())).await;
                last = Some(reason);
            }
            tokio::time::sleep(prober.config.interval.0).await;
        }
        let process = Box::new(record.process.clone());
        events.send(Event::ProbeAnswered(process)).await;
    }

    async fn resize(&self, process: &DesiredProcess) -> Result<(), String> {
        self.grow_volumes(process).await.map_err(sentence)?;
        let (workspace, config) = (self.workspace(&process.id), process.config.clone());
        let resized = blocking(move || {
            let mut cgroup = workspace.recorded_cgroup().ok_or(Error::NotRunning)?;
            Ok(cgroup.resize(limits(&config))?)
        });
        resized.await.map_err(sentence)
    }

    async fn measure_disk(&self, events: EventSender) {
        let home = self.data.process(events.id()).home();
        disk::measure(home, self.disk_interval, events).await;
    }

    async fn signal(&self, id: &ProcessId, signal: i32) -> Result<(), String> {
        let running = self.containers.get(id).map_err(sentence)?;
        self.thaw(id).await;
        self.send_signal(running, signal).await.map_err(sentence)
    }

    async fn kill(&self, id: &ProcessId) -> Result<(), String> {
        let running = self.containers.get(id).map_err(sentence)?;
        self.thaw(id).await;
        self.kill_all(id, running).await.map_err(sentence)
    }

    async fn remove(&self, record: &Record) -> Result<(), String> {
        self.remove_all(record).await.map_err(sentence)
    }

    async fn remove_shared(&self) -> Result<(), String> {
        self.remove_idle().await.map_err(sentence)
    }

    async fn remove_unused_images(&self, in_use: &[Digest]) -> Result<(), String> {
        let retained = self.retained.clone();
        let pruned = blocking(move || {
            let pruned = retained.prune(std::time::SystemTime::now());
            pruned.map_err(|source| Error::File {
                what: "remove output below",
                path: retained.root().to_owned(),
                source,
            })
        });
        pruned.await.map_err(sentence)?;
        self.images.remove_unused(in_use).await.map_err(sentence)
    }

    async fn tidy_volumes(&self, removed: &[VolumeInstance]) {
        let (volumes, removed) = (Arc::clone(&self.volumes), removed.to_vec());
        let tidied = blocking(move || {
            for volume in &removed {
                if let Err(error) = volumes.remove(volume) {
                    tracing::warn!(id = %volume.id, %error, "cannot remove a volume");
                }
            }
            volumes.unmount_idle(volumes::IDLE_LIMIT);
            volumes.maintain();
            Ok(())
        });
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "cannot tidy volumes up");
        }
    }

    fn copy_volumes(&self, set: &DesiredSet) {
        self.volumes.export(&set.exports);
        self.fills.desire(&set.fills);
    }

    async fn store_desired(&self, set: &DesiredSet) -> Result<(), String> {
        let (data, set) = (Arc::clone(&self.data), set.clone());
        let secrets = Arc::clone(&self.secrets);
        let volumes = Arc::clone(&self.volumes);
        let backups = Arc::clone(&self.backups);
        let stored = blocking(move || {
            volumes.note_cluster(&set)?;
            data.store_desired(&set)?;
            secrets.prune(&set.processes);
            backups.desire(&set);
            Ok(())
        });
        stored.await.map_err(sentence)
    }

    async fn store_record(&self, record: &Record) -> Result<(), String> {
        if let Some(lease) = record.lease {
            let opened = self.network.set_process(lease, &record.process);
            opened.await.map_err(sentence)?;
        }
        let (directory, record) = (self.data.process(&record.process.id), record.clone());
        let stored = blocking(move || Ok(directory.store(&record)?));
        stored.await.map_err(sentence)
    }

    fn relaxed(&self, config: &ServiceConfig) -> Vec<String> {
        self.relaxations(config)
    }
}

impl Executor {
    /// Thaws a process that is about to be stopped.
    async fn thaw(&self, id: &ProcessId) {
        let (freezer, id) = (Arc::clone(&self.freezer), id.clone());
        let thawed = tokio::task::spawn_blocking(move || freezer.thaw(&id));
        drop(thawed.await);
    }

    /// Freezes a running process for so long at most.
    ///
    /// # Errors
    /// It does not run, or does not stop in time. A message for the user.
    pub async fn freeze(&self, id: &ProcessId, limit: Duration) -> Result<Frozen, String> {
        let (freezer, workspace) = (Arc::clone(&self.freezer), self.workspace(id));
        let id = id.clone();
        let frozen = tokio::task::spawn_blocking(move || {
            let cgroup = workspace.recorded_cgroup();
            let cgroup = cgroup.ok_or_else(|| format!("{id} has no cgroup"))?;
            freezer.freeze(&id, cgroup, workspace.frozen(), limit)
        });
        frozen.await.map_err(|_| "the agent is ending".to_owned())?
    }

    /// The prober of a process; `None` if it has no address.
    fn prober(&self, record: &Record) -> Option<Prober> {
        let lease = record.lease?;
        let config = &record.process.config;
        Some(Prober {
            address: config
                .probed_port()
                .map(|port| SocketAddrV4::new(lease.ip, port)),
            ports: probe::of_ports(lease.ip, config),
            host: host_of(config),
            config: config.health.clone(),
            home: self.data.process(&record.process.id).home(),
            runtime: Arc::clone(&self.runtime),
            client: self.probe_client.clone(),
            id: record.process.id.clone(),
            freezer: Arc::clone(&self.freezer),
        })
    }
}

/// The last lines of the output in a home directory, each cut to its limit. Blocking.
pub(super) fn last_lines(home: &Path) -> Vec<String> {
    let part = Part {
        selection: Selection::Both,
        bounds: Bounds {
            lines: LAST_LINES,
            bytes: (LAST_LINES * 2 * MAX_LINE_BYTES) as u64,
        },
        since: None,
    };
    let lines = logs::past(home, part).unwrap_or_default();
    let text = lines.iter().map(|line| {
        let end = line.text.len().min(MAX_LINE_BYTES);
        String::from_utf8_lossy(&line.text[..end])
            .trim_end()
            .to_owned()
    });
    text.collect()
}

/// The limits of a service's cgroups.
fn limits(config: &ServiceConfig) -> Limits {
    Limits {
        memory_bytes: config.memory.0,
        cpus: config.cpus,
        pids: config.pids,
    }
}

fn sentence(error: impl std::fmt::Display) -> String {
    error.to_string()
}
