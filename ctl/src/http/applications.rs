//! Deploys several services together.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use tucano_api::{application::ApplicationDeploy, error::ErrorBody, state::Deployed, units::Bytes};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, audit, errors::ApiError};
use crate::body;

/// The keys of ctl.toml whose product limits the body.
const LIMIT: &str = "limits.config_bytes, for each of limits.application_services,";

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(deploy))
}

/// Deploys several services, all of them or none; they may need each other. The answer has them in the order of the request, and does
/// not wait until they are healthy.
#[utoipa::path(post, path = "/v1/applications", tag = "services",
    request_body = ApplicationDeploy,
    responses(
        (status = 200, description = "All are configured", body = Vec<Deployed>),
        (status = 400, description = "A configuration or an image is invalid", body = ErrorBody),
        (status = 404, description = "No registry has an image", body = ErrorBody),
        (status = 408, body = ErrorBody),
        (status = 409, description = "Another service uses a host", body = ErrorBody),
        (status = 413, description = "Too many services, or too large", body = ErrorBody),
        (status = 422, description = "An image cannot run here, no worker can ever run a process, a service does not exist, or a registry is not listed or refuses access", body = ErrorBody),
        (status = 502, description = "The other registry cannot be reached or sends malformed answers", body = ErrorBody),
        (status = 504, description = "The other registry took longer than limits.pull", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn deploy(State(api): State<Arc<Api>>, body: Body) -> Result<Response, ApiError> {
    let limits = api.config.current().limits.clone();
    let most = limits
        .config_bytes
        .0
        .saturating_mul(limits.application_services);
    let text = body::read(
        "the application",
        body,
        (LIMIT, Bytes(most)),
        limits.body_idle.0,
    );
    let asked: ApplicationDeploy = serde_json::from_slice(&text.await?)
        .map_err(|error| ApiError::bad_request("invalid_config", error.to_string()))?;
    let outcomes = api.deployer.deploy_together(asked).await?;
    let deployed: Vec<Deployed> = outcomes.into_iter().map(|it| it.deployed).collect();
    let shown = deployed
        .iter()
        .map(|it| format!("{} revision {}", it.name, it.revision));
    let shown: Vec<String> = shown.collect();
    let mut response = Json(deployed).into_response();
    let details = audit::Details(shown.join(", "));
    response.extensions_mut().insert(details);
    Ok(response)
}
