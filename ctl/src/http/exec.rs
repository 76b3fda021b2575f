//! Commands in processes' containers: the connection is passed on to the process's node, as it is.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, sync::OwnedSemaphorePermit};
use tucano_api::{
    agent::ProcessState,
    error::ErrorBody,
    ids::{NodeName, ProcessId, ServiceName},
    state::ProcessView,
};
use tucano_oci_session::{UPGRADE, is_upgrade_request};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError, extract::Named};
use crate::agent_mgr::AgentError;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(in_process))
        .routes(routes!(in_service))
}

/// Runs a command in a process's container. With `Connection: Upgrade` and `Upgrade: tucano-exec` the connection becomes one of
/// frames, which the guide describes: what to run, its input, outputs and end.
#[utoipa::path(post, path = "/v1/processes/{id}/exec", tag = "services",
    params(("id" = String, Path)),
    responses(
        (status = 101, description = "The connection is one of frames from now on"),
        (status = 404, body = ErrorBody),
        (status = 426, description = "The headers are missing", body = ErrorBody),
        (status = 429, description = "Too many are run at once", body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn in_process(
    State(api): State<Arc<Api>>,
    Named(id): Named<ProcessId>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = api.node_of(&id).await?;
    pass_on(&api, &node, &id, request).await
}

/// The same in one of a service's processes: a healthy one of the current revision, where there is one.
#[utoipa::path(post, path = "/v1/services/{name}/exec", tag = "services",
    params(("name" = String, Path)),
    responses(
        (status = 101, description = "The connection is one of frames from now on"),
        (status = 404, body = ErrorBody),
        (status = 409, description = "None of its processes runs", body = ErrorBody),
        (status = 426, description = "The headers are missing", body = ErrorBody),
        (status = 429, description = "Too many are run at once", body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn in_service(
    State(api): State<Arc<Api>>,
    Named(name): Named<ServiceName>,
    request: Request,
) -> Result<Response, ApiError> {
    let service = api.service(&name).await?;
    let process = choose(&service.active.processes).ok_or_else(|| {
        let message = format!("no process of {name} runs: `tucano ps {name}` tells why");
        ApiError::new(StatusCode::CONFLICT, "not_running", message)
    })?;
    pass_on(&api, &process.node, &process.report.id, request).await
}

/// The one that is most as it should be; of equals the first.
fn choose(processes: &[ProcessView]) -> Option<&ProcessView> {
    let runs = |process: &&ProcessView| {
        let state = process.report.state;
        matches!(
            state,
            ProcessState::Starting | ProcessState::Healthy | ProcessState::Unhealthy
        )
    };
    processes.iter().filter(runs).min_by_key(|process| {
        let is_healthy = process.report.state == ProcessState::Healthy;
        (!process.current, process.draining, !is_healthy)
    })
}

async fn pass_on(
    api: &Api,
    node: &NodeName,
    id: &ProcessId,
    mut request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    if !is_upgrade_request(|name| headers.get(name).map(HeaderValue::as_bytes)) {
        let message = format!("write `Connection: Upgrade` and `Upgrade: {UPGRADE}`");
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(ApiError::new(status, "upgrade_required", message));
    }
    let permit = Arc::clone(&api.sessions).try_acquire_owned().map_err(|_| {
        let message = "too many commands are run at once (limits.sessions): try later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", message)
    })?;
    let address = api.address_of(node).map_err(ApiError::agent_unreachable)?;
    let answer = api
        .agents
        .client()
        .exec(address, id)
        .await
        .map_err(refusal)?;
    tracing::info!(process = %id, %node, "a command is run");
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(client, answer, permit));
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .header("Tucano-Process", id.as_str())
        .body(Body::empty())
        .map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, "internal", error.to_string())
        })
}

/// What the agent refuses is refused in its words.
fn refusal(error: AgentError) -> ApiError {
    match error {
        AgentError::Refused { status, body, .. }
            if matches!(
                status,
                StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS
            ) =>
        {
            ApiError { status, body }
        }
        other => ApiError::agent_unreachable(other.to_string()),
    }
}

/// Until one of the two is gone; then the other is told.
async fn serve(client: OnUpgrade, agent: reqwest::Response, permit: OwnedSemaphorePermit) {
    let served = async {
        let mut agent = agent.upgrade().await.map_err(std::io::Error::other)?;
        let client = client.await.map_err(std::io::Error::other)?;
        copy_bidirectional(&mut TokioIo::new(client), &mut agent).await
    };
    if let Err(error) = served.await {
        tracing::info!(%error, "a session broke");
    }
    drop(permit);
}
