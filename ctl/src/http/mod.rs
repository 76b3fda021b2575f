//! The controller's HTTP API: a thin layer that maps requests to calls of the other modules, and results to responses.

pub mod access;
pub mod adoption;
pub mod agents;
pub mod applications;
pub mod audit;
pub mod auth;
pub mod backups;
mod balancer_metrics;
pub mod balancers;
pub mod config;
pub mod errors;
pub mod exec;
pub mod extract;
pub mod images;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod openapi;
pub mod registry;
pub mod routes;
pub mod secrets;
pub mod server;
pub mod services;
pub mod state;
pub mod volumes;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::from_fn_with_state,
    response::IntoResponse,
};
use tokio::sync::Semaphore;
use tower_http::{
    classify::ServerErrorsFailureClass,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
};

use tracing::Span;

use self::errors::ApiError;
use crate::{
    agent_mgr::{AgentAddress, AgentManager},
    alerts::Alerts,
    config_mgr::ConfigManager,
    deployer::Deployer,
    discovery::{Discovery, names::NamesFeed},
    secrets::Secrets,
    state_loop::{StateHandle, metrics::StateLoopMetrics},
    tls::Tls,
};
use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    state::ServiceView,
    units::Timestamp,
};

/// Everything that the handlers call.
#[derive(Debug)]
pub struct Api {
    /// The static configuration.
    pub config: Arc<ConfigManager>,
    /// The cluster's state.
    pub state: StateHandle,
    /// Deploys.
    pub deployer: Deployer,
    /// The secrets.
    pub secrets: Secrets,
    /// The agents.
    pub agents: Arc<AgentManager>,
    /// The routes.
    pub discovery: Arc<Discovery>,
    /// The names' feed.
    pub names: Arc<NamesFeed>,
    /// The alerts.
    pub alerts: Arc<Alerts>,
    /// Certificates.
    pub tls: Arc<Tls>,
    /// The state loop's metrics.
    pub state_metrics: StateLoopMetrics,
    /// Permits for commands in containers.
    pub sessions: Arc<Semaphore>,
    /// When the controller started.
    pub started_at: Timestamp,
}

impl Api {
    /// The node that a process is assigned to.
    async fn node_of(&self, id: &ProcessId) -> Result<NodeName, ApiError> {
        let wanted = id.clone();
        let node = self
            .state
            .query(move |cluster| cluster.node_of(&wanted).cloned())
            .await?;
        node.ok_or_else(|| ApiError::not_found(format!("there is no process {id}")))
    }

    /// A service's configuration and state.
    async fn service(&self, name: &ServiceName) -> Result<ServiceView, ApiError> {
        let wanted = name.clone();
        let service = self
            .state
            .query(move |cluster| cluster.service(&wanted))
            .await?;
        service.ok_or_else(|| ApiError::not_found(format!("there is no service {name}")))
    }

    /// The address of a node's agent, or why it is not known.
    fn address_of(&self, node: &NodeName) -> Result<AgentAddress, String> {
        self.agents.address(node).ok_or_else(|| {
            format!(
                "node {node} has not reported since the controller started: try again when it is alive"
            )
        })
    }
}

/// The routes of the TCP listeners.
pub fn router(api: Arc<Api>) -> Router {
    let (routes, document) = openapi::documented();
    let document = Arc::new(document);
    routes
        .route("/openapi.json", openapi::serve(document))
        .merge(registry::router(&api))
        .merge(routes::router(api.clone()))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(api.clone(), auth::authorize))
        .layer(from_fn_with_state(api.clone(), audit::record))
        .layer(DefaultBodyLimit::disable())
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_failure(note_failure),
        )
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .with_state(api)
}

/// 503 answers report unhealthy processes or overload to the client; they are no failure of the controller.
fn note_failure(failure: ServerErrorsFailureClass, _latency: Duration, _span: &Span) {
    match failure {
        ServerErrorsFailureClass::StatusCode(StatusCode::SERVICE_UNAVAILABLE) => {
            tracing::debug!("answered with 503");
        }
        failure => tracing::error!(%failure, "a request failed"),
    }
}

fn span(request: &Request) -> tracing::Span {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    let id: String = id.chars().take(64).collect();
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path(), id)
}

async fn no_such_route(request: Request) -> impl IntoResponse {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!(
        "there is no route {path}: /openapi.json lists all routes"
    ))
}

async fn wrong_method(request: Request) -> impl IntoResponse {
    let message = format!(
        "{} does not support {}: /openapi.json lists the methods",
        request.uri().path().chars().take(200).collect::<String>(),
        request.method()
    );
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}
