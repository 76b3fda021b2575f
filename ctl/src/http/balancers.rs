//! Certificates of balancers on other machines.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State, http::StatusCode};
use tucano_api::{agent::Certificate, balancer::BalancerCertificateRequest, error::ErrorBody};
use tucano_tls::Identity;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, access::Caller, agents::read, errors::ApiError};

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(certify))
}

/// Issues a balancer's certificate. The sysadmin asks for the first one, the balancer itself for the next ones.
#[utoipa::path(post, path = "/v1/balancer_certificates", tag = "controller", request_body = BalancerCertificateRequest,
    responses(
        (status = 200, body = Certificate),
        (status = 400, body = ErrorBody),
        (status = 403, description = "Not one of the configured balancers, or another balancer's certificate", body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn certify(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Certificate>, ApiError> {
    let text = read(&api, "the request for a certificate", body).await?;
    let invalid = |error: String| ApiError::bad_request("invalid_certificate_request", error);
    let request: BalancerCertificateRequest =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let name = &request.name;
    let identity = Identity::Balancer(name.to_string());
    if let Caller::Certificate(own) = &caller
        && *own != identity
    {
        let balancer = format!("balancer {name}");
        return Err(ApiError::cannot_act("another_balancer", own, balancer));
    }
    if !api.config.current().balancers.contains(name) {
        let message = format!(
            "balancer {name} is not configured: add it to balancers in [api] of ctl.toml, and reload"
        );
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "unknown_balancer",
            message,
        ));
    }
    let certificate = api
        .tls
        .sign_for(&request.request, &identity, &[])
        .map_err(|error| invalid(error.to_string()))?;
    tracing::info!(balancer = %name, "a balancer has a new certificate");
    Ok(Json(Certificate { certificate }))
}
