//! The names' feed: each agent reads what its own node's processes need.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tucano_api::{error::ErrorBody, ids::NodeName, names::Names};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Caller,
    agents::check_own,
    auth::{Peer, certificate_required},
    errors::ApiError,
    extract::QueryParams,
};
use crate::{agent_mgr::ReportError, config_mgr::topology::WorkerNode};

/// Duration of a long poll without a change.
const LONG_POLL: Duration = Duration::from_secs(20);

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(names))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Follower {
    /// The node's name, as in its reports.
    node: Option<NodeName>,
    /// Its address, as in its reports.
    #[param(value_type = String)]
    ip: std::net::IpAddr,
    /// The version that it has.
    after: Option<String>,
}

/// The services that processes on the agent's own node need, as soon as they differ from a version.
#[utoipa::path(get, path = "/v1/names", tag = "agents", params(Follower),
    responses(
        (status = 200, body = Names),
        (status = 204, description = "Nothing has changed for 20 s"),
        (status = 403, description = "Not a worker of the topology, or another node's certificate", body = ErrorBody)))]
async fn names(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Extension(caller): Extension<Caller>,
    QueryParams(follower): QueryParams<Follower>,
) -> Result<Response, ApiError> {
    let config = api.config.current();
    let worker = config.topology.worker(follower.node.as_ref(), follower.ip);
    let worker = worker.ok_or_else(|| ReportError::unknown(follower.node.as_ref(), follower.ip))?;
    check_follower(&api, &caller, &peer, worker)?;
    let after = follower.after.as_deref();
    let next = api.names.next(&worker.name, after, LONG_POLL);
    Ok(match next.await {
        Some(names) => Json(names).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// A node reads for itself, as it reports for itself.
fn check_follower(
    api: &Api,
    caller: &Caller,
    peer: &Peer,
    worker: &WorkerNode,
) -> Result<(), ApiError> {
    let from = peer.address.ip().to_canonical();
    match caller {
        Caller::Certificate(identity) => check_own(identity, worker),
        _ if api.tls.nodes().token_suffices(worker, from) => Ok(()),
        _ => Err(certificate_required()),
    }
}
