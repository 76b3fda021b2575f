//! Routes for agents.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use bytes::Bytes;
use tucano_api::{
    agent::{Certificate, CertificateRequest, NodeReport, ReportAccepted},
    error::ErrorBody,
    ids::NodeName,
};
use tucano_tls::Identity;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Caller,
    auth::{Peer, certificate_required},
    errors::ApiError,
};
use crate::{
    body::{self, BodyError},
    config_mgr::topology::WorkerNode,
};

/// Largest plausible sequence number of a report: one per microsecond for 285 years. A larger one could not be exceeded by
/// the agent's next reports.
const MAX_SEQUENCE: u64 = 1 << 53;

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
        (status = 403, description = "Not a worker of the topology, or another node's certificate", body = ErrorBody),
        (status = 409, description = "Not from the agent at the worker's address", body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn report(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<ReportAccepted>, ApiError> {
    let text = read(&api, "the report", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_report", error);
    let report: NodeReport = serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("not a report of an agent: {error}")))?;
    if report.sequence > MAX_SEQUENCE {
        let message = format!(
            "sequence {} is not plausible: at most {MAX_SEQUENCE}",
            report.sequence
        );
        return Err(invalid(message));
    }
    let certified = check_reporter(&api, &caller, &peer, &report)?;
    let accepted = api.agents.report(report).await?;
    if let Some(node) = certified
        && let Err(error) = api.tls.nodes().record(&node)
    {
        tracing::error!(%node, %error, "cannot record that the node has used its certificate");
    }
    Ok(Json(accepted))
}

/// A node reports for itself. Returns its name if it has proven it by its certificate.
fn check_reporter(
    api: &Api,
    caller: &Caller,
    peer: &Peer,
    report: &NodeReport,
) -> Result<Option<NodeName>, ApiError> {
    let config = api.config.current();
    // An unknown worker is refused with advice by the agent manager.
    let Some(worker) = config.topology.worker(report.node.as_ref(), report.ip) else {
        return Ok(None);
    };
    match caller {
        Caller::Certificate(identity) => {
            check_own(identity, worker)?;
            Ok(Some(worker.name.clone()))
        }
        _ if api
            .tls
            .nodes()
            .token_suffices(worker, peer.address.ip().to_canonical()) =>
        {
            Ok(None)
        }
        _ => Err(certificate_required()),
    }
}

pub(super) fn check_own(identity: &Identity, worker: &WorkerNode) -> Result<(), ApiError> {
    if *identity == Identity::Node(worker.name.to_string()) {
        return Ok(());
    }
    let node = format!("node {}", worker.name);
    Err(ApiError::cannot_act("another_node", identity, node))
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
    Extension(peer): Extension<Peer>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Certificate>, ApiError> {
    let text = read(&api, "the request for a certificate", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_certificate_request", error);
    let request: CertificateRequest =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let from = peer.address.ip();
    let worker = api.agents.authorize_certificate(&request, from)?;
    if let Caller::Certificate(identity) = &caller {
        check_own(identity, &worker)?;
    }
    let certificate = api
        .tls
        .sign(&request.request, &worker)
        .map_err(|error| invalid(error.to_string()))?;
    tracing::info!(node = %worker.name, ip = %worker.ip, %from, "an agent has a new certificate");
    Ok(Json(Certificate { certificate }))
}

pub(super) async fn read(api: &Api, what: &'static str, body: Body) -> Result<Bytes, BodyError> {
    let limits = api.config.current().limits.clone();
    let most = ("limits.report_bytes", limits.report_bytes);
    body::read(what, body, most, limits.body_idle.0).await
}
