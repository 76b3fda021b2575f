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

use super::{Api, errors::ApiError};
use crate::deployer::images::Images;

/// The routes of the registry.
pub fn router(api: &Arc<Api>) -> Router<Arc<Api>> {
    let images = api.deployer.images();
    tucano_oci_distribution::router(images.registry().clone())
        .layer(from_fn_with_state(images.clone(), note_changes))
}

/// What is deleted may be in use no more. What a tag meant before stays for a while anyway.
async fn note_changes(State(images): State<Arc<Images>>, request: Request, next: Next) -> Response {
    let deletes = request.method() == Method::DELETE;
    let response = next.run(request).await;
    if deletes {
        images.released();
    }
    response
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
