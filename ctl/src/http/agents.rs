//! What agents ask for.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use tucano_api::{
    agent::{NodeReport, ReportAccepted},
    error::ErrorBody,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError};
use crate::body;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(report))
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
