//! Assembles the controller in the order of the diagram in ARCHITECTURE.md, and stops it.
//!
//! - `storage`: sockets, and everything durable.
//! - `modules`: what surrounds the state loop.
//! - `tasks`: the servers and the periodic work.

mod modules;
mod storage;
mod tasks;

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tucano_api::state::{Alert, AlertKind};
use tucano_planner::{Cluster, Event, Snapshot};

use self::{
    modules::Modules,
    storage::{Sockets, Storage},
    tasks::Tasks,
};
use crate::{
    balancer::Supervisor,
    config_mgr::{Config, ConfigManager},
    http::{Api, server::ListenError},
    state_loop::{Refused, StateHandle, StateLoop, clock::Clock, metrics::StateLoopMetrics},
    store::{
        StoreError, StoredAlert,
        lock::{DataDirLock, LockError},
    },
};

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    api: Arc<Api>,
    listeners: Vec<SocketAddr>,
    tasks: Tasks,
    stop_state_loop: CancellationToken,
    state_loop: JoinHandle<()>,
    _lock: DataDirLock,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is in use or not usable.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image store is not usable.
    #[error("cannot open the image store: {0}")]
    Images(#[from] tucano_oci_distribution::Error),
    /// A socket cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A listener would be open to everyone.
    #[error("{0}")]
    Unprotected(String),
    /// Keys or certificates are not usable.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] tucano_tls::Error),
    /// An HTTP client cannot be built.
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
    /// The first stage that fails; nothing runs then.
    pub async fn start(config: Config, config_path: &Path) -> Result<Self, StartError> {
        let lock = DataDirLock::take(&config.data_dir)?;
        let sockets = Sockets::bind(&config).await?;
        let Storage {
            tls,
            store,
            stored,
            images,
        } = Storage::open(&config)?;
        let supervisor = Supervisor::new(&config);
        let config = Arc::new(ConfigManager::new(config_path, config));
        config.listening_on(sockets.addresses.clone());

        let (state, inbox) = StateHandle::channel();
        let modules = Modules::new(&config, &state, &tls, images)?;
        for alert in stored.alerts {
            modules.alerts.send(alert);
        }
        let clock = Clock::start();
        let metrics = StateLoopMetrics::default();
        let state_loop = StateLoop {
            cluster: restore(&config.current(), stored.snapshot, &clock),
            clock,
            store,
            effects: modules.effects(),
            metrics: metrics.clone(),
        };
        let stop_state_loop = CancellationToken::new();
        let state_task = tokio::spawn(state_loop.run(inbox, stop_state_loop.clone()));
        observe_configuration(&config.current(), &state).await?;

        let api = Arc::new(modules.into_api(config, state, tls, metrics, &clock));
        let mut tasks = Tasks::default();
        tasks.renew_certificate(&api, &sockets.addresses)?;
        if let Some(alert) = api.tls.alert(clock.started_at()) {
            api.alerts.send(StoredAlert { id: None, alert });
        }
        if let Some(message) = api.secrets.problem().await? {
            let alert = Alert {
                kind: AlertKind::SecretsUnreadable,
                subject: "secret_key_file".to_owned(),
                message,
                at: clock.now(),
            };
            api.alerts.send(StoredAlert { id: None, alert });
        }
        let listeners = sockets.addresses.clone();
        tasks.serve(&api, sockets)?;
        tasks.clean_up(&api);
        if let Some(supervisor) = supervisor {
            tasks.spawn(supervisor.run(tasks.stop.clone()));
        }
        Ok(Self {
            api,
            listeners,
            tasks,
            stop_state_loop,
            state_loop: state_task,
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

    /// Stops accepting requests, lets active ones finish for a moment, stops the balancer that it supervises.
    pub async fn stop(self) {
        self.tasks.stop().await;
        self.stop_state_loop.cancel();
        if let Err(error) = self.state_loop.await {
            tracing::error!(%error, "the state loop failed");
        }
    }

    /// Returns when the state loop has failed: without it the controller cannot work.
    pub async fn failed(&mut self) {
        if let Err(error) = (&mut self.state_loop).await {
            tracing::error!(%error, "the state loop failed");
        }
    }
}

fn restore(config: &Config, snapshot: Snapshot, clock: &Clock) -> Cluster {
    let workers = config.topology.for_planner();
    Cluster::restore(snapshot, workers, config.planner.clone(), clock.now())
}

/// A full disk does not prevent the start: the state as stored is served, and the effects of a changed topology are pending.
async fn observe_configuration(config: &Config, state: &StateHandle) -> Result<(), Refused> {
    let workers = config.topology.for_planner();
    let settings = config.planner.clone();
    state.observe(Event::Configured { workers, settings }).await
}
