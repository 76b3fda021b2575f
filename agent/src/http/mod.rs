//! The agent's HTTP API, for the controller only.
//!
//! | route | allowed |
//! |---|---|
//! | `/healthz` | everyone |
//! | `/v1/volumes/…` | the certificate of the worker that the desired set exports the volume to |
//! | everything else | the controller's certificate; the token only while the agent's own certificate has no identity |
//!
//! The agent's certificate has no identity on loopback clusters, without TLS, and until a controller of an earlier version
//! is upgraded. [`routes`] is the table that the router is built from.

mod access;
mod desired;
mod exec;
mod logs;
mod prefetch;
mod volumes;

use std::{convert::Infallible, net::IpAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post, put},
};
use tokio::sync::Semaphore;
use tower::limit::GlobalConcurrencyLimitLayer;
use tucano_api::{agent::Identity, error::ErrorBody, ids::ProcessId};

use self::access::Access;
use crate::{
    credentials::Credentials,
    runner::{Handle, execute::Executor, state::ProcessDir},
    settings::Limits,
};

/// Concurrent requests whose bodies are read into memory.
const CONCURRENT_REQUESTS: usize = 16;

/// Shared state of the routes.
#[derive(Debug)]
pub struct Api {
    runner: Handle,
    executor: Arc<Executor>,
    credentials: Arc<Credentials>,
    limits: Limits,
    agent_id: String,
    followers: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    copies: Arc<Semaphore>,
}

impl Api {
    /// Builds the state of the routes; desired sets go to the runner through `runner`.
    pub fn new(
        runner: Handle,
        executor: Arc<Executor>,
        credentials: Arc<Credentials>,
        limits: Limits,
        agent_id: String,
    ) -> Self {
        Self {
            followers: Arc::new(Semaphore::new(limits.followers)),
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            copies: Arc::new(Semaphore::new(limits.volume_copies)),
            runner,
            executor,
            credentials,
            limits,
            agent_id,
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let body_bytes = usize::try_from(self.limits.body_bytes.0).unwrap_or(usize::MAX);
        let api = Arc::new(self);
        let concurrency = GlobalConcurrencyLimitLayer::new(CONCURRENT_REQUESTS);
        let mut router = Router::new();
        for Route {
            path,
            access,
            handler,
        } in routes()
        {
            let handler = match path {
                "/v1/desired" | "/v1/prefetch" => handler
                    .layer::<_, Infallible>(DefaultBodyLimit::max(body_bytes))
                    .layer(concurrency.clone()),
                _ => handler,
            };
            let guard = from_fn_with_state((Arc::clone(&api), access), access::authorize);
            router = router.route(path, handler.layer(guard));
        }
        router
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

/// One route of the agent.
struct Route {
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Api>>,
}

/// Every route, with the clients that may use it.
fn routes() -> [Route; 8] {
    let route = |path, access, handler| Route {
        path,
        access,
        handler,
    };
    [
        route("/healthz", Access::Everyone, get(async || "ok\n")),
        route("/v1/identity", Access::Controller, get(identity)),
        route("/v1/desired", Access::Controller, put(desired::put)),
        route("/v1/prefetch", Access::Controller, post(prefetch::post)),
        route(
            "/v1/processes/{id}/logs",
            Access::Controller,
            get(logs::of_process),
        ),
        route(
            "/v1/services/{name}/logs",
            Access::Controller,
            get(logs::kept_of_service),
        ),
        route(
            "/v1/processes/{id}/exec",
            Access::Controller,
            post(exec::post),
        ),
        route(
            "/v1/volumes/{service}/{name}/{slot}/{instance}/{part}",
            Access::Worker,
            get(volumes::get),
        ),
    ]
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
