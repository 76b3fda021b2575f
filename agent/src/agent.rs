//! The agent: builds runner, monitor and HTTP API, and runs them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpListener, sync::Semaphore};
use tucano_api::ids::NodeName;
use tucano_daemon::notify;
use tucano_oci_runtime::{
    launch::LogLimits,
    supervisor::{read_ahead, user_namespaces_work},
};

use crate::{
    address::local_address,
    backups::{self, Backups},
    clock::Stopwatch,
    conditions, confined,
    credentials::Credentials,
    devices::{self, Devices},
    fills::Fills,
    http::Api,
    logs::Retained,
    monitor::Monitor,
    names::{follow::Follower, server::NameServer},
    runner::{
        Containers, Handle, InitialState, Runner, adopt,
        execute::Executor,
        images::{self, Images},
        network::{self, Network},
        probe,
        resolver::Resolver,
        secrets::Secrets,
        state,
        supervisors::Supervisors,
    },
    settings::{DEFAULT_CGROUP, Settings},
    tls::{Peer, SniffingListener, Tls},
    volumes::Volumes,
};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent does not run as root.
    #[error(
        "the agent creates namespaces, cgroups and firewall rules, which needs root: run it as root"
    )]
    NotRoot,
    /// The limit of open files cannot be raised.
    #[error("cannot raise the limit of open files: {0}")]
    OpenFiles(#[source] std::io::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The images cannot be used.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The processes' network cannot be used.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// The container runtime is missing.
    #[error(
        "the container runtime {0} is missing: install it beside tucano_agentd, or set `runtime` in agent.toml"
    )]
    NoRuntime(PathBuf),
    /// The path of the agent's own program is unknown.
    #[error("cannot determine this program's path: {0}; set `runtime` in agent.toml")]
    OwnPath(#[source] std::io::Error),
    /// Keys and certificates cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tucano_tls::Error),
    /// An HTTP client cannot be built.
    #[error("cannot build an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The node's address cannot serve as its name.
    #[error("cannot determine this node's name: {0}; set `name` in agent.toml")]
    Name(#[from] tucano_api::ids::InvalidId),
    /// The API's server failed.
    #[error("the server of the API failed: {0}")]
    Serve(#[source] std::io::Error),
}

/// An agent that is ready to run.
#[derive(Debug)]
pub struct Agent {
    listener: SniffingListener,
    tls: Arc<Tls>,
    runner: Runner,
    monitor: Monitor,
    api: Api,
    handle: Handle,
    executor: Arc<Executor>,
    follower: Follower,
    suspect_after: Duration,
}

impl Agent {
    /// Locks the data directory, adopts running processes, and binds the API's address.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn build(settings: Settings) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        raise_open_files()?;
        let suspect_after = settings.suspect_after.0;
        tucano_tls::install_provider();
        let clock = Stopwatch::start();
        let settings = Arc::new(settings);
        let credentials = Arc::new(Credentials::new(&settings));
        let executor = Arc::new(executor_with(&settings, &credentials)?);
        let tls = Tls::open(Arc::clone(&settings), Arc::clone(&credentials))?;
        let tls = Arc::new(tls);
        let listener = listen(settings.listen).await?;
        let address = listener.local_addr().map_err(Error::Serve)?;
        let (runner, handle) = runner(&settings, &executor, clock).await?;
        let agent_id = uuid::Uuid::new_v4().to_string();
        let monitor = Monitor::new(
            Arc::clone(&settings),
            Arc::clone(&executor),
            Arc::clone(&tls),
            Arc::clone(&credentials),
            handle.clone(),
            address,
            agent_id.clone(),
        )?;
        let follower = Follower::new(
            Arc::clone(&settings),
            Arc::clone(&executor),
            Arc::clone(&credentials),
            Arc::clone(&tls),
        );
        let api = Api::new(
            handle.clone(),
            Arc::clone(&executor),
            credentials,
            settings.limits.clone(),
            agent_id,
        );
        let listener = SniffingListener::open(listener, tls.sniffer()?, &settings.limits);
        let listener = listener.map_err(Error::Serve)?;
        tracing::info!(%address, controller = %settings.controller, "the agent is ready");
        Ok(Self {
            listener,
            tls,
            runner,
            monitor,
            api,
            handle,
            executor,
            follower,
            suspect_after,
        })
    }

    /// Runs until `end` completes. The processes keep running; the next agent adopts them.
    ///
    /// # Errors
    /// The API's server failed.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), Error> {
        let routes = self
            .api
            .router()
            .into_make_service_with_connect_info::<Peer>();
        let server = axum::serve(self.listener, routes);
        let handle = self.handle;
        let executor = Arc::clone(&self.executor);
        notify::ready();
        tokio::select! {
            served = async { server.await } => served.map_err(Error::Serve),
            () = self.runner.run() => Ok(()),
            () = self.tls.keep_current() => Ok(()),
            () = self.monitor.run() => Ok(()),
            () = self.follower.run() => Ok(()),
            () = NameServer::new(Arc::clone(&self.executor)).run() => Ok(()),
            () = executor.network.keep_rules() => Ok(()),
            () = executor.network.watch_neighbours(self.suspect_after) => Ok(()),
            () = backups::run(self.executor, handle.snapshots()) => Ok(()),
            () = notify::run_watchdog(async || status(&handle).await) => Ok(()),
            () = end => Ok(()),
        }
    }
}

