//! Puts the controller together, in the order of the picture in ARCHITECTURE.md, and takes it down again.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tucano_api::{agent::DesiredSet, ids::NodeName, routes::ServiceRoute};
use tucano_planner::{Cluster, Event};

use crate::{
    agent_mgr::{AgentClient, AgentManager},
    alerts::Alerts,
    balancer::Supervisor,
    brain::{Actor, Brain, Effects, Refused, clock::Clock, metrics::BrainMetrics},
    config_mgr::{Config, ConfigManager},
    deployer::{Deployer, Prefetcher, images::Images},
    discovery::Discovery,
    http::{
        self, Api,
        server::{self, Bounds, ListenError},
    },
    store::{
        KeptAlert, Store, StoreError,
        lock::{DataDirLock, LockError},
    },
    tls::Tls,
};

/// Connections of the balancer, and of whoever else of our user looks at the routes.
const ROUTE_CONNECTIONS: usize = 64;

/// A controller that runs.
#[derive(Debug)]
pub struct Controller {
    api: Arc<Api>,
    listeners: Vec<SocketAddr>,
    stop: CancellationToken,
    stop_brain: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    brain: JoinHandle<()>,
    _lock: DataDirLock,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image store cannot be used.
    #[error("cannot open the image store: {0}")]
    Images(#[from] tucano_oci_distribution::Error),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A listener would be open to everyone.
    #[error("{0}")]
    Unprotected(String),
    /// Keys and certificates cannot be had.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tucano_tls::Error),
    /// No HTTP client can be made.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The topology cannot be stored.
    #[error("cannot store the topology: {0}")]
    Configure(#[from] Refused),
}

impl Controller {
    /// Starts everything; returns when requests are answered.
    ///
    /// # Errors
    /// What it lacks; nothing runs then.
    pub async fn start(config: Config, config_path: &Path) -> Result<Self, StartError> {
        let lock = DataDirLock::take(&config.data_dir)?;
        let mut sockets = Vec::new();
        for listen in &config.listen {
            sockets.push(server::bind(*listen).await?);
        }
        let listeners: Vec<SocketAddr> = sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect();
        for listener in &listeners {
            config
                .may_listen_on(*listener)
                .map_err(StartError::Unprotected)?;
        }
        let routes_path = config.data_dir.join("ctl.sock");
        let routes_socket = server::bind_unix(&routes_path)?;

        let tls = Arc::new(Tls::open(&config, Store::is_there(&config.data_dir))?);
        let (store, stored) = Store::open(&config.data_dir, config.limits.database_bytes.0)?;
        let images = Images::open(&config.data_dir.join("images"), &config.limits)?;
        let images = Arc::new(images);
        let clock = Clock::start();
        let (workers, settings) = (config.topology.for_planner(), config.planner.clone());
        let cluster = Cluster::restore(
            stored.snapshot,
            workers.clone(),
            settings.clone(),
            clock.now(),
        );

        // The picture: deployer and config_mgr on the sysadmin's side, agent_mgr on the workers', discovery and the
        // balancer on the users', and the brain in the middle.
        let supervisor = Supervisor::new(&config);
        let bounds = Bounds {
            connections: usize::try_from(config.limits.connections).unwrap_or(usize::MAX),
            header_timeout: config.limits.header_timeout.0,
        };
        let config = Arc::new(ConfigManager::new(config_path, config));
        config.listening_on(listeners.clone());
        let (brain, inbox) = Brain::channel();
        let client =
            AgentClient::new(config.clone(), agent_client(tls.authority())?).with_tls(tls.mode());
        let agents = Arc::new(AgentManager::new(config.clone(), brain.clone(), client));
        let discovery = Arc::new(Discovery::new(uuid::Uuid::new_v4().simple().to_string()));
        let alerts = Arc::new(Alerts::new(
            config.clone(),
            brain.clone(),
            webhook_client()?,
        ));
        // What the controller before this one did not come to.
        for alert in stored.alerts {
            alerts.send(alert);
        }
        let prefetcher = Prefetcher::new(config.clone(), agents.clone());
        let deployer = Deployer::new(config.clone(), brain.clone(), images.clone())
            .with_prefetcher(prefetcher);
        let brain_metrics = BrainMetrics::default();

        let stop = CancellationToken::new();
        let stop_brain = CancellationToken::new();
        let actor = Actor {
            cluster,
            clock,
            store,
            effects: Hands {
                agents: agents.clone(),
                discovery: discovery.clone(),
                alerts: alerts.clone(),
                images: images.clone(),
            },
            metrics: brain_metrics.clone(),
        };
        let brain_task = tokio::spawn(actor.run(inbox, stop_brain.clone()));
        // Also with a full disk the old state is served: what a changed topology brings waits to be stored.
        brain.note(Event::Configured { workers, settings }).await?;

        let sessions = usize::try_from(config.current().limits.sessions).unwrap_or(usize::MAX);
        let api = Arc::new(Api {
            sessions: Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS))),
            config,
            brain: brain.clone(),
            deployer,
            agents,
            discovery: discovery.clone(),
            alerts,
            tls: tls.clone(),
            brain_metrics,
            started_at: clock.started_at(),
        });
        let renewing = tls.begin(api.config.clone(), listeners.clone())?;
        let renewing = stop.clone().run_until_cancelled_owned(renewing);
        let mut servers: Vec<JoinHandle<()>> = vec![tokio::spawn(async move {
            renewing.await.unwrap_or_default();
        })];
        if let Some(alert) = tls.alert(clock.started_at()) {
            api.alerts.send(KeptAlert { id: None, alert });
        }
        let door = tls.door()?;
        for socket in sockets {
            let router = http::router(api.clone());
            servers.push(tokio::spawn(server::serve_tcp(
                socket,
                door.clone(),
                router,
                bounds,
                stop.clone(),
            )));
        }
        servers.push(tokio::spawn(server::serve_unix(
            routes_socket,
            routes_path,
            http::routes::router(discovery),
            Bounds {
                connections: ROUTE_CONNECTIONS,
                ..bounds
            },
            stop.clone(),
        )));
        let collector = stop.clone().run_until_cancelled_owned(async move {
            images.collect_garbage(&brain).await;
        });
        servers.push(tokio::spawn(async move {
            collector.await.unwrap_or_default();
        }));
        let registry = api.deployer.images().registry().clone();
        let giving_up = stop.clone().run_until_cancelled_owned(async move {
            registry.give_up_uploads().await;
        });
        servers.push(tokio::spawn(async move {
            giving_up.await.unwrap_or_default();
        }));
        if let Some(supervisor) = supervisor {
            servers.push(tokio::spawn(supervisor.run(stop.clone())));
        }
        api.deployer.images().released();
        Ok(Self {
            api,
            listeners,
            stop,
            stop_brain,
            servers,
            brain: brain_task,
            _lock: lock,
        })
    }

    /// What the API's handlers call.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// The local addresses that the API listens on, in the configuration's order.
    pub fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// Takes no more requests, lets those under way end for a moment, ends the balancer that it supervises.
    pub async fn stop(self) {
        self.stop.cancel();
        for server in self.servers {
            if let Err(error) = server.await {
                tracing::error!(%error, "a part of the controller failed");
            }
        }
        self.stop_brain.cancel();
        if let Err(error) = self.brain.await {
            tracing::error!(%error, "the brain failed");
        }
    }

    /// Ends when the brain has failed, which it never should: without it nothing works.
    pub async fn failed(&mut self) {
        if let Err(error) = (&mut self.brain).await {
            tracing::error!(%error, "the brain failed");
        }
    }
}

/// What the brain does to the world.
struct Hands {
    agents: Arc<AgentManager>,
    discovery: Arc<Discovery>,
    alerts: Arc<Alerts>,
    images: Arc<Images>,
}

impl Effects for Hands {
    fn assign(&self, set: DesiredSet) {
        self.agents.assign(set);
    }
    fn publish(&self, routes: Vec<ServiceRoute>) {
        self.discovery.publish(routes);
    }
    fn restart(&self, node: NodeName, attempt: u32) {
        self.agents.restart(node, attempt);
    }
    fn alert(&self, alert: KeptAlert) {
        self.alerts.send(alert);
    }
    fn images_released(&self) {
        self.images.released();
    }
}

/// Agents are in our own network, never elsewhere than they say, and known to our own authority alone.
fn agent_client(authority: &str) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(authority.as_bytes())?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(2))
        .build()
}

fn webhook_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tucano_ctld/", env!("CARGO_PKG_VERSION")))
        .build()
}
