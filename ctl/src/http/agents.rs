//! What agents ask for.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG},
    response::{IntoResponse, Response},
};
use tokio_util::io::ReaderStream;
use tucano_api::{
    agent::{NodeReport, ReportAccepted},
    error::ErrorBody,
    ids::Digest,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError, extract::Named};
use crate::{
    body,
    deployer::{DeployError, images::to_oci},
};

/// Bytes of a blob that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(report))
        .routes(routes!(blob))
}

/// Takes an agent's report.
#[utoipa::path(post, path = "/v1/reports", tag = "agents", request_body = NodeReport,
    responses(
        (status = 200, body = ReportAccepted),
        (status = 400, body = ErrorBody),
        (status = 403, description = "Not a worker of the topology", body = ErrorBody),
        (status = 409, description = "Not from the one agent at the worker's address", body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn report(State(api): State<Arc<Api>>, body: Body) -> Result<Json<ReportAccepted>, ApiError> {
    let limits = api.config.current().limits.clone();
    let text = body::read(
        "the report",
        body,
        ("limits.report_bytes", limits.report_bytes),
        limits.body_idle.0,
    )
    .await?;
    let report: NodeReport = serde_json::from_slice(&text).map_err(|error| {
        ApiError::bad_request(
            "invalid_report",
            format!("not a report of an agent: {error}"),
        )
    })?;
    Ok(Json(api.agents.report(report).await?))
}

/// A blob of a stored image.
#[utoipa::path(get, path = "/v1/blobs/{digest}", tag = "agents",
    params(("digest" = String, Path)),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, body = ErrorBody)))]
async fn blob(
    State(api): State<Arc<Api>>,
    Named(digest): Named<Digest>,
) -> Result<Response, ApiError> {
    let store = api.deployer.images().store().clone();
    let wanted = to_oci(&digest);
    if !store.contains(&wanted) {
        return Err(ApiError::not_found(format!("there is no blob {digest}")));
    }
    let opened = tokio::task::spawn_blocking(move || store.open_blob(&wanted)).await;
    let opened = opened.map_err(|error| {
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, "io", error.to_string())
    })?;
    let (file, length) = opened.map_err(DeployError::Image)?;
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    let headers = [
        (CONTENT_LENGTH, length.to_string()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