/// The status line for the service manager; an agent whose runner does not answer has failed.
async fn status(handle: &Handle) -> Option<String> {
    let processes = handle.count().await.ok()?;
    Some(format!("{processes} processes"))
}

/// Raises the soft limit of open files, usually 1024: each process needs several of the agent's descriptors.
fn raise_open_files() -> Result<(), Error> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|errno| Error::OpenFiles(errno.into()))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Error::Listen(address, error))
}

/// Builds the executor by these settings. It holds the data directory's lock.
///
/// # Errors
/// The first part that cannot be set up.
pub fn executor(settings: &Settings) -> Result<Executor, Error> {
    executor_with(settings, &Arc::new(Credentials::new(settings)))
}

fn executor_with(settings: &Settings, credentials: &Arc<Credentials>) -> Result<Executor, Error> {
    tucano_tls::install_provider();
    let data = Arc::new(state::DataDir::open(&settings.data_dir)?);
    let mut notes = Vec::new();
    let images = Images::open(images::Options {
        store: &data.images(),
        layers: &data.layers(),
        controller: &settings.controller,
        credentials: Arc::clone(credentials),
        layer_bytes: settings.limits.layer_bytes.0,
        layer_pulls: settings.limits.layer_pulls,
        prefetches: settings.limits.prefetches,
        stalled: settings.limits.stalled_transfer.0,
        kept_unused: settings.unused_images_kept.0,
        unpack: settings.images.unpack,
        check_again: settings.images.check_again.0,
        helper: confined::helper(),
    })?;
    let network = Network::new(network::Options {
        bridge: &settings.bridge,
        subnet: settings.subnet,
        ports: settings.ports,
        clients: settings.node_port_clients.clone(),
        controller: controller_address(&settings.controller),
        cluster: data.cluster(&mut notes),
        names: data.names(&mut notes),
        seed: seed(settings),
        ready: settings.limits.ready_networks,
        tracked_connections: settings.limits.tracked_connections,
    })?;
    let runtime = Arc::new(runtime_program(settings)?);
    read_ahead(&runtime);
    let user_namespaces = user_namespaces_work(&runtime, &settings.data_dir);
    let volumes = Volumes::open(
        settings.volumes_path(),
        data.volumes(),
        settings.volumes.reserve,
        user_namespaces,
        &mut notes,
    );
    let volumes = Arc::new(volumes);
    let fills = Fills::new(
        Arc::clone(&volumes),
        Arc::clone(credentials),
        &settings.limits,
    );
    let supervisors = Supervisors::new(Arc::clone(&runtime), settings.limits.ready_supervisors);
    Ok(Executor {
        user_namespaces,
        caps_without_user_namespaces: settings.caps_without_user_namespaces,
        volumes,
        fills,
        host_paths: settings.host_paths.clone(),
        devices: Arc::new(Devices::new(
            settings.cdi_dirs.clone(),
            settings.device_paths.clone(),
            devices::Limits {
                devices: settings.limits.devices,
                file: settings.limits.cdi_file,
            },
        )),
        freezer: Arc::default(),
        backups: Arc::new(Backups::new(settings)),
        data,
        images,
        network,
        runtime,
        supervisors: Arc::new(supervisors),
        cgroup: settings
            .cgroup
            .clone()
            .unwrap_or_else(|| DEFAULT_CGROUP.to_owned()),
        disk_interval: settings.limits.disk_interval.0,
        logs: LogLimits {
            file_bytes: settings.logs.file_bytes.0,
            files: settings.logs.files,
        },
        secrets: Arc::new(Secrets::new(settings, Arc::clone(credentials))),
        retained: Retained::new(
            settings.data_dir.join("logs"),
            settings.logs.kept.0,
            settings.logs.kept_bytes.0,
        ),
        starts: Semaphore::new(settings.limits.starts),
        starting: Arc::default(),
        containers: Containers::default(),
        resolver: Resolver::new(settings.dns.clone()),
        probe_client: probe::client()?,
        damage: notes,
    })
}

