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
mod tests {
    use std::time::SystemTime;

    use axum::http::HeaderValue;
    use tucano_api::settings::parse;
    use tucano_tls::{Authority, Trust, Validity, authority::Name};

    use super::*;
    use crate::{http::routes, settings::Settings};

    fn credentials(identity: bool) -> Credentials {
        let text = "controller = \"http://127.0.0.1:1\"\ntoken = \"0123456789abcdef\"";
        let mut settings = parse::<Settings>("agent.toml", text).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        settings.trust = Some(Trust::from_pem(authority.pem()).unwrap());
        let credentials = Credentials::new(&settings);
        if identity {
            let names = [Name::parse("10.0.0.11").unwrap()];
            let node = Identity::Node("w1".to_owned());
            let leaf = authority.issue(&node, &names, Validity::from(SystemTime::now()));
            credentials.certificates().set(leaf.unwrap());
        }
        credentials
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn every_route_but_one_is_for_the_controller_only() {
        let open: Vec<_> = routes()
            .iter()
            .filter(|route| route.access == Access::Everyone)
            .map(|route| route.path)
            .collect();
        assert_eq!(open, ["/healthz"]);
    }

    #[test]
    fn an_agent_with_an_identity_obeys_the_controllers_certificate_only() {
        let own = credentials(true);
        let token = bearer("0123456789abcdef");
        for (identity, expected) in [
            (Some(Identity::Controller), None),
            (Some(Identity::Node("w1".to_owned())), Some(403)),
            (Some(Identity::Node("w2".to_owned())), Some(403)),
            (Some(Identity::Balancer("b1".to_owned())), Some(403)),
            (None, Some(401)),
        ] {
            for headers in [&token, &HeaderMap::new()] {
                let refusal = check_controller(identity.as_ref(), headers, &own).err();
                let status = refusal.map(|refusal| refusal.0.as_u16());
                assert_eq!(status, expected, "{identity:?}");
            }
        }
    }

    #[test]
    fn an_agent_without_an_identity_accepts_the_token_or_the_controller() {
        let own = credentials(false);
        let check = |identity: Option<Identity>, token: &str| {
            check_controller(identity.as_ref(), &bearer(token), &own).is_ok()
        };
        assert!(check(None, "0123456789abcdef") && !check(None, "another"));
        assert!(check(Some(Identity::Controller), "another"));
        let node = Identity::Node("w2".to_owned());
        assert!(!check(Some(node), "0123456789abcdef"));
    }

    #[test]
    fn a_repeated_header_is_refused() {
        let mut headers = bearer("one");
        check_headers(&headers).unwrap();
        headers.append(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer two"),
        );
        let refusal = check_headers(&headers).unwrap_err();
        assert_eq!(refusal.0, StatusCode::BAD_REQUEST);
    }
}
