//! Carries out single steps. Each is safe to repeat: what an interrupted one left is cleared away by the next.

use std::{
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{RwLock, Semaphore},
};
use tucano_api::{
    agent::Exit, ids::NodeName, ids::ProcessId, service::ServiceConfig, units::Timestamp,
};
use tucano_oci_runtime::{
    cgroup::{self, Cgroup},
    launch::{Launch, LogLimits, Rootfs},
    profile::{self, Sandbox},
    supervisor::{self, Running, Status},
};

use super::{
    container::{self, Identity},
    images::{Images, Unpacked},
    network::{self, Lease, Network},
    state::{DataDir, ProcessDir, Record},
    supervisors::Supervisors,
};
use crate::files::remove_if_there;

/// How long after a start it is made ready what the next one needs, unless somebody starts then.
const PREPARING_AFTER: Duration = Duration::from_millis(10);

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
    /// Its capabilities would be the node's own.
    #[error(
        "the service asks for capabilities ({0}), and user namespaces, which bound them, do not work on this node: take `caps` \
         away, or let this node give them by caps_without_user_namespaces = true in its agent.toml"
    )]
    Capabilities(String),
    /// Its files cannot be kept.
    #[error(transparent)]
    State(#[from] super::state::Error),
    /// A file cannot be written or removed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It cannot be connected.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// Its cgroup cannot be used.
    #[error("cgroup: {0}")]
    Cgroup(#[from] cgroup::Error),
    /// Its sandbox cannot be described.
    #[error(transparent)]
    Sandbox(#[from] profile::Error),
    /// The runtime could not start or reach it.
    #[error("{0}")]
    Runtime(#[from] supervisor::Error),
    /// It cannot be watched.
    #[error("cannot watch the process's supervisor: {0}")]
    Watch(#[source] io::Error),
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// Does what the plan says.
#[derive(Debug)]
pub struct Executor {
    /// The data directory.
    pub data: DataDir,
    /// The node's images.
    pub images: Images,
    /// The processes' network.
    pub network: Network,
    /// The program that starts containers.
    pub runtime: Arc<PathBuf>,
    /// Who stays with them.
    pub supervisors: Arc<Supervisors>,
    /// Parent of the processes' cgroups.
    pub cgroup: String,
    /// Shortest time between two measurements of what a process has written.
    pub disk_interval: Duration,
    /// Bounds of what is kept of their output.
    pub logs: LogLimits,
    /// Containers that may be started at once.
    pub starts: Semaphore,
    /// Read while a container is being started, so that the parent of its cgroup is not removed meanwhile.
    pub starting: Arc<RwLock<()>>,
    /// Whether each process gets user ids of its own.
    pub user_namespaces: bool,
    /// Whether capabilities are given without.
    pub caps_without_user_namespaces: bool,
}

impl Executor {
    /// Starts a container and forwards its port. The record is kept before anything runs.
    pub async fn start(
        &self,
        record: &Record,
        image: &Unpacked,
        node: &NodeName,
    ) -> Result<Arc<Running>, Error> {
        let _slot = self.starts.acquire().await.map_err(|_| Error::Ending)?;
        let starting = self.starting.read().await;
        let lease = record.lease.ok_or(Error::NoLease)?;
        let mut launch = self.launch(record, image, node)?;
        let namespace = self.network.connect(lease).await?;
        join(&mut launch.spec, &namespace);
        let directory = self.data.process(&record.process.id);
        let (record_kept, supervisors) = (record.clone(), Arc::clone(&self.supervisors));
        let started = blocking(move || {
            keep(&directory, &record_kept, lease)?;
            // The namespace's descriptor lives until the container holds the namespace itself.
            let started = supervisors.start(&launch);
            drop(namespace);
            Ok(Arc::new(started?))
        });
        // Nobody knows of the port before the process is reported.
        let forwarded = self.network.forward(lease, record.process.config.port);
        let (started, forwarded) = tokio::join!(started, forwarded);
        drop(starting);
        self.prepare();
        match (started, forwarded) {
            (Ok(running), Ok(())) => Ok(running),
            (Ok(running), Err(error)) => {
                self.kill(&record.process.id, running).await?;
                Err(error.into())
            }
            (Err(error), _) => {
                self.network.stop_forwarding(lease).await?;
                Err(error)
            }
        }
    }

    /// Has ready what the next start needs, in a moment: it would only take time from whoever starts now, and has all he needs.
    fn prepare(&self) {
        self.supervisors.want();
        let (networks, supervisors) = (self.network.prepare(), Arc::clone(&self.supervisors));
        let starting = Arc::clone(&self.starting);
        tokio::spawn(async move {
            tokio::time::sleep(PREPARING_AFTER).await;
            if starting.try_write().is_ok() {
                tokio::task::spawn_blocking(move || supervisors.fill());
                networks.await;
            }
        });
    }

    /// Waits for the container's end; then its port is no longer forwarded and its cgroup is gone.
    pub async fn watch(&self, record: &Record, running: &Running) -> Result<Exit, Error> {
        has_ended(running).await.map_err(Error::Watch)?;
        if let Some(lease) = record.lease
            && let Err(error) = self.network.stop_forwarding(lease).await
        {
            tracing::warn!(id = %record.process.id, %error, "the ended process's port is still forwarded");
        }
        let home = self.data.process(&record.process.id).home();
        blocking(move || {
            let found = supervisor::find(&home)?;
            destroy_cgroup(&home)?;
            Ok(exit_of(found))
        })
        .await
    }

    /// Sends a signal to the container's first process.
    pub async fn signal(&self, running: Arc<Running>, signal: i32) -> Result<(), Error> {
        blocking(move || Ok(supervisor::signal(&running, signal)?)).await
    }

    /// Kills everything in the container.
    pub async fn kill(&self, id: &ProcessId, running: Arc<Running>) -> Result<(), Error> {
        let home = self.data.process(id).home();
        blocking(move || {
            // The end of a pid namespace's first process is the end of all in it; the cgroup holds whatever escaped that.
            let killed = supervisor::signal(&running, nix::libc::SIGKILL);
            destroy_cgroup(&home)?;
            Ok(killed?)
        })
        .await
    }

    /// Removes everything of a process: cgroup, link, rules, directory; with the last process, what all of them shared.
    pub async fn remove(&self, record: &Record) -> Result<(), Error> {
        let directory = self.data.process(&record.process.id);
        {
            let home = directory.home();
            blocking(move || destroy_cgroup(&home)).await?;
        }
        if let Some(lease) = record.lease {
            self.network.disconnect(lease).await?;
        }
        blocking(move || Ok(directory.remove()?)).await?;
        if let Some(lease) = record.lease {
            self.network.release(lease).await?;
        }
        Ok(())
    }

    /// Removes what was kept for starts, and the parent of the processes' cgroups, if it has none left and gets none at this moment.
    pub async fn remove_shared(&self) -> Result<(), Error> {
        let Ok(_alone) = self.starting.try_write() else {
            return Ok(());
        };
        self.supervisors.dismiss();
        let parent = self.cgroup.clone();
        blocking(move || Ok(cgroup::remove_parent(&parent)?)).await
    }

    /// In what a process of this configuration is less restricted here than others are.
    pub fn relaxed(&self, config: &ServiceConfig) -> Vec<String> {
        let shared_ids = (!self.user_namespaces).then(|| "no user namespace".to_owned());
        config.relaxed().into_iter().chain(shared_ids).collect()
    }

    fn launch(&self, record: &Record, image: &Unpacked, node: &NodeName) -> Result<Launch, Error> {
        let process = &record.process;
        let directory = self.data.process(&process.id);
        let lease = record.lease.ok_or(Error::NoLease)?;
        let command = container::command(&image.config, process);
        if command.is_empty() {
            return Err(Error::NoCommand);
        }
        let etc = directory.etc();
        let file = |name: &str| (etc.join(name), Path::new("/etc").join(name));
        let config = image.config.config().as_ref();
        let sandbox = Sandbox {
            args: command,
            env: container::environment(&image.config, Identity { process, node }),
            cwd: config
                .and_then(|config| config.working_dir().clone())
                .unwrap_or_default(),
            hostname: process.id.to_string(),
            memory_bytes: process.config.memory.0,
            cpus: process.config.cpus,
            pids: process.config.pids,
            cgroup: format!("{}/{}", self.cgroup, process.id),
            // It is not known yet: see `join`.
            network: None,
            user_namespace: self.user_namespaces.then_some(lease.ids_base),
            capabilities: capabilities(
                &process.config,
                self.user_namespaces || self.caps_without_user_namespaces,
            )?,
            read_only: process.config.read_only,
            tmp_bytes: process.config.tmp_size.map(|size| size.0),
            shared_memory_bytes: process.config.shm_size.map(|size| size.0),
            files: ["hosts", "hostname", "resolv.conf"].map(file).into(),
        };
        let images_user = || config.and_then(|config| config.user().clone());
        Ok(Launch {
            id: process.id.to_string(),
            state_dir: directory.home(),
            spec: sandbox.spec()?,
            rootfs: Rootfs::Overlay {
                layers: image.layers.clone(),
            },
            user: process
                .config
                .user
                .clone()
                .or_else(images_user)
                .filter(|user| !user.is_empty()),
            logs: self.logs,
        })
    }
}

/// What is on disk of a process before its container is made. Nobody waits for the disk: see decision 70.
fn keep(directory: &ProcessDir, record: &Record, lease: Lease) -> Result<(), Error> {
    clear_last_run(directory)?;
    directory.keep(record)?;
    let etc = directory.etc();
    container::write_etc(&etc, record.process.id.as_str(), lease.ip).map_err(|source| Error::File {
        what: "write",
        path: etc.clone(),
        source,
    })
}

/// Has the container join this network namespace, a descriptor of this process.
fn join(spec: &mut Spec, namespace: &impl AsRawFd) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let linux = spec.linux_mut().iter_mut();
    for namespace in linux.flat_map(|linux| linux.namespaces_mut().iter_mut().flatten()) {
        if namespace.typ() == LinuxNamespaceType::Network {
            namespace.set_path(Some(path.clone().into()));
        }
    }
}

/// Those that the service asks for: inside a user namespace they reach nothing but its own, without one they are those of
/// the node's root, which is not for a service to decide.
fn capabilities(config: &ServiceConfig, allowed: bool) -> Result<Vec<String>, Error> {
    if allowed || config.caps.is_empty() {
        return Ok(config.caps.names().map(str::to_owned).collect());
    }
    Err(Error::Capabilities(config.caps.to_string()))
}

/// Completes when the supervisor has ended.
async fn has_ended(running: &Running) -> io::Result<()> {
    let supervisor = running.supervisor.try_clone()?;
    #[expect(
        deprecated,
        reason = "its unsafe successor asks for what an OwnedFd promises anyway, and unsafe code is forbidden here"
    )]
    let supervisor = AsyncFd::with_interest(supervisor, Interest::READABLE)?;
    drop(supervisor.readable().await?);
    Ok(())
}

/// Clears away what the container's last run left, but not its output.
pub fn clear_last_run(directory: &ProcessDir) -> Result<(), Error> {
    let home = directory.home();
    destroy_cgroup(&home)?;
    for name in [
        "launch.json",
        "supervisor.json",
        "exit.json",
        "upper",
        "work",
    ] {
        let path = home.join(name);
        remove_if_there(&path).map_err(|source| Error::File {
            what: "remove",
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Kills whatever is in the container's cgroup and removes it.
pub fn destroy_cgroup(home: &Path) -> Result<(), Error> {
    if let Some(cgroup) = Cgroup::of(home)? {
        cgroup.destroy()?;
    }
    Ok(())
}

/// How it ended, as far as that is known.
pub fn exit_of(found: Status) -> Exit {
    match found {
        Status::Exited(exit) => Exit {
            code: exit.code,
            signal: exit.signal,
            oom_killed: exit.oom_killed,
            disk_exceeded: false,
            at: Timestamp(exit.at_ms),
        },
        Status::Running(_) | Status::Lost | Status::NeverStarted => Exit {
            code: None,
            signal: None,
            oom_killed: false,
            disk_exceeded: false,
            at: crate::clock::timestamp(),
        },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Ending)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tucano_api::settings::parse;

    use super::*;

    #[test]
    fn a_container_joins_the_network_that_it_is_given() {
        let mut spec = Sandbox::default().spec().unwrap();
        let namespace = std::fs::File::open("/proc/self/ns/net").unwrap();
        join(&mut spec, &namespace);
        let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        let joined: Vec<_> = all
            .iter()
            .filter_map(|one| Some((one.typ(), one.path().as_ref()?.metadata().ok()?.ino())))
            .collect();
        let inode = namespace.metadata().unwrap().ino();
        assert_eq!(joined, [(LinuxNamespaceType::Network, inode)]);
    }

    #[test]
    fn capabilities_over_the_node_itself_are_not_given() {
        let config = |more: &str| -> ServiceConfig {
            let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
            parse("a", &text).unwrap()
        };
        let asking = config("caps = [\"KILL\", \"CHOWN\"]");
        assert_eq!(capabilities(&asking, true).unwrap(), ["CHOWN", "KILL"]);
        let refused = capabilities(&asking, false).unwrap_err().to_string();
        assert!(refused.contains("(CHOWN,KILL)"), "{refused}");
        assert!(
            refused.contains("caps_without_user_namespaces"),
            "{refused}"
        );
        assert!(capabilities(&config(""), false).unwrap().is_empty());
    }
}
