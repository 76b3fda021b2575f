//! Registries that want to know who asks.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tucano_oci_distribution::client::{Credentials, Error, Secret};

use crate::kit::{Origin, publish, pull, remote, serve, spec, store};

/// `me:0123456789abcdef`
const BASIC: &str = "Basic bWU6MDEyMzQ1Njc4OWFiY2RlZg==";
const PASSWORD: &str = "0123456789abcdef";
const TOKEN: &str = "issued-for-noise";

fn user(password: &str) -> Credentials {
    Credentials::User {
        name: "me".to_owned(),
        password: Secret::new(password),
    }
}

/// What stood behind the question mark.
type Asked = Vec<(String, String)>;

#[derive(Clone)]
struct Guard {
    challenge: Arc<Mutex<String>>,
    accepted: &'static str,
    tokens_issued: Arc<Mutex<Vec<Asked>>>,
}

impl Guard {
    fn new(accepted: &'static str, challenge: &str) -> Self {
        Self {
            challenge: Arc::new(Mutex::new(challenge.to_owned())),
            accepted,
            tokens_issued: Arc::default(),
        }
    }
}

async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let presented = request.headers().get("authorization");
    if presented.is_some_and(|it| it == guard.accepted) {
        return next.run(request).await;
    }
    let challenge = guard.challenge.lock().unwrap().clone();
    (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
}

/// A token service that takes only the user's password.
async fn issue(
    State(guard): State<Guard>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    if headers.get("authorization").is_none_or(|it| it != BASIC) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    guard.tokens_issued.lock().unwrap().push(asked);
    Body::from(json!({"token": TOKEN, "expires_in": 300}).to_string()).into_response()
}

/// The image `noise:1` behind a guard.
async fn guarded(guard_of: Guard) -> crate::kit::Server {
    let origin = Origin::new();
    let open = serve(origin.router.clone()).await;
    publish(
        &format!("http://{}", open.address),
        &spec(1000),
        "noise",
        "1",
    )
    .await;
    let router = origin.router.clone();
    let guarded = router.layer(from_fn_with_state(guard_of.clone(), guard));
    let tokens = Router::new()
        .route("/token", get(issue))
        .with_state(guard_of);
    origin.serve_as(guarded.merge(tokens)).await
}

async fn try_pull(server: &crate::kit::Server, credentials: Credentials) -> Result<(), Error> {
    let place = tempfile::tempdir().unwrap();
    let remote = remote(server.address, credentials);
    pull(&remote, &store(&place), "noise:1").await.map(drop)
}

async fn refused(server: &crate::kit::Server, credentials: Credentials) -> String {
    let error = try_pull(server, credentials).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("bWU6"), "{text}");
    text
}

#[tokio::test]
async fn basic_challenges_are_answered() {
    let server = guarded(Guard::new(BASIC, "Basic realm=\"r\"")).await;
    try_pull(&server, user(PASSWORD)).await.unwrap();
    let error = refused(&server, user("wrong")).await;
    assert!(error.contains("does not accept the credentials"), "{error}");
    let error = refused(&server, Credentials::Anonymous).await;
    assert!(error.contains("none are configured"), "{error}");
    let error = refused(&server, Credentials::Token(Secret::new("x"))).await;
    assert!(error.contains("does not accept the token"), "{error}");
}

#[tokio::test]
async fn a_token_is_requested_for_the_needed_scope() {
    let guard = Guard::new("Bearer issued-for-noise", "");
    let server = guarded(guard.clone()).await;
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"the registry\",scope=\"repository:noise:pull\"",
        server.address
    );
    *guard.challenge.lock().unwrap() = challenge;
    try_pull(&server, user(PASSWORD)).await.unwrap();
    let asked = guard.tokens_issued.lock().unwrap().clone();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = vec![
        pair("service", "the registry"),
        pair("scope", "repository:noise:pull"),
    ];
    // One token serves for the manifest, the configuration and the layer.
    assert_eq!(asked, [expected]);
    let error = refused(&server, user("wrong")).await;
    assert!(error.contains("token"), "{error}");
    // A token that the sysadmin has already is presented as it is.
    try_pull(&server, Credentials::Token(Secret::new(TOKEN)))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unsupported_challenge_is_reported() {
    let guard = Guard::new("never", "Negotiate");
    let server = guarded(guard.clone()).await;
    let error = refused(&server, user(PASSWORD)).await;
    assert!(error.contains("of a kind that is not known"), "{error}");
    *guard.challenge.lock().unwrap() = "Bearer realm=\"http://elsewhere.example/token\"".to_owned();
    let error = refused(&server, user(PASSWORD)).await;
    assert!(error.contains("does not speak TLS"), "{error}");
}
