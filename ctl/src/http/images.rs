//! Describes images to those who configure services.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use tucano_api::{
    error::ErrorBody,
    image::{ImageDescription, ImageQuery},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, agents, errors::ApiError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(describe))
}

/// What an image says of its processes. One of another registry is pulled for that, and kept as long as untagged content.
#[utoipa::path(post, path = "/v1/images/describe", tag = "services",
    request_body = ImageQuery,
    responses(
        (status = 200, body = ImageDescription),
        (status = 400, body = ErrorBody),
        (status = 404, description = "No registry has the image", body = ErrorBody),
        (status = 422, description = "It is for another platform, or its registry is not listed or refuses access", body = ErrorBody),
        (status = 502, description = "The other registry cannot be reached or sends malformed answers", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn describe(
    State(api): State<Arc<Api>>,
    body: Body,
) -> Result<Json<ImageDescription>, ApiError> {
    let body = agents::read(&api, "the request", body).await?;
    let asked: ImageQuery = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("invalid_body", error.to_string()))?;
    Ok(Json(api.deployer.describe(asked).await?))
}
