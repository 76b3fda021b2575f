//! The static configuration in force, and its reload.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{Json, extract::State};
use serde::Serialize;
use tucano_api::{error::ErrorBody, ids::BalancerName, units::Span};
use tucano_oci_distribution::client::Credentials;
use tucano_tls::Mode;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError};
use crate::{
    alerts,
    config_mgr::{Config, Limits, Listen, Registry},
    deployer::images::platform,
};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(reload))
}

/// The configuration in force, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigView {
    /// Platform that images must support, such as `linux/amd64`.
    platform: String,
    data_dir: String,
    domain: String,
    lease: Span,
    drain: Span,
    rebalance_after: Span,
    restart_attempts: u32,
    restart_backoff: Span,
    restart_grace: Span,
    restart_timeout: Span,
    crash_alert_after: u32,
    recovered_after: Span,
    revisions_kept: usize,
    runs_kept: usize,
    /// Whether it is set.
    token: bool,
    /// Whether it is set.
    agent_token: bool,
    agent_token_overlap: Span,
    api: ApiView,
    balancer: BalancerView,
    /// Without path, query and credentials, which may be secret.
    webhooks: Vec<String>,
    limits: Limits,
    registries: Vec<RegistryView>,
    topology: Vec<NodeConfigView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RegistryView {
    host: String,
    plain_http: bool,
    /// Whether they are set.
    credentials: bool,
    /// Whether it has its own certificate authorities.
    ca: bool,
}

impl RegistryView {
    fn of(registry: &Registry) -> Self {
        Self {
            host: registry.host.clone(),
            plain_http: registry.plain_http,
            credentials: registry.credentials != Credentials::Anonymous,
            ca: registry.authorities.is_some(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct ApiView {
    listen: Vec<String>,
    /// Whether other machines must use TLS.
    #[schema(value_type = String)]
    tls: Mode,
    names: Vec<String>,
    /// The balancers on other machines that may follow the routes.
    #[schema(value_type = Vec<String>)]
    balancers: BTreeSet<BalancerName>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BalancerView {
    listen: Vec<String>,
    spawn: bool,
    arguments: Vec<String>,
    program: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NodeConfigView {
    kind: &'static str,
    name: String,
    #[schema(value_type = String)]
    ip: IpAddr,
    /// Whether it has a restart command; its arguments may be secret.
    restart: bool,
}

impl ConfigView {
    fn of(config: &Config, tls: Mode) -> Self {
        let planner = &config.planner;
        Self {
            platform: platform().to_string(),
            data_dir: config.data_dir.display().to_string(),
            domain: planner.domain.clone(),
            lease: planner.lease,
            drain: planner.drain,
            rebalance_after: planner.rebalance_after,
            restart_attempts: planner.restart_attempts,
            restart_backoff: planner.restart_backoff,
            restart_grace: planner.restart_grace,
            restart_timeout: config.restart_timeout,
            crash_alert_after: planner.crash_alert_after,
            recovered_after: planner.recovered_after,
            revisions_kept: planner.revisions_kept,
            runs_kept: planner.runs_kept,
            token: config.token.is_some(),
            agent_token: config.agent_token.is_some(),
            agent_token_overlap: config.agent_token_overlap,
            api: ApiView {
                listen: config.listen.iter().map(listen).collect(),
                tls,
                names: config.names.iter().map(ToString::to_string).collect(),
                balancers: config.balancers.clone(),
            },
            balancer: BalancerView {
                listen: config
                    .balancer
                    .listen
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                spawn: config.balancer.spawn,
                arguments: config.balancer.arguments.clone(),
                program: config
                    .balancer
                    .program
                    .as_ref()
                    .map(|path| path.display().to_string()),
            },
            webhooks: config.webhooks.iter().map(alerts::shown).collect(),
            limits: config.limits.clone(),
            registries: config.registries.iter().map(RegistryView::of).collect(),
            topology: topology(config),
        }
    }
}

fn listen(listen: &Listen) -> String {
    match listen {
        Listen::Address(address) => address.to_string(),
        Listen::Stdin => "stdin".to_owned(),
    }
}

fn topology(config: &Config) -> Vec<NodeConfigView> {
    let ctl = &config.topology.ctl;
    let ctl = NodeConfigView {
        kind: "ctl",
        name: ctl.name.to_string(),
        ip: ctl.ip,
        restart: false,
    };
    let workers = config.topology.workers.iter().map(|worker| NodeConfigView {
        kind: "worker",
        name: worker.name.to_string(),
        ip: worker.ip,
        restart: worker.restart.is_some(),
    });
    std::iter::once(ctl).chain(workers).collect()
}

/// The configuration in force, without secrets.
#[utoipa::path(get, path = "/v1/config", tag = "controller",
    responses((status = 200, body = ConfigView)))]
async fn show(State(api): State<Arc<Api>>) -> Json<ConfigView> {
    Json(ConfigView::of(&api.config.current(), api.tls.mode()))
}

/// Reloads the configuration file; a file with an error changes nothing.
#[utoipa::path(post, path = "/v1/config/reload", tag = "controller",
    responses(
        (status = 200, body = ConfigView),
        (status = 422, description = "The file is invalid, or needs a restart", body = ErrorBody)))]
async fn reload(State(api): State<Arc<Api>>) -> Result<Json<ConfigView>, ApiError> {
    // In its own task: a client that disconnects must not interrupt it.
    let reloading = tokio::spawn({
        let api = api.clone();
        async move { api.config.reload(&api.state).await }
    });
    let reloaded = reloading.await.map_err(|error| {
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, "reload_failed", error.to_string())
    })?;
    let config = reloaded.inspect_err(|error| {
        tracing::error!(%error, "the configuration was not reloaded; the old one stays in force");
    })?;
    Ok(Json(ConfigView::of(&config, api.tls.mode())))
}
