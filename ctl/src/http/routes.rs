//! The routes' feed for balancers: on a unix socket for our own user only, and over TCP for a balancer's certificate.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::extract::QueryParams;
use crate::discovery::Discovery;

/// Duration of a long poll without a change.
const LONG_POLL: Duration = Duration::from_secs(20);

/// The routes of the unix socket, which balancers use over TCP as well.
pub fn router<S: Clone + Send + Sync + 'static>(discovery: Arc<Discovery>) -> Router<S> {
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
    QueryParams(After { after }): QueryParams<After>,
) -> Response {
    match discovery.next(after.as_deref(), LONG_POLL).await {
        Some(table) => Json(table.as_ref()).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
