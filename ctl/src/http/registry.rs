//! The registry, `/v2/`: what `docker push`, `podman push` and `skopeo copy` speak to.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tucano_api::{IMAGES_REPOSITORY, ids::Digest};

use super::{Api, errors::ApiError};

/// The routes of the registry.
pub fn router(api: &Arc<Api>) -> Router<Arc<Api>> {
    tucano_oci_distribution::router(api.deployer.images().registry().clone())
        .layer(from_fn_with_state(api.clone(), note_changes))
}

/// What is deleted may be in use no more. What a tag meant before stays for a while anyway. What is pushed for a deploy, the
/// agents may fetch while the rest of its image comes.
async fn note_changes(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let deletes = request.method() == Method::DELETE;
    let pushes = is_upload_for_deploy(request.uri().path());
    let response = next.run(request).await;
    if deletes {
        api.deployer.images().released();
    }
    if pushes
        && response.status() == StatusCode::CREATED
        && let Some(digest) = digest_of(&response)
    {
        api.deployer.was_pushed(digest).await;
    }
    response
}

fn is_upload_for_deploy(path: &str) -> bool {
    let rest = path.split_once(IMAGES_REPOSITORY).map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest.starts_with("/blobs/uploads"))
}

fn digest_of(response: &Response) -> Option<Digest> {
    let digest = response.headers().get("docker-content-digest")?;
    digest.to_str().ok()?.parse().ok()
}

/// Why a request may not pass, as a registry's clients understand it.
pub(super) fn refusal(error: &ApiError) -> Response {
    let code = match error.status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        _ => "DENIED",
    };
    let entry = json!({"code": code, "message": error.body.error});
    let mut response = (error.status, Json(json!({"errors": [entry]}))).into_response();
    let headers = response.headers_mut();
    let (name, value) = tucano_oci_distribution::API_VERSION;
    headers.insert(name, value);
    if error.status == StatusCode::UNAUTHORIZED {
        let challenge =
            header::HeaderValue::from_static("Basic realm=\"tucano\", charset=\"UTF-8\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
