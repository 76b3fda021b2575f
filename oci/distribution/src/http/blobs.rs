//! Pulls blobs, whole or in ranges, and deletes them.

use std::io::{Seek, SeekFrom};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, Method, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG},
    },
    response::{IntoResponse, Response},
};
use oci_spec::image::Digest;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{CONTENT_DIGEST, blocking, range};
use crate::{error::Error, name::Name, registry::Registry};

/// Bytes per read.
const CHUNK_BYTES: usize = 256 << 10;

/// `GET` and `HEAD …/blobs/<digest>`
pub(super) async fn get(
    registry: &Registry,
    name: Name,
    digest: Digest,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let (wanted, held) = (digest.clone(), method == Method::HEAD);
    let (file, bytes) = blocking(registry, move |it| it.blob(&name, &wanted, held)).await?;
    let part = range::requested(&headers, bytes);
    let part = match part {
        Err(error) => {
            let range = [(CONTENT_RANGE, format!("bytes */{bytes}"))];
            return Ok((range, error).into_response());
        }
        Ok(part) => part,
    };
    let (first, length) = part.unwrap_or((0, bytes));
    let described = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_DIGEST, digest.to_string()),
        (ETAG, format!("\"{digest}\"")),
    ];
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => stream(registry, file, first, length).await?,
    };
    Ok(match part {
        None => (described, body).into_response(),
        Some(_) => {
            let last = first + length - 1;
            let range: (HeaderName, String) =
                (CONTENT_RANGE, format!("bytes {first}-{last}/{bytes}"));
            (StatusCode::PARTIAL_CONTENT, described, [range], body).into_response()
        }
    })
}

/// `DELETE …/blobs/<digest>`
pub(super) async fn delete(
    registry: &Registry,
    name: Name,
    digest: Digest,
) -> Result<Response, Error> {
    blocking(registry, move |it| it.remove_blob(&name, &digest)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// A stream of a file's bytes from `first`.
async fn stream(
    registry: &Registry,
    mut file: std::fs::File,
    first: u64,
    length: u64,
) -> Result<Body, Error> {
    let file = blocking(registry, move |_| {
        let sought = file.seek(SeekFrom::Start(first));
        sought.map_err(|error| Error::Failed(format!("cannot read a blob: {error}")))?;
        Ok(file)
    });
    let file = tokio::fs::File::from_std(file.await?).take(length);
    Ok(Body::from_stream(ReaderStream::with_capacity(
        file,
        CHUNK_BYTES,
    )))
}
