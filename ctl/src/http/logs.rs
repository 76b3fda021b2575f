//! Processes' output, streamed from their nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tucano_api::{
    error::ErrorBody,
    ids::{NodeName, ProcessId, ServiceName},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    errors::ApiError,
    extract::{PathParam, QueryParams},
};

/// Lines that are buffered for a slow reader.
const BUFFERED_LINES: usize = 256;
/// How often a follower checks for new processes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Agents that are asked for a removed process's output at the same time.
const RETAINED_REQUESTS: usize = 32;

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(of_service))
        .routes(routes!(of_process))
}

/// Selects a part of the logs.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// `stdout`, `stderr` or `both`.
    #[param(inline)]
    stream: Stream,
    /// Number of last lines of each process.
    tail: Option<u64>,
    /// Continue with new output.
    follow: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Stream {
    Stdout,
    Stderr,
    #[default]
    Both,
}

impl LogQuery {
    /// The query for an agent; `most` bounds the lines.
    fn query(&self, most: u64) -> Vec<(&'static str, String)> {
        let stream = match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Both => "both",
        };
        vec![
            ("stream", stream.to_owned()),
            ("tail", self.tail.unwrap_or(most).min(most).to_string()),
            ("follow", self.follow.to_string()),
        ]
    }
}

/// Output of one process, unchanged.
#[utoipa::path(get, path = "/v1/processes/{id}/logs", tag = "logs",
    params(("id" = String, Path), LogQuery),
    responses(
        (status = 200, content_type = "text/plain", body = String),
        (status = 404, body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn of_process(
    State(api): State<Arc<Api>>,
    PathParam(id): PathParam<ProcessId>,
    QueryParams(which): QueryParams<LogQuery>,
) -> Result<Response, ApiError> {
    let answer = match api.node_of(&id).await {
        Ok(node) => begin(&api, &node, &id, &which)
            .await
            .map_err(ApiError::agent_unreachable)?,
        Err(unknown) => retained(&api, &id, &which).await.ok_or(unknown)?,
    };
    Ok(text(Body::from_stream(answer.bytes_stream())))
}

/// Output of all processes of a service, each line prefixed by `<process> | `.
#[utoipa::path(get, path = "/v1/services/{name}/logs", tag = "logs",
    params(("name" = String, Path), LogQuery),
    responses(
        (status = 200, content_type = "text/plain", body = String),
        (status = 404, body = ErrorBody)))]
async fn of_service(
    State(api): State<Arc<Api>>,
    PathParam(name): PathParam<ServiceName>,
    QueryParams(which): QueryParams<LogQuery>,
) -> Result<Response, ApiError> {
    let processes = processes_of(&api, &name).await?;
    if processes.is_empty() {
        api.service(&name).await?;
    }
    let (lines, receiver) = mpsc::channel(BUFFERED_LINES);
    let merger = LogMerger { api, lines };
    tokio::spawn(async move {
        if which.follow {
            merger.follow(name, which).await;
        } else {
            for (node, id) in processes {
                merger.copy(node, id, which.clone()).await;
            }
        }
    });
    let lines = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Ok(text(Body::from_stream(lines)))
}

fn text(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// Output of a removed process, which its node keeps for a while. The cluster's state does not know which node that was, so all
/// are asked.
async fn retained(api: &Api, id: &ProcessId, which: &LogQuery) -> Option<reqwest::Response> {
    let query = which.query(api.config.current().limits.log_lines);
    let requests = api
        .agents
        .addresses(usize::MAX)
        .into_iter()
        .map(|address| api.agents.client().logs(address, id, &query));
    let answers = futures_util::stream::iter(requests).buffer_unordered(RETAINED_REQUESTS);
    let mut found = Box::pin(answers.filter_map(async |answer| answer.ok()));
    found.next().await
}

async fn processes_of(
    api: &Api,
    name: &ServiceName,
) -> Result<Vec<(NodeName, ProcessId)>, ApiError> {
    let name = name.clone();
    let mut processes = api
        .state
        .query(move |cluster| cluster.existing(&name))
        .await?;
    processes.sort_by_key(|(_, id)| id.number());
    Ok(processes)
}

/// Requests the logs from the process's node.
async fn begin(
    api: &Api,
    node: &NodeName,
    id: &ProcessId,
    which: &LogQuery,
) -> Result<reqwest::Response, String> {
    let address = api.address_of(node)?;
    let query = which.query(api.config.current().limits.log_lines);
    api.agents
        .client()
        .logs(address, id, &query)
        .await
        .map_err(|error| error.to_string())
}

/// Longest time, and largest output, for the last lines of one process.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);
const LAST_LINES_BYTES: usize = 64 << 10;

/// The last lines of a process's output, as far as its node gives them in time.
pub(super) async fn last_lines(
    api: &Api,
    node: &NodeName,
    id: &ProcessId,
    count: usize,
) -> Vec<String> {
    let query = LogQuery {
        tail: Some(count as u64),
        ..LogQuery::default()
    };
    let mut bytes = Vec::new();
    let read = async {
        let mut answer = begin(api, node, id, &query).await.ok()?;
        while let Some(chunk) = answer.chunk().await.ok()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LAST_LINES_BYTES {
                break;
            }
        }
        Some(())
    };
    // Lines that arrived before the time was up are shown.
    tokio::time::timeout(LAST_LINES_TIMEOUT, read).await.ok();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}

