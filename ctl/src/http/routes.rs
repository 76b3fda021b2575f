//! What the balancer asks for, on a unix socket that only our own user can open.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::extract::Asked;
use crate::discovery::Discovery;

/// How long an answer waits for a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// The routes of the unix socket.
pub fn router(discovery: Arc<Discovery>) -> Router {
    Router::new()
        .route("/v1/routes", get(routes))
        .with_state(discovery)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<String>,
}

async fn routes(
    State(discovery): State<Arc<Discovery>>,
    Asked(After { after }): Asked<After>,
) -> Response {
    match discovery.next(after.as_deref(), PATIENCE).await {
        Some(table) => Json(table.as_ref()).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
