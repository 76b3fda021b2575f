//! Authorization of requests: verifies credentials, and lets [`Access`] decide.
//!
//! A certificate is verified by the TLS handshake. A token is presented as a bearer token, or as any user's password (Basic),
//! as registry clients do. A route whose token is not configured is open to programs on this machine, on loopback listeners,
//! and closed on others: with the agents' token alone, only agents are served there.
//!
//! Without a token, a web page in the sysadmin's browser could send requests. They are recognized by `Origin`, by
//! `Sec-Fetch-Site`, or, after DNS rebinding, by `Host`.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tucano_api::ids::{Digest, NodeName};
use tucano_tls::Identity;

use super::{
    Api,
    access::{Access, Caller},
    errors::ApiError,
    registry,
};
use crate::config_mgr::Token;

/// The listener that accepted the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its local address.
    pub local: SocketAddr,
}

/// The other end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The identity of its certificate.
    pub identity: Option<Identity>,
}

/// Middleware: passes a request on with its [`Caller`], or refuses it.
pub async fn authorize(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let access = Access::of(request.method(), request.uri().path());
    let path = request.uri().path().to_owned();
    let verified = match caller(&api, access, &request) {
        Ok(caller) => check_own_blob(&api, access, &caller, &path)
            .await
            .map(|()| caller),
        Err(error) => Err(error),
    };
    match verified {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            tracing::info!(
                path,
                code = error.body.code,
                "refused a request: {}",
                error.body.error
            );
            refusal(access, error)
        }
    }
}

fn refusal(access: Access, error: ApiError) -> Response {
    if matches!(access, Access::Registry | Access::Blobs) {
        return registry::refusal(&error);
    }
    let mut response = error.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let bearer = header::HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

fn caller(api: &Api, access: Access, request: &Request) -> Result<Caller, ApiError> {
    check_headers(request.headers())?;
    let peer = request.extensions().get::<Peer>();
    let identity = peer.and_then(|peer| peer.identity.clone());
    if let Some(caller) = identity.map(Caller::Certificate)
        && access.allows(&caller)
    {
        check_balancer(api, &caller)?;
        return Ok(caller);
    }
    let caller = by_token(api, access, request)?;
    if access == Access::Blobs && caller == Caller::AgentToken {
        check_token_suffices(api, peer)?;
    }
    Ok(caller)
}

/// A balancer whose name is taken out of the configuration is refused, whatever its certificate says.
fn check_balancer(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    let Caller::Certificate(Identity::Balancer(name)) = caller else {
        return Ok(());
    };
    let config = api.config.current();
    if config.balancers.iter().any(|known| known.as_str() == name) {
        return Ok(());
    }
    Err(forbidden(format!(
        "balancer {name} is not one of the balancers in [api] of ctl.toml"
    )))
}

/// The caller by its token, if the route allows one.
fn by_token(api: &Api, access: Access, request: &Request) -> Result<Caller, ApiError> {
    let config = api.config.current();
    let headers = request.headers();
    let local = request
        .extensions()
        .get::<Listener>()
        .map(|listener| listener.local.ip().to_canonical());
    let mut refused = None;
    for caller in [Caller::Anonymous, Caller::AgentToken, Caller::Sysadmin] {
        if !access.allows(&caller) {
            continue;
        }
        let verified = match caller {
            Caller::AgentToken => check(&api.config.agent_tokens(), "agent_token", local, headers),
            Caller::Sysadmin => check(config.token.as_slice(), "token", local, headers),
            _ => Ok(()),
        };
        match verified {
            Ok(()) => return Ok(caller),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| forbidden("this route needs another certificate".to_owned())))
}

/// Two values of one of these would mean different things to different programs (RFC 9112, 3.2).
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    for name in [header::HOST, header::AUTHORIZATION] {
        if headers.get_all(&name).iter().count() > 1 {
            let message = format!("the header {name} is given more than once: send it once");
            return Err(ApiError::bad_request("repeated_header", message));
        }
    }
    Ok(())
}

/// A node fetches the blobs of its own images, and those that were announced to all agents.
async fn check_own_blob(
    api: &Api,
    access: Access,
    caller: &Caller,
    path: &str,
) -> Result<(), ApiError> {
    let (Access::Blobs, Caller::Certificate(Identity::Node(name))) = (access, caller) else {
        return Ok(());
    };
    let digest = path.rsplit('/').next();
    let digest: Option<Digest> = digest.and_then(|digest| digest.parse().ok());
    let node: Option<NodeName> = name.parse().ok();
    let (Some(digest), Some(node)) = (digest, node) else {
        return Ok(());
    };
    let desired = api.state.query(move |cluster| cluster.desired_set(&node));
    let processes = desired.await?.map(|set| set.processes).unwrap_or_default();
    let images: Vec<Digest> = processes
        .iter()
        .flat_map(|it| it.images())
        .cloned()
        .collect();
    if api.deployer.images().has_blob(&images, &digest).await {
        return Ok(());
    }
    Err(forbidden(format!(
        "{digest} is not part of an image that node {name} is to run"
    )))
}

fn check_token_suffices(api: &Api, peer: Option<&Peer>) -> Result<(), ApiError> {
    let Some(peer) = peer else {
        return Ok(());
    };
    let topology = &api.config.current().topology;
    if api
        .tls
        .nodes()
        .token_suffices_from(topology, peer.address.ip())
    {
        return Ok(());
    }
    Err(certificate_required())
}

/// 403: the shared token does not suffice.
pub(super) fn certificate_required() -> ApiError {
    let message = "the agent_token serves for enrolment only: present the node's certificate (an agent of this version does; \
                   its controller = must be an https:// address)";
    ApiError::new(StatusCode::FORBIDDEN, "certificate_required", message)
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn check(
    tokens: &[Token],
    key: &str,
    local: Option<IpAddr>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    if tokens.is_empty() {
        return check_without_token(key, local, headers);
    }
    match presented(headers) {
        Some(presented) if tokens.iter().any(|token| token.matches(&presented)) => Ok(()),
        Some(_) => Err(unauthorized(format!(
            "the token is wrong: present the {key} of ctl.toml"
        ))),
        None => Err(unauthorized(format!(
            "a token is needed: present the {key} of ctl.toml as `Authorization: Bearer <token>`"
        ))),
    }
}

/// The token that a request presents: as a bearer token, or as any user's password, as registry clients do.
fn presented(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(secret.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(secret).ok()?).ok()?;
    let (_user, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

fn check_without_token(
    key: &str,
    local: Option<IpAddr>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    if !local.is_some_and(|ip| ip.is_loopback()) {
        return Err(unauthorized(format!(
            "only reachable from this machine: no {key} is configured in ctl.toml"
        )));
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let foreign = |what: &str, value: &str| {
        let message = format!(
            "refused: {what} {value:?} is not of this machine, and without a configured {key} the request may come from a web page"
        );
        ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message)
    };
    let host = text("host").unwrap_or_default();
    if !is_local_authority(host) {
        return Err(foreign("Host", host));
    }
    // Another port of this machine is foreign as well: it may be a deployed service.
    if let Some(origin) = text("origin")
        && origin.split_once("://").map(|(_, authority)| authority) != Some(host)
    {
        return Err(foreign("Origin", origin));
    }
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(site) => Err(foreign("Sec-Fetch-Site", site)),
    }
}

/// Whether `authority` (host with optional port) means this machine independent of name resolution.
fn is_local_authority(authority: &str) -> bool {
    let Ok(uri) = format!("http://{authority}/").parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn unauthorized(message: String) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

#[cfg(test)]
mod tests;
