//! Manifests: push, pull, delete and list referrers.

use std::io::Read;

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{
        HeaderName, Method, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LINK, LOCATION},
    },
    response::{IntoResponse, Response},
};
use oci_spec::image::Digest;
use serde_json::json;

use super::{Asked, CONTENT_DIGEST, blocking, body};
use crate::{
    error::Error,
    name::{Name, Which},
    registry::Registry,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Tells the client that this registry maintains the referrers of its manifest's subject.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// `GET` and `HEAD …/manifests/<tag or digest>`
pub(super) async fn get(
    registry: &Registry,
    name: Name,
    which: Which,
    method: Method,
) -> Result<Response, Error> {
    let asked = asked_by(&which);
    let (stored, content) = blocking(registry, move |it| {
        let (stored, mut file, bytes) = it.open_manifest(&name, &which)?;
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        let read = file.read_to_end(&mut content);
        read.map_err(|error| Error::Failed(format!("cannot read a manifest: {error}")))?;
        Ok((stored, content))
    })
    .await?;
    let digest = asked.unwrap_or(stored.digest);
    let headers = [
        (CONTENT_TYPE, stored.media_type),
        (CONTENT_LENGTH, content.len().to_string()),
        (CONTENT_DIGEST, digest.to_string()),
        (ETAG, format!("\"{digest}\"")),
    ];
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => Body::from(content),
    };
    Ok((headers, body).into_response())
}

/// `PUT …/manifests/<tag or digest>`
pub(super) async fn put(
    registry: &Registry,
    name: Name,
    which: Which,
    request: Request,
) -> Result<Response, Error> {
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let content = body::document(request.into_body(), registry.limits()).await?;
    let (owned, asked) = (name.clone(), asked_by(&which));
    let manifest = blocking(registry, move |it| {
        it.put_manifest(&owned, &which, content_type.as_deref(), &content)
    })
    .await?;
    let digest = asked.unwrap_or(manifest.digest);
    let headers = [
        (LOCATION, format!("/v2/{name}/manifests/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
        (CONTENT_LENGTH, "0".to_owned()),
    ];
    let subject = manifest
        .subject
        .map(|subject| [(SUBJECT, subject.to_string())]);
    Ok((StatusCode::CREATED, headers, subject, ()).into_response())
}

/// The digest in the client's algorithm, which answers use too.
fn asked_by(which: &Which) -> Option<Digest> {
    match which {
        Which::Digest(digest) => Some(digest.clone()),
        Which::Tag(_) => None,
    }
}

/// `DELETE …/manifests/<tag or digest>`
pub(super) async fn delete(
    registry: &Registry,
    name: Name,
    which: Which,
) -> Result<Response, Error> {
    blocking(registry, move |it| it.remove_manifest(&name, &which)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// `GET …/referrers/<digest>`: an index, empty without referrers, whether the manifest exists or not.
pub(super) async fn referrers(
    registry: &Registry,
    name: Name,
    subject: Digest,
    asked: Asked,
) -> Result<Response, Error> {
    let path = format!("/v2/{name}/referrers/{subject}");
    let artifact_type = asked.artifact_type;
    let filter = artifact_type.clone();
    let (found, more) = blocking(registry, move |it| {
        let last = asked.last.unwrap_or_default();
        it.referrers(&name, &subject, filter.as_deref(), &last)
    })
    .await?;
    let next = found.last().filter(|_| more).map(|last| {
        let filter = artifact_type
            .as_ref()
            .map_or_else(String::new, |it| format!("artifactType={}&", escaped(it)));
        [(
            LINK,
            format!("<{path}?{filter}last={}>; rel=\"next\"", last.digest),
        )]
    });
    let filters = artifact_type.map(|_| [(FILTERS, "artifactType")]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": found});
    Ok((filters, next, [(CONTENT_TYPE, INDEX)], Json(index)).into_response())
}

/// Percent-encodes text for a query (RFC 3986).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
