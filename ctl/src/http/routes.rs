//! The routes' feed for balancers, and their reports: on a unix socket for our own user only, and over TCP for a balancer's
//! certificate.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tucano_api::{
    balancer::{BALANCER_HEADER, BalancerReport, MAX_DRAINED},
    ids::BalancerId,
};
use tucano_planner::Event;
use tucano_tls::Identity;

use super::{Api, access::Caller, agents, errors::ApiError, extract::QueryParams};

/// Duration of a long poll without a change.
const LONG_POLL: Duration = Duration::from_secs(20);

/// The routes of the unix socket, which balancers use over TCP as well.
pub fn router<S: Clone + Send + Sync + 'static>(api: Arc<Api>) -> Router<S> {
    Router::new()
        .route("/v1/routes", get(routes))
        .route("/v1/balancer_reports", post(report))
        .with_state(api)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<String>,
}

async fn routes(
    State(api): State<Arc<Api>>,
    QueryParams(After { after }): QueryParams<After>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Response {
    let balancer = headers.get(BALANCER_HEADER);
    let balancer = balancer.and_then(|id| id.to_str().ok()?.parse::<BalancerId>().ok());
    if let Some(balancer) = &balancer
        && let Err(error) = check_own_id(caller.map(|Extension(caller)| caller), balancer)
    {
        return error.into_response();
    }
    let next = api
        .discovery
        .next(balancer.as_ref(), after.as_deref(), LONG_POLL);
    match next.await {
        Some(table) => Json(table.as_ref()).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A balancer with a certificate speaks for itself: its id begins with its name.
fn check_own_id(caller: Option<Caller>, id: &BalancerId) -> Result<(), ApiError> {
    let Some(Caller::Certificate(Identity::Balancer(name))) = caller else {
        return Ok(());
    };
    if id.name() == Some(name.as_str()) {
        return Ok(());
    }
    Err(ApiError::cannot_act(
        "another_balancer",
        format!("balancer {name}"),
        format!("balancer {id}"),
    ))
}

/// Accepts a balancer's report.
async fn report(
    State(api): State<Arc<Api>>,
    caller: Option<Extension<Caller>>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let text = agents::read(&api, "the report", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_report", error);
    let report: BalancerReport = serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("not a report of a balancer: {error}")))?;
    check_own_id(caller.map(|Extension(caller)| caller), &report.balancer)?;
    if report.drained.len() > MAX_DRAINED {
        let message = format!(
            "{} processes are too many: at most {MAX_DRAINED}",
            report.drained.len()
        );
        return Err(invalid(message));
    }
    let processes = api.discovery.report(report);
    if !processes.is_empty() {
        api.state.observe(Event::Drained { processes }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
