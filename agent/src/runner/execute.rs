//! Executes single steps on the machine. Each is safe to repeat: it clears away what an interrupted one left behind.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{RwLock, Semaphore},
};
use tucano_api::{
    agent::Exit,
    ids::{NodeName, ProcessId, ServiceName},
    service::ServiceConfig,
    units::{Bytes, Timestamp},
};
use tucano_oci_runtime::{
    cgroup,
    launch::{Launch, LogLimits},
    profile,
    supervisor::{self, Running, Status},
};

use super::{
    freezer::Freezer,
    images::{Images, ProcessImages},
    launch::join,
    machine::Containers,
    network::{self, Lease, Network},
    resolver::{ResolvConf, Resolver},
    secrets::Secrets,
    state::{DataDir, Record},
    supervisors::Supervisors,
    workspace::Workspace,
};
use crate::{backups::Backups, devices::Devices, fills::Fills, logs::Retained, volumes::Volumes};

/// Delay between a start and the preparation of the next one's resources, so that the two do not compete.
const PREPARE_DELAY: Duration = Duration::from_millis(10);

/// How long a start waits for the controller to say where the services are that the process needs.
const NAMES_WAIT: Duration = Duration::from_secs(10);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process has no address and port.
    #[error("the process has no address yet")]
    NoLease,
    /// Its image names no program.
    #[error(
        "the image has neither Entrypoint nor Cmd, and the service gives no args: there is nothing to run"
    )]
    NoCommand,
    /// Its capabilities would apply to the node.
    #[error(
        "the service asks for capabilities ({0}), which user namespaces would confine, but they do not work on this node: remove \
         `caps`, or set caps_without_user_namespaces = true in the node's agent.toml"
    )]
    Capabilities(String),
    /// Its files cannot be stored.
    #[error(transparent)]
    State(#[from] super::state::Error),
    /// One of its volumes cannot be used.
    #[error(transparent)]
    Volume(#[from] crate::volumes::Error),
    /// The controller has not said which volume it has.
    #[error("the desired set does not say which volume {0:?} of the process is")]
    UnknownVolume(String),
    /// It does not get a directory of the node.
    #[error(transparent)]
    HostPath(#[from] crate::volumes::host::Refused),
    /// It does not get a device of the node.
    #[error(transparent)]
    Device(#[from] crate::devices::Refused),
    /// A file cannot be written or removed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its network cannot be set up or removed.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// Its cgroup cannot be used.
    #[error("cgroup: {0}")]
    Cgroup(#[from] cgroup::Error),
    /// Its sandbox profile is invalid.
    #[error(transparent)]
    Sandbox(#[from] profile::Error),
    /// The runtime cannot start it or send it a signal.
    #[error("{0}")]
    Runtime(#[from] supervisor::Error),
    /// Its end cannot be waited for.
    #[error("cannot wait for the process's supervisor: {0}")]
    Wait(#[source] io::Error),
    /// The controller has not said yet where the services are that it needs.
    #[error("it needs {0}, whose address the controller has not told this node yet")]
    Unnamed(String),
    /// It could not find the services that it needs.
    #[error("it needs other services, and the agent cannot answer look-ups of their names yet")]
    NoNameServer,
    /// It has no running container.
    #[error("the process does not run")]
    NotRunning,
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// Executes the steps of the plan.
#[derive(Debug)]
pub struct Executor {
    /// The data directory.
    pub data: Arc<DataDir>,
    /// The node's images.
    pub images: Images,
    /// The processes' network.
    pub network: Network,
    /// The container runtime, `tucano_oci`.
    pub runtime: Arc<PathBuf>,
    /// Prepared supervisors.
    pub supervisors: Arc<Supervisors>,
    /// Parent of the processes' cgroups.
    pub cgroup: String,
    /// Minimum time between two measurements of a process's disk usage.
    pub disk_interval: Duration,
    /// Secrets of the processes.
    pub secrets: Arc<Secrets>,
    /// Retention of their output.
    pub logs: LogLimits,
    /// Output of removed processes.
    pub retained: Retained,
    /// Limits concurrent starts.
    pub starts: Semaphore,
    /// Read-locked during a start, so that the parent of its cgroup is not removed meanwhile.
    pub starting: Arc<RwLock<()>>,
    /// Whether each process gets a user namespace with its own ids.
    pub user_namespaces: bool,
    /// Whether processes get capabilities without one.
    pub caps_without_user_namespaces: bool,
    /// Running containers.
    pub containers: Containers,
    /// Volumes, and which process has which.
    pub volumes: Arc<Volumes>,
    /// Those of them that are copied from other workers.
    pub fills: Arc<Fills>,
    /// Processes that are frozen for a moment.
    pub freezer: Arc<Freezer>,
    /// Backups of volumes.
    pub backups: Arc<Backups>,
    /// Directories of the node that services may have, with all below.
    pub host_paths: Vec<PathBuf>,
    /// Devices of the node that services may have.
    pub devices: Arc<Devices>,
    /// Name servers of processes.
    pub resolver: Resolver,
    /// Client of HTTP probes.
    pub probe_client: reqwest::Client,
    /// Notes on damaged files that were found at the start.
    pub damage: Vec<String>,
}

impl Executor {
    /// Starts a container and forwards its ports. The record is stored before anything runs.
    ///
    /// # Errors
    /// The failed step; nothing runs then.
    pub async fn start(
        &self,
        record: &Record,
        images: &ProcessImages,
        node: &NodeName,
    ) -> Result<Arc<Running>, Error> {
        let _slot = self.starts.acquire().await.map_err(|_| Error::Ending)?;
        let starting = self.starting.read().await;
        let lease = record.lease.ok_or(Error::NoLease)?;
        let directories = self.mounted_directories(record, &images.own).await?;
        self.open_needs(record, lease).await?;
        let launch = self.launch_description(record, images, node, directories)?;
        let mut launch = self.with_devices(record, launch).await?;
        let resolver = self.resolver.clone();
        let resolv_conf = blocking(move || Ok(resolver.resolv_conf())).await?;
        self.check_name_server(record, &resolv_conf)?;
        self.network
            .set_resolvers(resolv_conf.servers.clone())
            .await?;
        let namespace = self.network.connect(lease).await?;
        join(&mut launch.spec, &namespace);
        let workspace = self.workspace(&record.process.id);
        let (stored, supervisors) = (record.clone(), Arc::clone(&self.supervisors));
        let ids_base = self.ids_base(lease).unwrap_or(0);
        let started = blocking(move || {
            workspace.prepare(&stored, lease, ids_base, &resolv_conf)?;
            // The descriptor keeps the namespace until the container is in it.
            let started = supervisors.start(&launch);
            drop(namespace);
            Ok(Arc::new(started?))
        });
        // Forwarded concurrently: no request is routed to the port before the process is reported.
        let forwarded = self
            .network
            .forward(lease, &record.ports, &record.process.config);
        let (started, forwarded) = tokio::join!(started, forwarded);
        drop(starting);
        self.prepare();
        match (started, forwarded) {
            (Ok(running), Ok(())) => Ok(running),
            (Ok(running), Err(error)) => {
                self.kill_all(&record.process.id, running).await?;
                Err(error.into())
            }
            (Err(error), _) => {
                self.network.stop_forwarding(lease).await?;
                Err(error)
            }
        }
    }

    /// Adds the devices of the process.
    async fn with_devices(&self, record: &Record, mut launch: Launch) -> Result<Launch, Error> {
        if record.process.config.devices.is_empty() {
            return Ok(launch);
        }
        let (devices, process) = (Arc::clone(&self.devices), record.process.clone());
        // Reading files may block.
        blocking(move || {
            devices.give(&process, &mut launch.spec)?;
            Ok(launch)
        })
        .await
    }

    /// Names of services are only answered by the agent.
    fn check_name_server(&self, record: &Record, resolv_conf: &ResolvConf) -> Result<(), Error> {
        let asks_agent = resolv_conf.servers.contains(&self.network.gateway());
        match asks_agent || record.process.config.needs.is_empty() {
            true => Ok(()),
            false => Err(Error::NoNameServer),
        }
    }

    /// Opens the services to a process that it needs, once they are known.
    async fn open_needs(&self, record: &Record, lease: Lease) -> Result<(), Error> {
        let process = &record.process;
        self.network.set_process(lease, process).await?;
        let named = self.network.until_named(&process.config.needs, NAMES_WAIT);
        let unnamed = |services: Vec<ServiceName>| {
            let services: Vec<_> = services.iter().map(ToString::to_string).collect();
            Error::Unnamed(services.join(", "))
        };
        named.await.map_err(unnamed)
    }

    /// Prepares network and supervisor of the next start, unless one is in progress by then: it would be slowed down.
    fn prepare(&self) {
        self.supervisors.enable();
        let (networks, supervisors) = (self.network.prepare(), Arc::clone(&self.supervisors));
        let starting = Arc::clone(&self.starting);
        tokio::spawn(async move {
            tokio::time::sleep(PREPARE_DELAY).await;
            if starting.try_write().is_ok() {
                tokio::task::spawn_blocking(move || supervisors.fill());
                networks.await;
            }
        });
    }

    /// Waits for the container's end. On return its port is no longer forwarded and its cgroup is removed.
    ///
    /// # Errors
    /// The supervisor cannot be waited for, or its exit record cannot be read.
    pub async fn wait_for_end(&self, record: &Record, running: &Running) -> Result<Exit, Error> {
        supervisor_ended(running).await.map_err(Error::Wait)?;
        if let Some(lease) = record.lease
            && let Err(error) = self.network.stop_forwarding(lease).await
        {
            tracing::warn!(id = %record.process.id, %error, "cannot stop forwarding the ended process's port");
        }
        let workspace = self.workspace(&record.process.id);
        blocking(move || {
            let found = supervisor::find(&workspace.home())?;
            workspace.destroy_cgroup()?;
            Ok(exit_of(found))
        })
        .await
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// The process has ended.
    pub async fn send_signal(&self, running: Arc<Running>, signal: i32) -> Result<(), Error> {
        blocking(move || Ok(supervisor::signal(&running, signal)?)).await
    }

    /// Kills every process of the container.
    ///
    /// # Errors
    /// Something of it survived.
    pub async fn kill_all(&self, id: &ProcessId, running: Arc<Running>) -> Result<(), Error> {
        let workspace = self.workspace(id);
        blocking(move || {
            // Killing the first process ends its pid namespace; the cgroup has any process outside of it.
            let killed = supervisor::signal(&running, nix::libc::SIGKILL);
            workspace.destroy_cgroup()?;
            Ok(killed?)
        })
        .await
    }

    /// Removes cgroup, link, rules and directory of a process; with the last lease, the bridge and the rules of all.
    ///
    /// # Errors
    /// The first step that failed; the rest is still to be removed.
    pub async fn remove_all(&self, record: &Record) -> Result<(), Error> {
        let workspace = self.workspace(&record.process.id);
        let directory = self.data.process(&record.process.id);
        blocking(move || workspace.destroy_cgroup()).await?;
        if let Some(lease) = record.lease {
            self.network.disconnect(lease).await?;
        }
        let (retained, id) = (self.retained.clone(), record.process.id.clone());
        let secrets = Arc::clone(&self.secrets);
        blocking(move || {
            secrets.remove(&id).map_err(|source| Error::File {
                what: "remove the secrets of",
                path: PathBuf::from(id.as_str()),
                source,
            })?;
            keep_output(&retained, &id, &directory.home());
            Ok(directory.remove()?)
        })
        .await?;
        if let Some(lease) = record.lease {
            self.network.release(lease).await?;
        }
        self.volumes.claims().release(&record.process.id);
        Ok(())
    }

    /// Removes prepared supervisors and the parent of the processes' cgroups, unless a start is in progress.
    ///
    /// # Errors
    /// The cgroup cannot be removed.
    pub async fn remove_idle(&self) -> Result<(), Error> {
        let Ok(_alone) = self.starting.try_write() else {
            return Ok(());
        };
        self.supervisors.drain();
        let (parent, secrets) = (self.cgroup.clone(), Arc::clone(&self.secrets));
        blocking(move || {
            secrets.unmount();
            Ok(cgroup::remove_parent(&parent)?)
        })
        .await
    }

    /// The files and the cgroup of a process.
    pub fn workspace(&self, id: &ProcessId) -> Workspace {
        Workspace::new(self.data.process(id), id, &self.cgroup)
    }

    /// The ways in which this node isolates processes of such a service less than usual.
    pub fn relaxations(&self, config: &ServiceConfig) -> Vec<String> {
        let shared_ids = (!self.user_namespaces).then(|| "no user namespace".to_owned());
        config.relaxed().into_iter().chain(shared_ids).collect()
    }
}

/// Keeps the output of a process that is being removed. Best effort: a failure is logged.
pub(super) fn keep_output(retained: &Retained, id: &ProcessId, home: &Path) {
    let kept = retained
        .keep(id, home)
        .and_then(|()| retained.prune(SystemTime::now()));
    if let Err(error) = kept {
        tracing::warn!(%id, %error, "cannot keep the output of a removed process");
    }
}

/// Completes when the supervisor has ended.
async fn supervisor_ended(running: &Running) -> io::Result<()> {
    let supervisor = running.supervisor.try_clone()?;
    #[expect(
        deprecated,
        reason = "its successor is an unsafe function for a guarantee that OwnedFd already gives, and this crate forbids unsafe code"
    )]
    let supervisor = AsyncFd::with_interest(supervisor, Interest::READABLE)?;
    drop(supervisor.readable().await?);
    Ok(())
}

/// The exit of a container that was found, as far as it is known.
pub fn exit_of(found: Status) -> Exit {
    match found {
        Status::Exited(exit) => Exit {
            code: exit.code,
            signal: exit.signal,
            oom_killed: exit.oom_killed,
            disk_exceeded: false,
            memory_peak: exit.memory_peak.map(Bytes),
            at: Timestamp(exit.at_ms),
        },
        Status::Running(_) | Status::Lost | Status::NeverStarted => {
            Exit::unknown(crate::clock::timestamp())
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Ending)?
}
