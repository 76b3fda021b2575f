//! The modules around the state loop, and what the loop does through them.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tucano_api::{agent::DesiredSet, ids::NodeName, routes::ServiceRoute};
use tucano_planner::NamesUpdate;

use super::StartError;
use crate::{
    agent_mgr::{AgentClient, AgentManager},
    alerts::Alerts,
    config_mgr::ConfigManager,
    deployer::{Deployer, Prefetcher, images::Images},
    discovery::{Discovery, names::NamesFeed},
    http::Api,
    secrets::Secrets,
    state_loop::{EffectSink, StateHandle, clock::Clock, metrics::StateLoopMetrics},
    store::StoredAlert,
    tls::Tls,
};

/// The modules around the state loop: the deployer on the sysadmin's side, `agent_mgr` on the workers', discovery on the
/// balancer's.
pub(super) struct Modules {
    deployer: Deployer,
    secrets: Secrets,
    agents: Arc<AgentManager>,
    discovery: Arc<Discovery>,
    names: Arc<NamesFeed>,
    pub(super) alerts: Arc<Alerts>,
    images: Arc<Images>,
}

impl Modules {
    pub(super) fn new(
        config: &Arc<ConfigManager>,
        state: &StateHandle,
        tls: &Tls,
        images: Arc<Images>,
    ) -> Result<Self, StartError> {
        let client = AgentClient::new(config.clone(), agent_client(tls)?).with_tls(tls.mode());
        let agents = Arc::new(AgentManager::new(config.clone(), state.clone(), client));
        let start = uuid::Uuid::new_v4().simple().to_string();
        let names = Arc::new(NamesFeed::new(start.clone()));
        let discovery = Discovery::new(start);
        let alerts = Alerts::new(config.clone(), state.clone(), webhook_client()?);
        let prefetcher = Prefetcher::new(config.clone(), agents.clone(), images.clone());
        let secrets = Secrets::new(config.clone(), state.clone(), tls.mode());
        let deployer = Deployer::new(config.clone(), state.clone(), images.clone())
            .with_prefetcher(prefetcher)
            .with_secrets(secrets.checker());
        Ok(Self {
            deployer,
            secrets,
            agents,
            discovery: Arc::new(discovery),
            names,
            alerts: Arc::new(alerts),
            images,
        })
    }

    pub(super) fn effects(&self) -> ControllerEffects {
        ControllerEffects {
            agents: self.agents.clone(),
            discovery: self.discovery.clone(),
            names: self.names.clone(),
            alerts: self.alerts.clone(),
            images: self.images.clone(),
        }
    }

    pub(super) fn into_api(
        self,
        config: Arc<ConfigManager>,
        state: StateHandle,
        tls: Arc<Tls>,
        state_metrics: StateLoopMetrics,
        clock: &Clock,
    ) -> Api {
        let sessions = usize::try_from(config.current().limits.sessions).unwrap_or(usize::MAX);
        Api {
            sessions: Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS))),
            config,
            state,
            deployer: self.deployer,
            secrets: self.secrets,
            agents: self.agents,
            discovery: self.discovery,
            names: self.names,
            alerts: self.alerts,
            tls,
            state_metrics,
            started_at: clock.started_at(),
        }
    }
}

/// Executes the planner's actions.
pub(super) struct ControllerEffects {
    agents: Arc<AgentManager>,
    discovery: Arc<Discovery>,
    names: Arc<NamesFeed>,
    alerts: Arc<Alerts>,
    images: Arc<Images>,
}

impl EffectSink for ControllerEffects {
    fn assign(&self, set: DesiredSet) {
        self.agents.assign(set);
    }
    fn publish(&self, routes: Vec<ServiceRoute>) {
        self.discovery.publish(routes);
    }
    fn publish_names(&self, update: NamesUpdate) {
        self.names.publish(update);
    }
    fn restart(&self, node: NodeName, attempt: u32) {
        self.agents.restart(node, attempt);
    }
    fn alert(&self, alert: StoredAlert) {
        self.alerts.send(alert);
    }
    fn images_released(&self) {
        self.images.released();
    }
}

/// Agents are in the cluster's own network: no proxy, no redirect, no authority but the cluster's.
fn agent_client(tls: &Tls) -> Result<reqwest::Client, StartError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.client_config()?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(2))
        .build();
    Ok(client?)
}

fn webhook_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tucano_ctld/", env!("CARGO_PKG_VERSION")))
        .build()
}