/// Differs between nodes.
fn seed(settings: &Settings) -> u32 {
    let mut hasher = DefaultHasher::new();
    let name = settings.name.as_ref().map(NodeName::as_str);
    (name, settings.ip, &settings.data_dir).hash(&mut hasher);
    // Any part of it does.
    hasher.finish() as u32
}

async fn runner(
    settings: &Settings,
    executor: &Arc<Executor>,
    clock: Stopwatch,
) -> Result<(Runner, Handle), Error> {
    let mut notes = executor.damage.clone();
    // Processes keep running without a stored set, until the controller sends it again.
    let desired = executor.data.desired(&mut notes);
    let adopted = adopt::adopt(executor, clock.elapsed(), &mut notes)?;
    executor.fills.restore_with(executor);
    if let Some(desired) = &desired {
        executor.backups.desire(desired);
    }
    // What adopted processes ask stays reachable.
    let resolv_conf = executor.resolver.resolv_conf();
    executor.network.set_resolvers(resolv_conf.servers).await?;
    // Which firewall works is known after that.
    executor.network.tidy().await?;
    notes.extend(conditions::detect(executor, settings));
    let initial = InitialState {
        adopted,
        node: settings.name.clone(),
        fallback_name: fallback_name(settings, desired.as_ref().map(|set| &set.node))?,
        desired,
        controller_wait: settings.controller_wait.0,
        notes,
    };
    Ok(Runner::new(Arc::clone(executor), clock, initial))
}

/// The node's name until the controller sends it: that of the last desired set, else its address.
fn fallback_name(
    settings: &Settings,
    stored: Option<&NodeName>,
) -> Result<NodeName, tucano_api::ids::InvalidId> {
    if let Some(name) = settings.name.as_ref().or(stored) {
        return Ok(name.clone());
    }
    let own = settings
        .ip
        .or_else(|| local_address(&settings.controller).ok());
    own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .to_string()
        .parse()
}

/// The controller's address, if its URL has an IPv4 address: processes are blocked from it.
fn controller_address(url: &str) -> Option<SocketAddrV4> {
    let url = reqwest::Url::parse(url).ok()?;
    let ip = url.host_str()?.parse().ok()?;
    Some(SocketAddrV4::new(ip, url.port_or_known_default()?))
}

fn runtime_program(settings: &Settings) -> Result<PathBuf, Error> {
    let program = match &settings.runtime {
        Some(program) => program.clone(),
        None => {
            let own = std::env::current_exe().map_err(Error::OwnPath)?;
            own.with_file_name("tucano_oci")
        }
    };
    if program.is_file() {
        Ok(program)
    } else {
        Err(Error::NoRuntime(program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_address_is_taken_from_its_url() {
        let address = controller_address("http://10.0.0.1:7070");
        assert_eq!(address, "10.0.0.1:7070".parse().ok());
        assert_eq!(
            controller_address("http://10.0.0.1").map(|a| a.port()),
            Some(80)
        );
        assert_eq!(controller_address("http://ctl.example:7070"), None);
    }
}
