//! All of it put together, in the order of the picture: runner, monitor, HTTP.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
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
    clock::Stopwatch,
    confined,
    http::Api,
    lacking,
    monitor::{Monitor, local_address},
    runner::{
        Beginning, Handle, Runner, adopt,
        execute::Executor,
        images::{self, Images},
        network::{self, Network},
        probe, state,
        supervisors::Supervisors,
    },
    settings::{DEFAULT_CGROUP, Settings},
    tls::{SniffingListener, Tls},
};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces, cgroups and rules need root.
    #[error("the agent makes namespaces, cgroups and rules, which only root may: run it as root")]
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
    /// The program that starts containers is not there.
    #[error("the program {0} is missing: install it beside tucano_agentd, or name it by `runtime`")]
    NoRuntime(PathBuf),
    /// The agent does not know where it is itself.
    #[error("cannot tell where this program is: {0}; name the runtime by `runtime`")]
    OwnPath(#[source] std::io::Error),
    /// Keys and certificates cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tucano_tls::Error),
    /// An HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The node's address is no name.
    #[error("cannot name this node: {0}; write `name` into the configuration")]
    Name(#[from] tucano_api::ids::InvalidId),
    /// Serving has failed.
    #[error("serving failed: {0}")]
    Serve(#[source] std::io::Error),
}

/// An agent that is ready to run.
#[derive(Debug)]
pub struct Agent {
    entrance: SniffingListener,
    tls: Arc<Tls>,
    runner: Runner,
    monitor: Monitor,
    api: Api,
    handle: Handle,
}

impl Agent {
    /// Locks the data directory, takes over what runs, and listens.
    pub async fn build(settings: Settings) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        raise_open_files()?;
        tucano_tls::install_provider();
        let clock = Stopwatch::start();
        let settings = Arc::new(settings);
        let executor = Arc::new(executor(&settings)?);
        let tls = Arc::new(Tls::open(Arc::clone(&settings))?);
        let listener = listen(settings.listen).await?;
        let address = listener.local_addr().map_err(Error::Serve)?;
        let (runner, handle) = runner(&settings, &executor, clock).await?;
        let agent_id = uuid::Uuid::new_v4().to_string();
        let monitor = Monitor::new(
            Arc::clone(&settings),
            Arc::clone(&executor),
            Arc::clone(&tls),
            handle.clone(),
            address,
            agent_id.clone(),
        )?;
        let api = Api::new(
            handle.clone(),
            Arc::clone(&executor),
            settings.token.clone(),
            settings.limits.clone(),
            agent_id,
        );
        let entrance = SniffingListener::open(listener, tls.sniffer()?, &settings.limits);
        let entrance = entrance.map_err(Error::Serve)?;
        tracing::info!(%address, controller = %settings.controller, "the agent is ready");
        Ok(Self {
            entrance,
            tls,
            runner,
            monitor,
            api,
            handle,
        })
    }

    /// Runs until `end`. The processes go on running; the next agent adopts them.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), Error> {
        let server = axum::serve(self.entrance, self.api.router());
        let handle = self.handle;
        notify::ready();
        tokio::select! {
            served = async { server.await } => served.map_err(Error::Serve),
            () = self.runner.run() => Ok(()),
            () = self.tls.keep() => Ok(()),
            () = self.monitor.run() => Ok(()),
            () = notify::run_watchdog(async || status(&handle).await) => Ok(()),
            () = end => Ok(()),
        }
    }
}

/// For the service manager. An agent whose runner does not answer is dead.
async fn status(handle: &Handle) -> Option<String> {
    let processes = handle.count().await.ok()?;
    Some(format!("{processes} processes are here"))
}

/// Each process takes some descriptors of the agent, and the usual soft limit of 1024 is soon reached.
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

/// What carries out the steps of a node's processes, by these settings; it holds the data directory's lock.
pub fn executor(settings: &Settings) -> Result<Executor, Error> {
    tucano_tls::install_provider();
    let data = state::DataDir::open(&settings.data_dir)?;
    let images = Images::open(images::Options {
        store: &data.images(),
        layers: &data.layers(),
        controller: &settings.controller,
        token: settings.token.clone(),
        trust: settings.trust.as_ref(),
        layer_bytes: settings.limits.layer_bytes.0,
        layer_pulls: settings.limits.layer_pulls,
        prefetches: settings.limits.prefetches,
        stalled: settings.limits.stalled_transfer.0,
        kept_unused: settings.unused_images_kept.0,
        unpack: settings.images.unpack,
        check_again: settings.images.check_again.0,
        helper: confined::helper(),
    })?;
    let network = Network::new(
        &settings.bridge,
        settings.subnet,
        settings.ports,
        controller_address(&settings.controller),
        apis(&data)?,
        settings.limits.ready_networks,
    )?
    .with_tracked_connections(settings.limits.tracked_connections);
    let runtime = Arc::new(runtime_program(settings)?);
    read_ahead(&runtime);
    let supervisors = Supervisors::new(Arc::clone(&runtime), settings.limits.ready_supervisors);
    Ok(Executor {
        user_namespaces: user_namespaces_work(&runtime, &settings.data_dir),
        caps_without_user_namespaces: settings.caps_without_user_namespaces,
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
        starts: Semaphore::new(settings.limits.starts),
        starting: Arc::default(),
    })
}

/// What an earlier agent was told to keep processes from: they run on before the controller says it again.
fn apis(data: &state::DataDir) -> Result<BTreeSet<SocketAddrV4>, Error> {
    match data.apis() {
        Err(error @ state::Error::Malformed { .. }) => {
            tracing::warn!(%error);
            Ok(BTreeSet::new())
        }
        other => Ok(other?),
    }
}

async fn runner(
    settings: &Settings,
    executor: &Arc<Executor>,
    clock: Stopwatch,
) -> Result<(Runner, Handle), Error> {
    let desired = match executor.data.desired() {
        Ok(desired) => desired,
        // The controller sends it again; what runs goes on running until then.
        Err(error @ state::Error::Malformed { .. }) => {
            tracing::warn!(%error);
            None
        }
        Err(error) => return Err(error.into()),
    };
    let adopted = adopt::adopt(&executor.data, &executor.network, clock.elapsed())?;
    executor.network.tidy().await?;
    let beginning = Beginning {
        adopted,
        node: settings.name.clone(),
        fallback_name: fallback_name(settings, desired.as_ref().map(|set| &set.node))?,
        desired,
        controller_wait: settings.controller_wait.0,
        notes: lacking::told(executor, settings),
    };
    let client = probe::client()?;
    Ok(Runner::new(Arc::clone(executor), client, clock, beginning))
}

/// The node's name until the controller tells it: the one of the last desired set, else its address.
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

/// The controller's address, where it is written as one: processes are kept from it.
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
    fn processes_are_kept_from_a_controller_that_is_named_by_its_address() {
        let address = controller_address("http://10.0.0.1:7070");
        assert_eq!(address, "10.0.0.1:7070".parse().ok());
        assert_eq!(
            controller_address("http://10.0.0.1").map(|a| a.port()),
            Some(80)
        );
        assert_eq!(controller_address("http://ctl.example:7070"), None);
    }
}
