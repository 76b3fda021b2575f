//! The registry, `/v2/`, for `docker push`, `podman push` and `skopeo copy`.

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
        .layer(from_fn_with_state(api.clone(), observe_changes))
}

/// Middleware: a DELETE may release images; agents prefetch blobs that are pushed for a deploy. The former image of a moved
/// tag is kept for a while anyway.
async fn observe_changes(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if is_reserved(request.method(), request.uri().path()) {
        let message = "the repository tucano/images is reserved: a deploy stores its images there by digest; push to another one";
        let error = ApiError::new(StatusCode::FORBIDDEN, "reserved", message);
        return refusal(&error);
    }
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
        api.deployer.blob_pushed(digest).await;
    }
    response
}

/// Whether a request tags or removes a manifest of the repository of deployed images. A deploy stores manifests by digest,
/// which changes nothing for others.
fn is_reserved(method: &Method, path: &str) -> bool {
    let manifest = path
        .strip_prefix("/v2/")
        .and_then(|path| path.strip_prefix(IMAGES_REPOSITORY))
        .and_then(|path| path.strip_prefix("/manifests/"));
    match manifest {
        Some(reference) if method == Method::PUT => !reference.contains(':'),
        Some(_) => method == Method::DELETE,
        None => false,
    }
}

fn is_upload_for_deploy(path: &str) -> bool {
    let rest = path.split_once(IMAGES_REPOSITORY).map(|(_, rest)| rest);
    rest.is_some_and(|rest| rest.starts_with("/blobs/uploads"))
}

fn digest_of(response: &Response) -> Option<Digest> {
    let digest = response.headers().get("docker-content-digest")?;
    digest.to_str().ok()?.parse().ok()
}

/// A refusal in the format of the registry protocol.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_the_reserved_repository_are_stored_by_digest_only() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (method, path, expected) in [
            ("PUT", "tucano/images/manifests/latest", true),
            ("PUT", &format!("tucano/images/manifests/{digest}"), false),
            ("DELETE", &format!("tucano/images/manifests/{digest}"), true),
            ("DELETE", "tucano/images/manifests/latest", true),
            ("GET", "tucano/images/manifests/latest", false),
            ("PUT", "tucano/images/blobs/uploads/1", false),
            ("PUT", "tucano/images2/manifests/latest", false),
            ("DELETE", "hello/manifests/latest", false),
        ] {
            let is = is_reserved(&method.parse().unwrap(), &format!("/v2/{path}"));
            assert_eq!(is, expected, "{method} {path}");
        }
    }
}
