//! What processes say: passed on from their nodes as it comes.

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
    extract::{Asked, Named},
};

/// Lines on their way to a reader who is slower than the processes.
const PIPE: usize = 256;
/// How often a follower looks for processes that came since.
const LOOK: Duration = Duration::from_secs(1);

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(of_service))
        .routes(routes!(of_process))
}

/// What of the logs.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Which {
    /// `stdout`, `stderr` or `both`.
    #[param(inline)]
    stream: Stream,
    /// So many of the last lines of each process.
    tail: Option<u64>,
    /// Go on with what is said from now on.
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

impl Which {
    /// The query to an agent; `most` bounds the lines.
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

/// Lines of one process, as they are.
#[utoipa::path(get, path = "/v1/processes/{id}/logs", tag = "logs",
    params(("id" = String, Path), Which),
    responses(
        (status = 200, content_type = "text/plain", body = String),
        (status = 404, body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn of_process(
    State(api): State<Arc<Api>>,
    Named(id): Named<ProcessId>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let node = api.node_of(&id).await?;
    let answer = begin(&api, &node, &id, &which)
        .await
        .map_err(ApiError::agent_unreachable)?;
    Ok(text(Body::from_stream(answer.bytes_stream())))
}

/// Lines of all processes of a service, each after `<process> | `.
#[utoipa::path(get, path = "/v1/services/{name}/logs", tag = "logs",
    params(("name" = String, Path), Which),
    responses(
        (status = 200, content_type = "text/plain", body = String),
        (status = 404, body = ErrorBody)))]
async fn of_service(
    State(api): State<Arc<Api>>,
    Named(name): Named<ServiceName>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let processes = processes_of(&api, &name).await?;
    if processes.is_empty() {
        api.service(&name).await?;
    }
    let (lines, receiver) = mpsc::channel(PIPE);
    let source = Source { api, lines };
    tokio::spawn(async move {
        if which.follow {
            source.follow(name, which).await;
        } else {
            for (node, id) in processes {
                source.copy(node, id, which.clone()).await;
            }
        }
    });
    let lines = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Ok(text(Body::from_stream(lines)))
}

fn text(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

async fn processes_of(
    api: &Api,
    name: &ServiceName,
) -> Result<Vec<(NodeName, ProcessId)>, ApiError> {
    let name = name.clone();
    let mut processes = api
        .brain
        .query(move |cluster| cluster.existing(&name))
        .await?;
    processes.sort_by_key(|(_, id)| id.number());
    Ok(processes)
}

/// Begins to read from the process's node.
async fn begin(
    api: &Api,
    node: &NodeName,
    id: &ProcessId,
    which: &Which,
) -> Result<reqwest::Response, String> {
    let address = api.address_of(node)?;
    let query = which.query(api.config.current().limits.log_lines);
    api.agents
        .client()
        .logs(address, id, &query)
        .await
        .map_err(|error| error.to_string())
}

/// Reads from processes and writes their lines, prefixed, to one reader.
#[derive(Clone)]
struct Source {
    api: Arc<Api>,
    lines: mpsc::Sender<Bytes>,
}

impl Source {
    /// All processes at once, also those that come later, until the reader goes away or the service does.
    async fn follow(&self, name: ServiceName, which: Which) {
        let mut reading = JoinSet::new();
        let mut open = BTreeSet::new();
        let mut seen = BTreeMap::new();
        let mut look = tokio::time::interval(LOOK);
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
                        // One that came later is shown from its start; one that was lost, from now on.
                        match seen.insert(id.clone(), ()) {
                            Some(()) => which.tail = Some(0),
                            None if !is_first_look => which.tail = None,
                            None => {}
                        }
                        let source = self.clone();
                        reading.spawn(async move {
                            source.copy(node, id.clone(), which).await;
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
            .brain
            .query(move |cluster| cluster.service(&name).is_none());
        service.await.unwrap_or(true)
    }

    /// All lines of one process. Whatever goes wrong becomes a line too.
    async fn copy(&self, node: NodeName, id: ProcessId, which: Which) {
        let answer = match begin(&self.api, &node, &id, &which).await {
            Ok(answer) => answer,
            Err(error) => {
                self.say(&id, &format!("[tucano] no logs: {error}")).await;
                return;
            }
        };
        let longest = usize::try_from(self.api.config.current().limits.log_line_bytes.0);
        let mut splitter = Splitter::new(&id, longest.unwrap_or(usize::MAX));
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
            tracing::debug!("a reader of logs has gone");
        }
    }

    async fn say(&self, id: &ProcessId, line: &str) {
        let line = Bytes::from(format!("{id} | {line}\n"));
        if self.lines.send(line).await.is_err() {
            tracing::debug!("a reader of logs has gone");
        }
    }
}

/// Cuts a stream into prefixed lines.
struct Splitter {
    prefix: String,
    longest: usize,
    line: BytesMut,
}

impl Splitter {
    fn new(id: &ProcessId, longest: usize) -> Self {
        Self {
            prefix: format!("{id} | "),
            longest,
            line: BytesMut::new(),
        }
    }

    /// The lines that this chunk ends.
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

    /// What has not ended yet, as a line.
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
        let mut splitter = Splitter::new(&"a-1".parse().unwrap(), longest);
        let mut lines: Vec<Bytes> = Vec::new();
        for chunk in chunks {
            lines.extend(splitter.push(chunk.as_bytes()));
        }
        lines.extend(splitter.rest());
        String::from_utf8(lines.concat()).unwrap()
    }

    #[test]
    fn each_line_is_prefixed_however_it_arrives() {
        let expected = "a-1 | one\na-1 | \na-1 | two\n";
        assert_eq!(split(100, &["one\n\ntwo\n"]), expected);
        assert_eq!(split(100, &["o", "ne", "\n\ntw", "o"]), expected);
        assert_eq!(split(100, &[]), "");
    }

    #[test]
    fn an_endless_line_is_cut() {
        assert_eq!(split(4, &["abcdefgh"]), "a-1 | abcd\na-1 | efgh\n");
        assert_eq!(
            split(4, &["ab", "cdef\n"]),
            "a-1 | ab\na-1 | cdef\na-1 | \n"
        );
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        let all = Which::default().query(50);
        assert_eq!(all[1], ("tail", "50".to_owned()));
        let which = Which {
            tail: Some(1_000_000),
            ..Which::default()
        };
        assert_eq!(which.query(50)[1].1, "50");
    }
}
