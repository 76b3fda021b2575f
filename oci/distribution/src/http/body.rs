//! Reads request bodies.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{error::Error, limits::Limits, registry::Registry, sessions::SessionGuard};

/// Bytes that are collected before they are written.
const BATCH_BYTES: usize = 1 << 20;

/// Appends the body to an upload; `length` is its announced length, if any. After a broken connection the received part
/// stays, so that the client can continue. Other errors end the upload.
pub(super) async fn append(
    registry: &Registry,
    mut guard: SessionGuard,
    body: Body,
    length: Option<u64>,
) -> Result<SessionGuard, Error> {
    let before = guard.session.bytes();
    let mut chunks = body.into_data_stream();
    loop {
        let (batch, end) = batch(&mut chunks, registry.limits()).await;
        if !batch.is_empty() {
            guard = write(registry, guard, batch).await?;
        }
        match end {
            None => {}
            Some(Err(error)) => return Err(error),
            Some(Ok(())) => break,
        }
    }
    let received = guard.session.bytes() - before;
    match length {
        Some(length) if length != received => Err(Error::SizeInvalid(format!(
            "{length} bytes were announced, and {received} came"
        ))),
        _ => Ok(guard),
    }
}

/// The next bytes, and the end of the body if it is reached.
async fn batch(
    chunks: &mut axum::body::BodyDataStream,
    limits: &Limits,
) -> (Bytes, Option<Result<(), Error>>) {
    let mut gathered = BytesMut::new();
    while gathered.len() < BATCH_BYTES {
        match next(chunks, limits).await {
            Ok(Some(chunk)) => gathered.extend_from_slice(&chunk),
            Ok(None) => return (gathered.freeze(), Some(Ok(()))),
            Err(error) => return (gathered.freeze(), Some(Err(error))),
        }
    }
    (gathered.freeze(), None)
}

async fn next(
    chunks: &mut axum::body::BodyDataStream,
    limits: &Limits,
) -> Result<Option<Bytes>, Error> {
    let next = tokio::time::timeout(limits.body_idle, chunks.next()).await;
    let next = next.map_err(|_| Error::Idle)?;
    next.transpose()
        .map_err(|error| Error::CutOff(error.to_string()))
}

async fn write(
    registry: &Registry,
    mut guard: SessionGuard,
    batch: Bytes,
) -> Result<SessionGuard, Error> {
    let session = guard.session.clone();
    let limit = registry.limits().blob_bytes;
    let written = super::blocking(registry, move |it| {
        if guard.session.bytes().saturating_add(batch.len() as u64) > limit {
            let what = "the blob";
            return Err(Error::TooLarge { what, limit });
        }
        guard.write(it.store(), &batch)?;
        Ok(guard)
    });
    written
        .await
        .inspect_err(|_| registry.sessions().end(&session))
}

/// Reads a whole body into memory.
pub(super) async fn document(body: Body, limits: &Limits) -> Result<Bytes, Error> {
    let mut chunks = body.into_data_stream();
    let mut document = BytesMut::new();
    while let Some(chunk) = next(&mut chunks, limits).await? {
        if (document.len() + chunk.len()) as u64 > limits.manifest_bytes {
            let (what, limit) = ("the manifest", limits.manifest_bytes);
            return Err(Error::TooLarge { what, limit });
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document.freeze())
}
