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
fn every_route_but_two_is_for_the_controller_only() {
    let open: Vec<_> = routes()
        .iter()
        .filter(|route| route.access == Access::Everyone)
        .map(|route| route.path)
        .collect();
    assert_eq!(open, ["/healthz"]);
    let workers: Vec<_> = routes()
        .iter()
        .filter(|route| route.access == Access::Worker)
        .map(|route| route.path)
        .collect();
    assert_eq!(
        workers,
        ["/v1/volumes/{service}/{name}/{slot}/{instance}/{part}"]
    );
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
fn volumes_are_for_workers_certificates_only() {
    let node = || Some(Identity::Node("w2".to_owned()));
    for (own, identity, expected) in [
        (true, node(), None),
        (false, node(), Some(403)),
        (true, Some(Identity::Controller), Some(403)),
        (true, Some(Identity::Balancer("b1".to_owned())), Some(403)),
        (true, None, Some(401)),
    ] {
        let refusal = check_worker(identity.clone(), &credentials(own)).err();
        let status = refusal.map(|refusal| refusal.0.as_u16());
        assert_eq!(status, expected, "{own} {identity:?}");
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
