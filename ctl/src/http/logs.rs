//! Processes' output, streamed from their nodes.
//!
//! - [`agent`]: requests to agents,
//! - [`lines`]: the lines of an answer, and how they are written,
//! - [`merger`]: the lines of several processes for one client.

mod agent;
mod lines;
mod merger;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tucano_api::{
    error::ErrorBody,
    ids::{NodeName, ProcessId, ServiceName},
    logs::{KeptOutput, Since},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    agent::{AgentQuery, Answer, OutputError},
    lines::{Form, LineWriter},
    merger::LogMerger,
};
use super::{
    Api,
    errors::ApiError,
    extract::{PathParam, QueryParams},
};
use crate::{agent_mgr::AgentAddress, state_loop::clock::Clock};

/// Lines that are buffered for a slow reader.
const BUFFERED_LINES: usize = 256;

/// Removed processes of a service whose output is shown with that of its processes: the last ones.
const KEPT_PROCESSES: usize = 20;

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
    /// Number of last lines of each process, of both streams together.
    tail: Option<u64>,
    /// Continue with new output.
    follow: bool,
    /// Only lines that are not older: a duration such as `10m`, or a time of RFC 3339. Lines whose time is not known are
    /// shown unless they are certainly older.
    #[param(value_type = Option<String>)]
    since: Option<Since>,
    /// Write the time before each line, in RFC 3339 and UTC; `-` where it is not known.
    timestamps: bool,
    /// `text`, or `json`: one object a line, with `process`, `line`, and, where they are known, `time` and `stream`.
    #[param(inline)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Stream {
    Stdout,
    Stderr,
    #[default]
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

impl LogQuery {
    /// The query for an agent, with the limit of lines of the configuration in force.
    fn for_agent(&self, api: &Api) -> AgentQuery {
        self.query(api.config.current().limits.log_lines)
    }

    /// The query for an agent; `most` bounds the lines.
    fn query(&self, most: u64) -> AgentQuery {
        AgentQuery {
            stream: match self.stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
                Stream::Both => "both",
            },
            tail: self.tail.unwrap_or(most).min(most),
            follow: self.follow,
            since: self.since,
            timestamps: self.timestamps,
        }
    }

    /// The response's head and body.
    fn respond(&self, body: Body) -> Response {
        let content_type = match self.format {
            Format::Text => "text/plain; charset=utf-8",
            Format::Json => "application/x-ndjson",
        };
        ([(CONTENT_TYPE, content_type)], body).into_response()
    }
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::TooOld(_) => {
                Self::new(StatusCode::CONFLICT, "agent_too_old", error.to_string())
            }
            _ => Self::agent_unreachable(error.to_string()),
        }
    }
}

/// Output of one process, unchanged.
#[utoipa::path(get, path = "/v1/processes/{id}/logs", tag = "logs",
    params(("id" = String, Path), LogQuery),
    responses(
        (status = 200, content_type = "text/plain", body = String),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Its node's agent is of an earlier version", body = ErrorBody),
        (status = 502, description = "Its node cannot be reached", body = ErrorBody)))]
async fn of_process(
    State(api): State<Arc<Api>>,
    PathParam(id): PathParam<ProcessId>,
    QueryParams(which): QueryParams<LogQuery>,
) -> Result<Response, ApiError> {
    let query = which.for_agent(&api);
    let answer = match api.node_of(&id).await {
        Ok(node) => agent::request(&api, &node, &id, &query).await,
        Err(unknown) => agent::request_kept(&api, &id, &query)
            .await
            .ok_or(unknown)?,
    };
    let form = match which.format {
        Format::Json => Form::Json,
        Format::Text => Form::Bytes {
            has_times: which.timestamps,
        },
    };
    let writer = LineWriter::new(form, &id, max_line_bytes(&api));
    Ok(which.respond(body(answer?, writer)))
}

/// The answer's lines as the writer writes them.
fn body(answer: Answer, mut writer: LineWriter) -> Body {
    let end = [None];
    let batches = answer
        .lines()
        .map(Some)
        .chain(futures_util::stream::iter(end));
    let texts = batches.map(move |batch| {
        let text = match batch {
            Some(lines) => writer.write_all(lines),
            None => writer.finish(),
        };
        Ok::<Bytes, Infallible>(text)
    });
    Body::from_stream(texts)
}

/// Output of all processes of a service, each line prefixed by `<process> | `, after that of its processes which were removed
/// recently.
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
    let (kept, earlier) = kept_of(&api, &name, &processes, &which).await;
    if processes.is_empty() && kept.is_empty() {
        api.service(&name).await?;
    }
    let (lines, receiver) = mpsc::channel(BUFFERED_LINES);
    let form = match which.format {
        Format::Json => Form::Json,
        Format::Text => Form::Prefixed {
            has_times: which.timestamps,
        },
    };
    let response = {
        let lines = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
        which.respond(Body::from_stream(lines))
    };
    let merger = LogMerger { api, lines, form };
    tokio::spawn(async move {
        if let Some((_, oldest)) = kept.first().filter(|_| earlier > 0) {
            let text = format!(
                "[tucano] output of {earlier} processes that were removed earlier is kept, too: see each by its id"
            );
            merger.note(&oldest.id, &text).await;
        }
        merger.copy_kept(kept, &which).await;
        if which.follow {
            merger.follow(name, which).await;
        } else {
            for (node, id) in processes {
                merger.copy_past(node, id, &which).await;
            }
        }
    });
    Ok(response)
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

/// The removed processes whose output is shown, oldest first, and the number of those that are left out.
async fn kept_of(
    api: &Api,
    name: &ServiceName,
    processes: &[(NodeName, ProcessId)],
    which: &LogQuery,
) -> (Vec<(AgentAddress, KeptOutput)>, usize) {
    let mut kept = agent::kept_of(api, name).await;
    let existing: BTreeSet<_> = processes.iter().map(|(_, id)| id).collect();
    let since = which.since.map(|since| since.at(Clock::start().now()));
    kept.retain(|(_, output)| {
        let is_recent = since.is_none_or(|since| output.removed_at >= since);
        is_recent && !existing.contains(&output.id)
    });
    let earlier = kept.len().saturating_sub(KEPT_PROCESSES);
    kept.drain(..earlier);
    (kept, earlier)
}

fn max_line_bytes(api: &Api) -> usize {
    let max = api.config.current().limits.log_line_bytes.0;
    usize::try_from(max).unwrap_or(usize::MAX)
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
    let query = AgentQuery {
        tail: count as u64,
        ..LogQuery::default().for_agent(api)
    };
    let mut text = Vec::new();
    let read = async {
        let answer = agent::request(api, node, id, &query).await.ok()?;
        let mut writer = LineWriter::new(Form::Bytes { has_times: false }, id, usize::MAX);
        let mut batches = answer.lines();
        while let Some(lines) = batches.next().await {
            text.extend_from_slice(&writer.write_all(lines));
            if text.len() > LAST_LINES_BYTES {
                break;
            }
        }
        Some(())
    };
    // Lines that arrived before the time was up are shown.
    tokio::time::timeout(LAST_LINES_TIMEOUT, read).await.ok();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_lines_is_bounded() {
        let all = LogQuery::default().query(50);
        assert_eq!(all.tail, 50);
        let which = LogQuery {
            tail: Some(1_000_000),
            ..LogQuery::default()
        };
        assert_eq!(which.query(50).tail, 50);
    }
}
