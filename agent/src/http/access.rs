//! Who may use which route: decided from the connection's certificate, or the token where that still counts.

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::Response,
};
use tucano_tls::Identity;

use super::{Api, ApiError};
use crate::{credentials::Credentials, tls::Peer};

/// The clients that a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// All of them.
    Everyone,
    /// The controller.
    Controller,
    /// Workers, of which the handler admits one.
    Worker,
}

/// Middleware: passes a request on, or refuses it.
pub(super) async fn authorize(
    State((api, access)): State<(Arc<Api>, Access)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check_headers(request.headers())?;
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let peer = peer.map(|ConnectInfo(peer)| peer.clone());
    if access == Access::Controller {
        let identity = peer.as_ref().and_then(|peer| peer.identity.as_ref());
        check_controller(identity, request.headers(), &api.credentials)?;
        if let Some(peer) = &peer {
            api.note_controller(peer.address.ip()).await;
        }
    }
    if access == Access::Worker {
        check_worker(peer.and_then(|peer| peer.identity), &api.credentials)?;
    }
    Ok(next.run(request).await)
}

/// Two values of one of these would mean different things to different programs (RFC 9112, 3.2).
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    for name in [header::HOST, header::AUTHORIZATION] {
        if headers.get_all(&name).iter().count() > 1 {
            let message = format!("the header {name} is given more than once");
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_request",
                message,
            ));
        }
    }
    Ok(())
}

/// Without an identity of its own the agent cannot tell others' either.
fn check_worker(identity: Option<Identity>, credentials: &Credentials) -> Result<(), ApiError> {
    match identity {
        Some(Identity::Node(_)) if credentials.requires_controller_identity() => Ok(()),
        Some(other) => {
            let message = format!("only workers may use this route, not {other}");
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "workers_only",
                message,
            ))
        }
        None => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "only workers may use this route, with their certificates",
        )),
    }
}

fn check_controller(
    identity: Option<&Identity>,
    headers: &HeaderMap,
    credentials: &Credentials,
) -> Result<(), ApiError> {
    match identity {
        Some(Identity::Controller) => return Ok(()),
        Some(other) => {
            let message = format!("only the controller may use this route, not {other}");
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "controller_only",
                message,
            ));
        }
        None => {}
    }
    let unauthorized =
        |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    if credentials.requires_controller_identity() {
        return Err(unauthorized(
            "only the controller may use this route, with its certificate: the agent_token serves for enrolment only",
        ));
    }
    if !credentials.token().is_configured() {
        return Ok(());
    }
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if presented.is_some_and(|presented| credentials.token().matches(presented)) {
        return Ok(());
    }
    Err(unauthorized(
        "present the agent_token: Authorization: Bearer <agent_token>",
    ))
}

#[cfg(test)]
mod tests;
