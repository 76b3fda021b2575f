//! What the controller asks of the agent: who it is, the desired set, what may be in the next one, logs, and commands in
//! containers. Nobody else gets an answer.

mod desired;
mod exec;
mod logs;
mod prefetch;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
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
};

/// Requests for desired sets that are read at the same time.
const REQUESTS_AT_ONCE: usize = 16;

/// What the routes need.
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
    /// Routes that reach the runner through its handle.
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
            .route_layer(GlobalConcurrencyLimitLayer::new(REQUESTS_AT_ONCE))
            .route("/v1/processes/{id}/logs", get(logs::get))
            .route("/v1/processes/{id}/exec", post(exec::post))
            .route("/v1/identity", get(identity))
            .route_layer(from_fn_with_state(Arc::clone(&api), authorize))
            .route("/healthz", get(async || "ok\n"))
            .fallback(async || {
                Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such path")
            })
            .with_state(api)
    }

    /// What the node has of a process.
    fn existing(&self, id: &ProcessId) -> Result<ProcessDir, Refusal> {
        let directory = self.executor.data.process(id);
        if directory.path().exists() {
            return Ok(directory);
        }
        Err(no_process(id.as_str()))
    }
}

/// The process that a path names.
fn named(id: &str) -> Result<ProcessId, Refusal> {
    id.parse().map_err(|_| no_process("of that name"))
}

fn no_process(id: &str) -> Refusal {
    let message = format!("there is no process {id} on this node");
    Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// Who answers here, so that the controller can tell a report that was sent from here.
async fn identity(State(api): State<Arc<Api>>) -> Json<Identity> {
    Json(Identity {
        agent_id: api.agent_id.clone(),
    })
}

/// An answer that says no, and why.
#[derive(Debug)]
struct Refusal(StatusCode, ErrorBody);

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl ToString) -> Self {
        Self(status, ErrorBody::new(code, message.to_string()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// Lets through only who presents the token.
async fn authorize(
    State(api): State<Arc<Api>>,
    request: Request<Body>,
    next: Next,
) -> Result<Response, Refusal> {
    let presented = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let accepted = api.token.as_ref().is_none_or(|token| {
        // Takes equally long however much of it is right.
        presented.is_some_and(|presented| bool::from(presented.ct_eq(token.reveal().as_bytes())))
    });
    if accepted {
        return Ok(next.run(request).await);
    }
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "present the agent_token: Authorization: Bearer <agent_token>",
    ))
}
