//! Authorization of requests.
//!
//! | route | with a token configured | without, on a loopback listener |
//! |---|---|---|
//! | `/healthz` | open | open |
//! | `/v1/reports`, `/v1/certificates` | the agents' token | open |
//! | `/v2/…`, the registry | the sysadmin's token, also as any user's password (Basic) | as below |
//! | `GET` of `/v2/tucano/images/blobs/…` | the agents' token, or the sysadmin's | open |
//! | everything else | the sysadmin's token | open to programs on this machine, not to web pages |
//!
//! On other listeners a route whose token is not configured is closed: with the agents' token alone, only agents are
//! served there.
//!
//! Without a token, a web page in the sysadmin's browser could send requests. They are recognized by `Origin`, by
//! `Sec-Fetch-Site`, or, after DNS rebinding, by `Host`.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, errors::ApiError, registry};
use crate::config_mgr::Token;
use base64::{Engine, prelude::BASE64_STANDARD};
use tucano_api::IMAGES_REPOSITORY;

/// The listener that accepted the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its local address.
    pub local: SocketAddr,
}

/// The remote address of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Middleware: passes a request on, or refuses it.
pub async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let config = api.config.current();
    let (path, headers) = (request.uri().path(), request.headers());
    let local = request
        .extensions()
        .get::<Listener>()
        .map(|listener| listener.local.ip().to_canonical());
    let audience = Audience::of(request.method(), path);
    let agents = || check(config.agent_token.as_ref(), "agent_token", local, headers);
    let sysadmin = || check(config.token.as_ref(), "token", local, headers);
    let verdict = match audience {
        Audience::Everyone => Ok(()),
        Audience::Agents => agents(),
        Audience::Sysadmin | Audience::Registry => sysadmin(),
        Audience::Blobs => agents().or_else(|_| sysadmin()),
    };
    match verdict {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::info!(
                path,
                code = error.body.code,
                "refused a request: {}",
                error.body.error
            );
            if matches!(audience, Audience::Registry | Audience::Blobs) {
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
    }
}

/// The clients that a route is for.
#[derive(Debug, PartialEq, Eq)]
enum Audience {
    Everyone,
    Agents,
    Sysadmin,
    Registry,
    /// The registry's blobs that agents fetch.
    Blobs,
}

impl Audience {
    fn of(method: &Method, path: &str) -> Self {
        let blob = path
            .strip_prefix("/v2/")
            .and_then(|path| path.strip_prefix(IMAGES_REPOSITORY))
            .and_then(|path| path.strip_prefix("/blobs/"));
        match path {
            // HEAD would defer the blob's removal, and agents do not need it.
            _ if method == Method::GET && blob.is_some_and(|blob| !blob.contains('/')) => {
                Self::Blobs
            }
            "/healthz" => Self::Everyone,
            "/v1/reports" | "/v1/certificates" => Self::Agents,
            "/v2" => Self::Registry,
            _ if path.starts_with("/v2/") => Self::Registry,
            _ => Self::Sysadmin,
        }
    }
}

fn check(
    token: Option<&Token>,
    key: &str,
    local: Option<IpAddr>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let Some(token) = token else {
        return check_without_token(key, local, headers);
    };
    match presented(headers) {
        Some(presented) if token.matches(&presented) => Ok(()),
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
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    fn code(token: Option<&str>, local: &str, headers: &[(&'static str, &str)]) -> &'static str {
        let token = token.map(|token| Token::new(token).unwrap());
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect();
        match check(token.as_ref(), "token", local.parse().ok(), &headers) {
            Ok(()) => "ok",
            Err(error) if error.body.code == "unauthorized" => "unauthorized",
            Err(error) if error.body.code == "foreign_origin" => "foreign",
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn with_a_token_only_the_token_is_accepted() {
        let token = Some("0123456789abcdef");
        for (header, expected) in [
            ("Bearer 0123456789abcdef", "ok"),
            ("bearer  0123456789abcdef", "ok"),
            ("Bearer 0123456789abcdeX", "unauthorized"),
            ("Bearer", "unauthorized"),
            ("Basic 0123456789abcdef", "unauthorized"),
            // anyone:0123456789abcdef, anyone:wrong, and the token without a user
            ("Basic YW55b25lOjAxMjM0NTY3ODlhYmNkZWY=", "ok"),
            ("Basic YW55b25lOndyb25n", "unauthorized"),
            ("Basic MDEyMzQ1Njc4OWFiY2RlZg==", "unauthorized"),
        ] {
            for local in [LOOPBACK, "10.0.0.1"] {
                let headers = [("authorization", header), ("host", "any.example")];
                assert_eq!(code(token, local, &headers), expected, "{header}");
            }
        }
        assert_eq!(
            code(token, LOOPBACK, &[("host", "localhost")]),
            "unauthorized"
        );
    }

    #[test]
    fn without_a_token_only_local_programs_are_accepted() {
        assert_eq!(
            code(None, "10.0.0.1", &[("host", "localhost")]),
            "unauthorized"
        );
        for host in [
            "localhost",
            "localhost:7070",
            "127.0.0.1:7070",
            "[::1]:7070",
            "127.0.0.9",
        ] {
            assert_eq!(code(None, LOOPBACK, &[("host", host)]), "ok", "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:7070",
            "10.0.0.1",
            "",
            "a b",
        ] {
            assert_eq!(code(None, LOOPBACK, &[("host", host)]), "foreign", "{host}");
        }
        assert_eq!(code(None, LOOPBACK, &[]), "foreign");
        for (name, value, expected) in [
            ("origin", "http://localhost:7070", "ok"),
            ("origin", "http://localhost:8080", "foreign"),
            ("origin", "https://evil.example", "foreign"),
            ("origin", "null", "foreign"),
            ("sec-fetch-site", "same-origin", "ok"),
            ("sec-fetch-site", "none", "ok"),
            ("sec-fetch-site", "cross-site", "foreign"),
            ("sec-fetch-site", "same-site", "foreign"),
        ] {
            let headers = [("host", "localhost:7070"), (name, value)];
            assert_eq!(code(None, LOOPBACK, &headers), expected, "{name}: {value}");
        }
    }

    #[test]
    fn every_route_has_its_audience() {
        let of = |path: &str| Audience::of(&Method::GET, path);
        assert_eq!(of("/healthz"), Audience::Everyone);
        assert_eq!(of("/v1/reports"), Audience::Agents);
        assert_eq!(of("/v1/certificates"), Audience::Agents);
        let blob = "/v2/tucano/images/blobs/sha256:0";
        assert_eq!(of(blob), Audience::Blobs);
        for method in [Method::HEAD, Method::DELETE, Method::PUT] {
            assert_eq!(Audience::of(&method, blob), Audience::Registry, "{method}");
        }
        for path in [
            "/v2",
            "/v2/",
            "/v2/hello/manifests/1",
            "/v2/hello/blobs/sha256:0",
            "/v2/tucano/images/blobs/uploads/x",
            "/v2/tucano/images/manifests/sha256:0",
        ] {
            assert_eq!(of(path), Audience::Registry, "{path}");
        }
        for path in [
            "/v1/services",
            "/metrics",
            "/openapi.json",
            "/v1/reports/",
            "/",
            "/healthz/",
        ] {
            assert_eq!(of(path), Audience::Sysadmin, "{path}");
        }
    }
}
