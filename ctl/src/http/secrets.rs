//! Secrets: set, listed without their values, removed; and their values for the agents that need them.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use serde::Deserialize;
use tucano_api::{
    error::ErrorBody,
    ids::SecretName,
    secrets::{SecretStored, SecretValues, SecretValuesRequest, SecretView},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Caller,
    agents::{check_own, read as read_of_agent},
    auth::{Peer, certificate_required},
    errors::ApiError,
    extract::{PathParam, QueryParams},
};
use crate::{agent_mgr::ReportError, body, config_mgr::topology::WorkerNode};

/// Most values that one request may ask for.
const MAX_VALUES: usize = 1024;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(set, remove))
        .routes(routes!(rekey))
        .routes(routes!(values))
}

/// Every secret, without its value.
#[utoipa::path(get, path = "/v1/secrets", tag = "secrets",
    responses((status = 200, body = Vec<SecretView>)))]
async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<SecretView>>, ApiError> {
    Ok(Json(api.secrets.list().await?))
}

/// Whether secrets that cannot be read do not matter.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Setting {
    /// Sets it although stored secrets cannot be read: their key is lost for good.
    key_lost: bool,
}

/// Gives a secret a value: the request's body, byte for byte. Services that have the secret get a new revision, and their processes
/// are replaced one by one; the same value again changes nothing.
#[utoipa::path(put, path = "/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path), Setting),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = SecretStored),
        (status = 400, description = "The value is empty", body = ErrorBody),
        (status = 409, description = "A service has it as a variable, which the value cannot be; or too many secrets", body = ErrorBody),
        (status = 413, body = ErrorBody),
        (status = 422, description = "The cluster's traffic is plain text", body = ErrorBody),
        (status = 500, description = "The keys cannot be used", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn set(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<SecretName>,
    QueryParams(Setting { key_lost }): QueryParams<Setting>,
    body: Body,
) -> Result<Json<SecretStored>, ApiError> {
    let limits = api.config.current().limits.clone();
    let most = ("limits.secret_bytes", limits.secret_bytes);
    let value = body::read("the secret", body, most, limits.body_idle.0).await?;
    Ok(Json(api.secrets.set(name, value.into(), key_lost).await?))
}

/// Whether revisions that can be rolled back to do not matter.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// Removes it although earlier revisions have it: they can then no longer be rolled back to.
    force: bool,
}

/// Removes a secret that no service has.
#[utoipa::path(delete, path = "/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path), Removal),
    responses(
        (status = 200, description = "Removed"),
        (status = 404, body = ErrorBody),
        (status = 409, description = "A service has it", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn remove(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<SecretName>,
    QueryParams(Removal { force }): QueryParams<Removal>,
) -> Result<Json<serde_json::Value>, ApiError> {
    api.secrets.remove(name, force).await?;
    Ok(Json(serde_json::json!({})))
}

/// How many secrets have the new key.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct Rekeyed {
    /// All of them.
    secrets: usize,
}

/// Encrypts all secrets with a new key in place of the present one. No value changes.
#[utoipa::path(post, path = "/v1/secret_key", tag = "secrets",
    responses(
        (status = 200, body = Rekeyed),
        (status = 500, description = "A value, or the keys, cannot be used", body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn rekey(State(api): State<Arc<Api>>) -> Result<Json<Rekeyed>, ApiError> {
    let secrets = api.secrets.rekey().await?;
    Ok(Json(Rekeyed { secrets }))
}

/// Values that the processes on the agent's own node need.
#[utoipa::path(post, path = "/v1/secret_values", tag = "agents", request_body = SecretValuesRequest,
    responses(
        (status = 200, body = SecretValues),
        (status = 400, body = ErrorBody),
        (status = 403, description = "Not a worker of the topology, another node's certificate, or no process on the node needs the value", body = ErrorBody),
        (status = 413, body = ErrorBody),
        (status = 500, description = "The keys cannot be used", body = ErrorBody)))]
async fn values(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<SecretValues>, ApiError> {
    let text = read_of_agent(&api, "the request for secrets", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_secret_request", error);
    let request: SecretValuesRequest =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    if request.secrets.len() > MAX_VALUES {
        let message = format!(
            "{} values are too many: at most {MAX_VALUES}",
            request.secrets.len()
        );
        return Err(invalid(message));
    }
    let config = api.config.current();
    let worker = config.topology.worker(request.node.as_ref(), request.ip);
    let worker = worker.ok_or_else(|| ReportError::unknown(request.node.as_ref(), request.ip))?;
    check_receiver(&caller, &peer, worker)?;
    let values = api
        .secrets
        .values(worker.name.clone(), request.secrets)
        .await?;
    Ok(Json(SecretValues { values }))
}

/// A node gets its own processes' values, by its certificate. A worker on the controller's machine has none: what it sends does not
/// leave the machine.
fn check_receiver(caller: &Caller, peer: &Peer, worker: &WorkerNode) -> Result<(), ApiError> {
    match caller {
        Caller::Certificate(identity) => check_own(identity, worker),
        _ if worker.ip.to_canonical().is_loopback()
            && peer.address.ip().to_canonical().is_loopback() =>
        {
            Ok(())
        }
        _ => Err(certificate_required()),
    }
}
