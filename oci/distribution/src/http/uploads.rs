//! Pushes blobs: monolithic, in pieces, or mounted from another repository.

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, LOCATION, RANGE},
    },
    response::{IntoResponse, Response},
};
use oci_spec::image::Digest;

use super::{Asked, CONTENT_DIGEST, blocking, body, range};
use crate::{
    error::Error,
    name::{self, Name},
    registry::Registry,
    sessions::Session,
};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST …/blobs/uploads/`, also `?digest=` and `?mount=`.
pub(super) async fn begin(
    registry: &Registry,
    name: Name,
    asked: Asked,
    request: Request,
) -> Result<Response, Error> {
    if let Some(digest) = &asked.mount {
        let digest = name::digest(digest)?;
        let from: Option<Name> = asked.from.as_deref().map(str::parse).transpose()?;
        let (to, blob) = (name.clone(), digest.clone());
        if blocking(registry, move |it| it.mount(&to, from.as_ref(), &blob)).await? {
            return Ok(created(&name, &digest));
        }
    }
    let digest = asked.digest.as_deref().map(name::digest).transpose()?;
    let owned = name.clone();
    let session = blocking(registry, move |it| it.begin(&owned)).await?;
    match digest {
        None => Ok(progress(StatusCode::ACCEPTED, &name, &session)),
        Some(digest) => {
            let id = session.id.to_string();
            let done = complete(registry, name, &id, digest, request).await;
            // The client does not know its identifier, so it cannot continue.
            done.inspect_err(|_| registry.sessions().end(&session))
        }
    }
}

/// `PATCH …/blobs/uploads/<id>`
pub(super) async fn append(
    registry: &Registry,
    name: &Name,
    id: &str,
    request: Request,
) -> Result<Response, Error> {
    let session = registry.sessions().find(name, id)?;
    receive(
        registry,
        name,
        id,
        request.headers().clone(),
        request.into_body(),
    )
    .await?;
    Ok(progress(StatusCode::ACCEPTED, name, &session))
}

/// `PUT …/blobs/uploads/<id>?digest=`
pub(super) async fn finish(
    registry: &Registry,
    name: Name,
    id: &str,
    asked: Asked,
    request: Request,
) -> Result<Response, Error> {
    let missing = || Error::DigestInvalid("the digest is missing: add ?digest=sha256:…".to_owned());
    let digest = name::digest(&asked.digest.ok_or_else(missing)?)?;
    complete(registry, name, id, digest, request).await
}

/// `GET …/blobs/uploads/<id>`
pub(super) fn status(registry: &Registry, name: &Name, id: &str) -> Result<Response, Error> {
    let session = registry.sessions().find(name, id)?;
    Ok(progress(StatusCode::NO_CONTENT, name, &session))
}

/// `DELETE …/blobs/uploads/<id>`
pub(super) fn cancel(registry: &Registry, name: &Name, id: &str) -> Result<Response, Error> {
    let session = registry.sessions().find(name, id)?;
    registry.sessions().end(&session);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn complete(
    registry: &Registry,
    name: Name,
    id: &str,
    digest: Digest,
    request: Request,
) -> Result<Response, Error> {
    let guard = receive(
        registry,
        &name,
        id,
        request.headers().clone(),
        request.into_body(),
    )
    .await?;
    let (owned, blob) = (name.clone(), digest.clone());
    blocking(registry, move |it| it.finish(&owned, guard, &blob)).await?;
    Ok(created(&name, &digest))
}

async fn receive(
    registry: &Registry,
    name: &Name,
    id: &str,
    headers: HeaderMap,
    body: Body,
) -> Result<crate::sessions::SessionGuard, Error> {
    let guard = registry.sessions().find(name, id)?.lock()?;
    let length = range::of_piece(&headers, guard.session.bytes())?;
    body::append(registry, guard, body, length).await
}

fn created(name: &Name, digest: &Digest) -> Response {
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

/// The progress of an upload. `0-0` also means an empty one, since the header cannot express it.
fn progress(status: StatusCode, name: &Name, session: &Session) -> Response {
    let id = session.id;
    let last = session.bytes().saturating_sub(1);
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        (RANGE, format!("0-{last}")),
        (UPLOAD_ID, id.to_string()),
    ];
    let mut response = (status, headers).into_response();
    if status != StatusCode::NO_CONTENT {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}
