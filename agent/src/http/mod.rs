//! The agent's HTTP API, for the controller only: identity, desired set, prefetch hints, logs, and commands in containers.

mod desired;
mod exec;
mod logs;
mod prefetch;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{Request, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tower::limit::GlobalConcurrencyLimitLayer;
use tucano_api::{agent::Identity, error::ErrorBody, ids::ProcessId};

use crate::{
    runner::{Handle, execute::Executor, state::ProcessDir},
    settings::{Limits, Token},
    tls::Peer,
};

/// Concurrent requests whose bodies are read into memory.
const CONCURRENT_REQUESTS: usize = 16;

/// Shared state of the routes.
#[derive(Debug)]
pub struct Api {
    runner: Handle,
    executor: Arc<Executor>,
    token: Option<Token>,
    limits: Limits,
    agent_id: String,
    followers: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

impl Api {
    /// Builds the state of the routes; desired sets go to the runner through `runner`.
    pub fn new(
        runner: Handle,
        executor: Arc<Executor>,
        token: Option<Token>,
        limits: Limits,
        agent_id: String,
    ) -> Self {
        Self {
            followers: Arc::new(Semaphore::new(limits.followers)),
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            runner,
            executor,
            token,
            limits,
            agent_id,
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let body_bytes = usize::try_from(self.limits.body_bytes.0).unwrap_or(usize::MAX);
        let api = Arc::new(self);
        Router::new()
            .route("/v1/desired", put(desired::put))
            .route("/v1/prefetch", post(prefetch::post))
            .route_layer(DefaultBodyLimit::max(body_bytes))
            .route_layer(GlobalConcurrencyLimitLayer::new(CONCURRENT_REQUESTS))
            .route("/v1/processes/{id}/logs", get(logs::get))
            .route("/v1/processes/{id}/exec", post(exec::post))
            .route("/v1/identity", get(identity))
            .route_layer(from_fn_with_state(Arc::clone(&api), authorize))
            .route("/healthz", get(async || "ok\n"))
            .fallback(async || {
                ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no such path")
            })
            .with_state(api)
    }

    /// Admits the controller's address to node ports: with several, it may connect from another one than its API's, and so does
    /// its balancer.
    async fn note_controller(&self, ip: IpAddr) {
        let IpAddr::V4(ip) = ip.to_canonical() else {
            return;
        };
        let network = &self.executor.network;
        if ip.is_loopback() || network.knows_controller(ip) {
            return;
        }
        let added = network.update_cluster(|cluster| {
            cluster.add_controller(ip);
        });
        if let Err(error) = added.await {
            tracing::warn!(%ip, %error, "cannot admit the controller to node ports");
        }
    }

    /// The directories of a process's output, while it exists and after its removal, or 404 if the node has neither.
    fn output(&self, id: &ProcessId) -> Result<(PathBuf, PathBuf), ApiError> {
        let retained = self.executor.retained.directory(id);
        match self.existing(id) {
            Ok(directory) => Ok((directory.home(), retained)),
            Err(_) if retained.exists() => Ok((retained.clone(), retained)),
            Err(error) => Err(error),
        }
    }

    /// The directory of a process, or 404 if the node has none of that id.
    fn existing(&self, id: &ProcessId) -> Result<ProcessDir, ApiError> {
        let directory = self.executor.data.process(id);
        if directory.path().exists() {
            return Ok(directory);
        }
        Err(no_process(id.as_str()))
    }
}

/// Parses the process id of a request's path.
fn parse_process_id(id: &str) -> Result<ProcessId, ApiError> {
    id.parse().map_err(|_| no_process("of that name"))
}

fn no_process(id: &str) -> ApiError {
    let message = format!("there is no process {id} on this node");
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// The agent's id, by which the controller matches reports to the agent that listens at their address.
async fn identity(State(api): State<Arc<Api>>) -> Json<Identity> {
    Json(Identity {
        agent_id: api.agent_id.clone(),
    })
}

/// An error response: status, code and message.
#[derive(Debug)]
struct ApiError(StatusCode, ErrorBody);

impl ApiError {
    fn new(status: StatusCode, code: &str, message: impl ToString) -> Self {
        Self(status, ErrorBody::new(code, message.to_string()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// Rejects requests without the agent token.
async fn authorize(
    State(api): State<Arc<Api>>,
    request: Request<Body>,
    next: Next,
) -> Result<Response, ApiError> {
    let presented = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let accepted = api.token.as_ref().is_none_or(|token| {
        // Compares in constant time: the duration must not tell how much of a guess is right.
        presented.is_some_and(|presented| bool::from(presented.ct_eq(token.reveal().as_bytes())))
    });
    if accepted {
        if let Some(ConnectInfo(Peer(address))) = request.extensions().get() {
            api.note_controller(address.ip()).await;
        }
        return Ok(next.run(request).await);
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "present the agent_token: Authorization: Bearer <agent_token>",
    ))
}
