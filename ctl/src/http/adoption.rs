//! Adopting what runs on nodes that are on hold.

use std::sync::Arc;

use axum::{Json, extract::State};
use tucano_api::{error::ErrorBody, state::Adoption};
use tucano_planner::{Cluster, Event};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, errors::ApiError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(show, adopt))
}

/// The nodes on hold, and the services and processes that their agents report. Changes nothing.
#[utoipa::path(get, path = "/v1/adoption", tag = "adoption",
    responses((status = 200, body = Adoption)))]
async fn show(State(api): State<Arc<Api>>) -> Result<Json<Adoption>, ApiError> {
    Ok(Json(api.state.query(Cluster::adoption).await?))
}

/// Rebuilds services and revisions from what the agents on hold report, and manages their nodes again. Nodes with an
/// obstacle stay on hold: the answer names them.
#[utoipa::path(post, path = "/v1/adoption", tag = "adoption",
    responses(
        (status = 200, description = "What is still on hold", body = Adoption),
        (status = 507, body = ErrorBody)))]
async fn adopt(State(api): State<Arc<Api>>) -> Result<Json<Adoption>, ApiError> {
    api.state.apply(Event::Adopt).await?;
    Ok(Json(api.state.query(Cluster::adoption).await?))
}
