//! Processes' output: `GET /v1/processes/{id}/logs` and `GET /v1/services/{name}/logs`.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tucano_api::{
    ids::ServiceName,
    logs::{KeptOutput, Since, TextWriter},
    units::Timestamp,
};

use super::{Api, ApiError, parse_process_id};
use crate::logs::{Bounds, Output, OutputLine, Part, Selection, past};

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
    #[serde(default)]
    since: Option<Since>,
    #[serde(default)]
    timestamps: bool,
    #[serde(default)]
    format: Format,
}

/// How lines are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// As they were written.
    #[default]
    Text,
    /// With time and stream, as the Container Runtime Interface stores them.
    Cri,
}

pub(super) async fn of_process(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let id = parse_process_id(&id)?;
    let Query(query) = query
        .map_err(|rejection| ApiError::new(StatusCode::BAD_REQUEST, "invalid_query", rejection))?;
    let (home, retained) = api.output(&id)?;
    let lines = query.tail.unwrap_or(DEFAULT_LINES);
    let part = Part {
        selection: query.stream,
        bounds: Bounds {
            lines: lines.min(api.limits.log_lines),
            bytes: api.limits.log_bytes.0,
        },
        since: query.since.map(|since| since.at(now())),
    };
    let writer = LineWriter::new(&query);
    let body = if query.follow {
        let permit = Arc::clone(&api.followers)
            .try_acquire_owned()
            .map_err(|_| {
                let message =
                    "too many clients follow logs on this node (limits.followers): try again later";
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_followers", message)
            })?;
        follow(home, retained, part, writer, permit)
    } else {
        Body::from(read_past(home, part, writer).await?)
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// The removed processes of a service whose output is kept, oldest first.
pub(super) async fn kept_of_service(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<KeptOutput>>, ApiError> {
    let unknown = |_| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such service",
        )
    };
    let name: ServiceName = name.parse().map_err(unknown)?;
    let retained = api.executor.retained.clone();
    let kept = blocking(move || retained.of_service(&name)).await;
    let mut kept = kept.map_err(|error| unreadable(&error))?;
    // One that is starting again under its id is not removed.
    kept.retain(|output| api.existing(&output.id).is_err());
    Ok(Json(kept))
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(now.map_or(0, |now| now.as_millis() as u64))
}

/// Writes lines in the format of a request.
#[derive(Debug)]
enum LineWriter {
    Text(TextWriter),
    Cri,
}

impl LineWriter {
    fn new(query: &LogQuery) -> Self {
        match query.format {
            Format::Text => Self::Text(TextWriter::new(query.timestamps)),
            Format::Cri => Self::Cri,
        }
    }

    fn write(&mut self, lines: &[OutputLine]) -> Vec<u8> {
        let mut text = Vec::new();
        for line in lines {
            match self {
                Self::Text(writer) => writer.write(&line.as_line(), &mut text),
                Self::Cri => line.as_line().write_cri(&mut text),
            }
        }
        text
    }
}

async fn read_past(home: PathBuf, part: Part, mut writer: LineWriter) -> Result<Vec<u8>, ApiError> {
    let read = blocking(move || past(&home, part).map(|lines| writer.write(&lines))).await;
    read.map_err(|error| unreadable(&error))
}

fn unreadable(error: &std::io::Error) -> ApiError {
    let message = format!("cannot read the process's output: {error}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "io", message)
}

/// A body that streams the output until the process is removed or the client disconnects.
fn follow(
    home: PathBuf,
    retained: PathBuf,
    part: Part,
    writer: LineWriter,
    permit: OwnedSemaphorePermit,
) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = pump(home.clone(), retained, part, writer, &sender).await {
            tracing::warn!(home = %home.display(), %error, "cannot follow the output");
        }
        drop(permit);
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

type Chunk = Result<Bytes, Infallible>;

async fn pump(
    home: PathBuf,
    retained: PathBuf,
    part: Part,
    mut writer: LineWriter,
    to: &mpsc::Sender<Chunk>,
) -> std::io::Result<()> {
    let (mut lines, mut output) = blocking(move || Output::follow(&home, &retained, part)).await?;
    let mut is_idle = false;
    loop {
        let text = writer.write(&lines);
        if !text.is_empty() && to.send(Ok(Bytes::from(text))).await.is_err() {
            return Ok(());
        }
        if is_idle || lines.is_empty() {
            tokio::select! {
                () = to.closed() => return Ok(()),
                () = tokio::time::sleep(POLL_INTERVAL), if is_idle => {}
                () = tokio::task::yield_now(), if !is_idle => {}
            }
        }
        let is_over;
        (is_over, lines, is_idle, output) = blocking(move || {
            // Checked before the last read, so that output written until the removal is still sent.
            let is_over = output.is_over();
            let mut polled = output.poll()?;
            let is_end = is_over && polled.is_idle;
            if is_end {
                polled.lines.extend(output.finish());
            }
            Ok((is_end, polled.lines, polled.is_idle, output))
        })
        .await?;
        if is_over {
            let text = writer.write(&lines);
            // The client may have disconnected.
            drop(to.send(Ok(Bytes::from(text))).await);
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
