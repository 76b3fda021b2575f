//! Routes for agents.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use bytes::Bytes;
use tucano_api::{
    agent::{Certificate, CertificateRequest, NodeReport, ReportAccepted},
    error::ErrorBody,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, auth::Peer, errors::ApiError};
use crate::body::{self, BodyError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(report))
        .routes(routes!(certify))
}

/// Accepts an agent's report.
#[utoipa::path(post, path = "/v1/reports", tag = "agents", request_body = NodeReport,
    responses(
        (status = 200, body = ReportAccepted),
        (status = 400, body = ErrorBody),
        (status = 403, description = "Not a worker of the topology", body = ErrorBody),
        (status = 409, description = "Not from the agent at the worker's address", body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn report(State(api): State<Arc<Api>>, body: Body) -> Result<Json<ReportAccepted>, ApiError> {
    let text = read(&api, "the report", body).await?;
    let report: NodeReport = serde_json::from_slice(&text).map_err(|error| {
        ApiError::bad_request(
            "invalid_report",
            format!("not a report of an agent: {error}"),
        )
    })?;
    Ok(Json(api.agents.report(report).await?))
}

/// Issues a certificate for a worker's address to its agent; the request must come from that address.
#[utoipa::path(post, path = "/v1/certificates", tag = "agents", request_body = CertificateRequest,
    responses(
        (status = 200, body = Certificate),
        (status = 400, body = ErrorBody),
        (status = 403, description = "Not a worker of the topology, or not at its address", body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn certify(
    State(api): State<Arc<Api>>,
    Extension(Peer(from)): Extension<Peer>,
    body: Body,
) -> Result<Json<Certificate>, ApiError> {
    let text = read(&api, "the request for a certificate", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_certificate_request", error);
    let request: CertificateRequest =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let worker = api.agents.authorize_certificate(&request, from.ip())?;
    let certificate = api
        .tls
        .sign(&request.request, worker.ip)
        .map_err(|error| invalid(error.to_string()))?;
    tracing::info!(node = %worker.name, ip = %worker.ip, %from, "an agent has a new certificate");
    Ok(Json(Certificate { certificate }))
}

async fn read(api: &Api, what: &'static str, body: Body) -> Result<Bytes, BodyError> {
    let limits = api.config.current().limits.clone();
    let most = ("limits.report_bytes", limits.report_bytes);
    body::read(what, body, most, limits.body_idle.0).await
}
