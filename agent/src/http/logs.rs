//! `GET /v1/processes/{id}/logs`.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, ApiError, parse_process_id};
use crate::logs::{Bounds, Follower, Selection, tail};

/// Number of past lines when the request has no `tail`.
const DEFAULT_LINES: usize = 100;
/// Time between two polls for new output.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    #[serde(default)]
    stream: Selection,
    #[serde(default)]
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let id = parse_process_id(&id)?;
    let Query(query) = query
        .map_err(|rejection| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", rejection))?;
    let (home, retained) = api.output(&id)?;
    let bounds = Bounds {
        lines: query
            .tail
            .unwrap_or(DEFAULT_LINES)
            .min(api.limits.log_lines),
        bytes: api.limits.log_bytes.0,
    };
    let body = if query.follow {
        let permit = Arc::clone(&api.followers)
            .try_acquire_owned()
            .map_err(|_| {
                let message =
                    "too many clients follow logs on this node (limits.followers): try again later";
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_followers", message)
            })?;
        follow(home, retained, query.stream, bounds, permit)
    } else {
        Body::from(past(home, query.stream, bounds).await?)
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn past(home: PathBuf, selection: Selection, bounds: Bounds) -> Result<Vec<u8>, ApiError> {
    let read = tokio::task::spawn_blocking(move || {
        let streams = selection.streams().iter();
        let texts: Result<Vec<_>, _> = streams.map(|stream| tail(&home, stream, bounds)).collect();
        texts.map(|texts| texts.concat())
    });
    let failed = |error: String| {
        let message = format!("cannot read the process's output: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "io", message)
    };
    let read = read.await.map_err(|error| failed(error.to_string()))?;
    read.map_err(|error| failed(error.to_string()))
}

/// A body that streams the output until the process is removed or the client disconnects.
fn follow(
    home: PathBuf,
    retained: PathBuf,
    selection: Selection,
    bounds: Bounds,
    permit: OwnedSemaphorePermit,
) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    // Shared by the tasks of both streams: released when the last one ends.
    let permit = Arc::new(permit);
    for &stream in selection.streams() {
        let (home, retained) = (home.clone(), retained.clone());
        let (sender, permit) = (sender.clone(), Arc::clone(&permit));
        tokio::spawn(async move {
            if let Err(error) = pump(home.clone(), retained, stream, bounds, &sender).await {
                tracing::warn!(home = %home.display(), stream, %error, "cannot follow the output");
            }
            drop(permit);
        });
    }
    Body::from_stream(ReceiverStream::new(receiver))
}

type Chunk = Result<Bytes, Infallible>;

async fn pump(
    home: PathBuf,
    retained: PathBuf,
    stream: &'static str,
    bounds: Bounds,
    to: &mpsc::Sender<Chunk>,
) -> std::io::Result<()> {
    let (mut text, mut follower) =
        blocking(move || Follower::begin(&home, &retained, stream, bounds)).await?;
    loop {
        let quiet = text.is_empty();
        if !quiet && to.send(Ok(Bytes::from(text))).await.is_err() {
            return Ok(());
        }
        if quiet {
            tokio::select! {
                () = to.closed() => return Ok(()),
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
        let over;
        (over, text, follower) = blocking(move || {
            // Checked before the last read, so that output written until the removal is still sent.
            let over = follower.is_over();
            let text = follower.poll()?;
            Ok((over, text, follower))
        })
        .await?;
        if over && text.is_empty() {
            return Ok(());
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}
