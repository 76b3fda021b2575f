//! `GET /v1/volumes/{service}/{name}/{slot}/{instance}/{part}`: a volume, for the worker that the controller moves it to.
//!
//! The parts are `manifest`, `contents` from the entry `from` and the byte `offset` of it on, and `digests`.

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Path, Query, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tucano_api::agent::VolumeInstance;
use tucano_tls::Identity;

use super::{Api, ApiError};
use crate::{
    tls::Peer,
    volumes::{Error, Transfer, tree::walk},
};

/// Bytes of one chunk of the answer, and how many wait for the client.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Manifest,
    Contents,
    Digests,
}

/// Where the contents begin.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct From {
    from: u64,
    offset: u64,
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((service, name, slot, instance, part)): Path<(String, String, String, u64, Part)>,
    Query(from): Query<From>,
) -> Result<Response, ApiError> {
    let Some(Identity::Node(worker)) = peer.identity else {
        return Err(not_exported("that is no worker"));
    };
    let id = format!("{service}/{name}/{slot}").parse();
    let id = id.map_err(|error| not_exported(&format!("{error}")))?;
    let volume = VolumeInstance { id, instance };
    let Ok(permit) = Arc::clone(&api.copies).try_acquire_owned() else {
        let message = format!(
            "{} volumes are being read already (limits.volume_copies of this agent): try again later",
            api.limits.volume_copies
        );
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            message,
        ));
    };
    let volumes = Arc::clone(&api.executor.volumes);
    let opened = tokio::task::spawn_blocking(move || volumes.open_transfer(&volume, &worker));
    let opened = opened.await.map_err(|error| failed(&error))?;
    let transfer = opened.map_err(|error| match error {
        Error::NotExported(_) => not_exported(&error.to_string()),
        error => failed(&error),
    })?;
    let (chunks, body) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || send(&transfer, part, from, chunks, permit));
    Ok(Response::new(Body::from_stream(ReceiverStream::new(body))))
}

fn not_exported(message: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

fn failed(error: &impl ToString) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        "volume_unavailable",
        error.to_string(),
    )
}

/// Sends a part until the client has it, or goes away, or the volume is needed here.
fn send(
    transfer: &Transfer,
    part: Part,
    from: From,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    permit: OwnedSemaphorePermit,
) {
    let mut to = BufWriter::with_capacity(
        CHUNK_BYTES,
        Chunks {
            transfer,
            chunks: &chunks,
        },
    );
    let sent = match part {
        Part::Manifest => walk::write_manifest(&transfer.root, &mut to),
        Part::Contents => walk::write_contents(&transfer.root, from.from, from.offset, &mut to),
        Part::Digests => walk::write_digests(&transfer.root, &mut to),
    };
    // What the buffer has is of an answer that has failed.
    drop(to.into_parts());
    if let Err(error) = sent {
        tracing::debug!(%error, "a transfer of a volume has ended");
        // Without the end of the answer.
        chunks.blocking_send(Err(error)).ok();
    }
    drop(permit);
}

/// Writes chunks for the client.
struct Chunks<'a> {
    transfer: &'a Transfer,
    chunks: &'a mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.transfer.check()?;
        let chunk = Bytes::copy_from_slice(bytes);
        let sent = self.chunks.blocking_send(Ok(chunk));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
