//! Commands in containers: the connection is proxied to the process's node.

use std::{io, sync::Arc};

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

use super::{Api, audit::CommandRecorder, errors::ApiError, extract::PathParam};
use crate::agent_mgr::AgentError;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(in_process))
        .routes(routes!(in_service))
}

/// Runs a command in a process's container. `Connection: Upgrade` and `Upgrade: tucano-exec` switch the connection to
/// frames, which the guide describes: the command, its input, output and exit.
#[utoipa::path(post, path = "/v1/processes/{id}/exec", tag = "services",
    params(("id" = String, Path)),
    responses(
        (status = 101, description = "The connection carries frames from now on"),
        (status = 404, body = ErrorBody),
        (status = 426, description = "The upgrade headers are missing", body = ErrorBody),
        (status = 429, description = "Too many sessions (limits.sessions)", body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn in_process(
    State(api): State<Arc<Api>>,
    PathParam(id): PathParam<ProcessId>,
    request: Request,
) -> Result<Response, ApiError> {
    let node = api.node_of(&id).await?;
    pass_on(&api, &node, &id, request).await
}

/// Runs a command in one of a service's processes, preferably a healthy one of the current revision.
#[utoipa::path(post, path = "/v1/services/{name}/exec", tag = "services",
    params(("name" = String, Path)),
    responses(
        (status = 101, description = "The connection carries frames from now on"),
        (status = 404, body = ErrorBody),
        (status = 409, description = "It has no running process", body = ErrorBody),
        (status = 426, description = "The upgrade headers are missing", body = ErrorBody),
        (status = 429, description = "Too many sessions (limits.sessions)", body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn in_service(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    request: Request,
) -> Result<Response, ApiError> {
    let service = api.service(&name).await?;
    let process = choose(&service.active.processes).ok_or_else(|| {
        let message = format!("{name} has no running process: `tucano ps {name}` shows why");
        ApiError::new(StatusCode::CONFLICT, "not_running", message)
    })?;
    pass_on(&api, &process.node, &process.report.id, request).await
}

/// Prefers current, then not draining, then healthy processes; the first of equals.
fn choose(processes: &[ProcessView]) -> Option<&ProcessView> {
    let is_running = |process: &&ProcessView| {
        let state = process.report.state;
        matches!(
            state,
            ProcessState::Starting | ProcessState::Healthy | ProcessState::Unhealthy
        )
    };
    processes.iter().filter(is_running).min_by_key(|process| {
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
        let message = format!("send the headers `Connection: Upgrade` and `Upgrade: {UPGRADE}`");
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(ApiError::new(status, "upgrade_required", message));
    }
    let permit = Arc::clone(&api.sessions).try_acquire_owned().map_err(|_| {
        let message = "too many commands run at once (limits.sessions): try again later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", message)
    })?;
    let address = api.address_of(node).map_err(ApiError::agent_unreachable)?;
    let answer = api
        .agents
        .client()
        .exec(address, id)
        .await
        .map_err(refusal)?;
    tracing::info!(process = %id, %node, "running a command");
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(id.clone(), client, answer, permit));
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

/// Passes the agent's refusal on.
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

/// Copies in both directions until one side closes. The command is recorded.
async fn serve(
    process: ProcessId,
    client: OnUpgrade,
    agent: reqwest::Response,
    permit: OwnedSemaphorePermit,
) {
    let served = async {
        let mut agent = agent.upgrade().await.map_err(io::Error::other)?;
        let client = TokioIo::new(client.await.map_err(io::Error::other)?);
        copy_bidirectional(&mut CommandRecorder::new(client, process), &mut agent).await
    };
    if let Err(error) = served.await {
        tracing::info!(%error, "a session failed");
    }
    drop(permit);
}
