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

use super::{Api, Refusal, named};
use crate::logs::{Bounds, Follower, Selection, tail};

/// Lines that are given when the request does not say how many.
const DEFAULT_LINES: usize = 100;
/// Time between two looks for new output.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
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
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let id = named(&id)?;
    let Query(wanted) = wanted
        .map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", rejection))?;
    let directory = api.existing(&id)?;
    let bounds = Bounds {
        lines: wanted
            .tail
            .unwrap_or(DEFAULT_LINES)
            .min(api.limits.log_lines),
        bytes: api.limits.log_bytes.0,
    };
    let body = if wanted.follow {
        let permit = Arc::clone(&api.followers)
            .try_acquire_owned()
            .map_err(|_| {
                let message =
                    "too many clients follow logs on this node (limits.followers): try later";
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_followers", message)
            })?;
        follow(directory.home(), wanted.stream, bounds, permit)
    } else {
        Body::from(past(directory.home(), wanted.stream, bounds).await?)
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn past(home: PathBuf, selection: Selection, bounds: Bounds) -> Result<Vec<u8>, Refusal> {
    let read = tokio::task::spawn_blocking(move || {
        let streams = selection.streams().iter();
        let texts: Result<Vec<_>, _> = streams.map(|stream| tail(&home, stream, bounds)).collect();
        texts.map(|texts| texts.concat())
    });
    let failed = |error: String| {
        let message = format!("cannot read the process's output: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "io", message)
    };
    let read = read.await.map_err(|error| failed(error.to_string()))?;
    read.map_err(|error| failed(error.to_string()))
}

/// A body that grows with the output, until the process is removed or the client leaves.
fn follow(
    home: PathBuf,
    selection: Selection,
    bounds: Bounds,
    permit: OwnedSemaphorePermit,
) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    // The place is given back when the last of the streams has ended.
    let permit = Arc::new(permit);
    for &stream in selection.streams() {
        let (home, sender, permit) = (home.clone(), sender.clone(), Arc::clone(&permit));
        tokio::spawn(async move {
            if let Err(error) = pump(home.clone(), stream, bounds, &sender).await {
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
    stream: &'static str,
    bounds: Bounds,
    to: &mpsc::Sender<Chunk>,
) -> std::io::Result<()> {
    let (mut text, mut follower) = blocking(move || Follower::begin(&home, stream, bounds)).await?;
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
            // Asked before the last look: what was written until then is not lost.
            let over = follower.is_over();
            let text = follower.look()?;
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