/// Merges the prefixed lines of several processes for one reader.
#[derive(Clone)]
struct LogMerger {
    api: Arc<Api>,
    lines: mpsc::Sender<Bytes>,
}

impl LogMerger {
    /// Follows all processes, including later ones, until the reader disconnects or the service is removed.
    async fn follow(&self, name: ServiceName, which: LogQuery) {
        let mut reading = JoinSet::new();
        let mut open = BTreeSet::new();
        let mut seen = BTreeMap::new();
        let mut look = tokio::time::interval(POLL_INTERVAL);
        loop {
            tokio::select! {
                () = self.lines.closed() => return,
                Some(ended) = reading.join_next() => {
                    if let Ok(id) = ended {
                        open.remove(&id);
                    }
                }
                _ = look.tick() => {
                    let Ok(processes) = processes_of(&self.api, &name).await else {
                        return;
                    };
                    if processes.is_empty() && self.is_removed(&name).await && open.is_empty() {
                        return;
                    }
                    let is_first_look = seen.is_empty();
                    for (node, id) in processes {
                        if !open.insert(id.clone()) {
                            continue;
                        }
                        let mut which = which.clone();
                        // A new process is shown from its start; a reconnected one, from now on.
                        match seen.insert(id.clone(), ()) {
                            Some(()) => which.tail = Some(0),
                            None if !is_first_look => which.tail = None,
                            None => {}
                        }
                        let merger = self.clone();
                        reading.spawn(async move {
                            merger.copy(node, id.clone(), which).await;
                            id
                        });
                    }
                }
            }
        }
    }

    async fn is_removed(&self, name: &ServiceName) -> bool {
        let name = name.clone();
        let service = self
            .api
            .state
            .query(move |cluster| cluster.service(&name).is_none());
        service.await.unwrap_or(true)
    }

    /// Copies the lines of one process. An error becomes a line.
    async fn copy(&self, node: NodeName, id: ProcessId, which: LogQuery) {
        let answer = match begin(&self.api, &node, &id, &which).await {
            Ok(answer) => answer,
            Err(error) => {
                self.send_line(&id, &format!("[tucano] no logs: {error}"))
                    .await;
                return;
            }
        };
        let longest = usize::try_from(self.api.config.current().limits.log_line_bytes.0);
        let mut splitter = LineSplitter::new(&id, longest.unwrap_or(usize::MAX));
        let mut chunks = answer.bytes_stream();
        loop {
            tokio::select! {
                () = self.lines.closed() => return,
                chunk = chunks.next() => {
                    let Some(Ok(chunk)) = chunk else {
                        break;
                    };
                    for line in splitter.push(&chunk) {
                        if self.lines.send(line).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
        if let Some(rest) = splitter.rest()
            && self.lines.send(rest).await.is_err()
        {
            tracing::debug!("a reader of logs has disconnected");
        }
    }

    async fn send_line(&self, id: &ProcessId, line: &str) {
        let line = Bytes::from(format!("{id} | {line}\n"));
        if self.lines.send(line).await.is_err() {
            tracing::debug!("a reader of logs has disconnected");
        }
    }
}

/// Splits a stream into prefixed lines.
struct LineSplitter {
    prefix: String,
    longest: usize,
    line: BytesMut,
}

impl LineSplitter {
    fn new(id: &ProcessId, longest: usize) -> Self {
        Self {
            prefix: format!("{id} | "),
            longest,
            line: BytesMut::new(),
        }
    }

    /// The lines that this chunk completes.
    fn push(&mut self, chunk: &[u8]) -> Vec<Bytes> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(self.longest) {
                if self.line.len() + piece.len() > self.longest {
                    lines.extend(self.rest());
                }
                self.line.extend_from_slice(piece);
            }
            if self.line.ends_with(b"\n") {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// The incomplete last line.
    fn rest(&mut self) -> Option<Bytes> {
        if self.line.is_empty() {
            return None;
        }
        let line = self.line.split();
        let mut whole = BytesMut::from(self.prefix.as_bytes());
        whole.extend_from_slice(&line);
        if !line.ends_with(b"\n") {
            whole.extend_from_slice(b"\n");
        }
        Some(whole.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(longest: usize, chunks: &[&str]) -> String {
        let mut splitter = LineSplitter::new(&"a-1".parse().unwrap(), longest);
        let mut lines: Vec<Bytes> = Vec::new();
        for chunk in chunks {
            lines.extend(splitter.push(chunk.as_bytes()));
        }
        lines.extend(splitter.rest());
        String::from_utf8(lines.concat()).unwrap()
    }

    #[test]
    fn each_line_is_prefixed_however_it_is_chunked() {
        let expected = "a-1 | one\na-1 | \na-1 | two\n";
        assert_eq!(split(100, &["one\n\ntwo\n"]), expected);
        assert_eq!(split(100, &["o", "ne", "\n\ntw", "o"]), expected);
        assert_eq!(split(100, &[]), "");
    }

    #[test]
    fn a_long_line_is_split() {
        assert_eq!(split(4, &["abcdefgh"]), "a-1 | abcd\na-1 | efgh\n");
        assert_eq!(
            split(4, &["ab", "cdef\n"]),
            "a-1 | ab\na-1 | cdef\na-1 | \n"
        );
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let all = LogQuery::default().query(50);
        assert_eq!(all[1], ("tail", "50".to_owned()));
        let which = LogQuery {
            tail: Some(1_000_000),
            ..LogQuery::default()
        };
        assert_eq!(which.query(50)[1].1, "50");
    }
}
