//! Requests for output to agents, of this version and the one before.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use reqwest::StatusCode;
use tucano_api::{
    ids::{NodeName, ProcessId, ServiceName},
    logs::{KeptOutput, Since},
};

use super::lines::{LineReader, OwnedLine};
use crate::{
    agent_mgr::{AgentAddress, AgentError},
    http::Api,
};

/// Agents that are asked for removed processes' output at the same time.
const KEPT_REQUESTS: usize = 32;
/// How long an agent may take to list removed processes.
const KEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which output to request from an agent.
#[derive(Debug, Clone, Default)]
pub(super) struct AgentQuery {
    pub(super) stream: &'static str,
    pub(super) tail: u64,
    pub(super) follow: bool,
    pub(super) since: Option<Since>,
    /// Whether lines must have their times.
    pub(super) timestamps: bool,
}

impl AgentQuery {
    /// What an agent of the version before understands.
    fn earlier(&self) -> Vec<(&'static str, String)> {
        vec![
            ("stream", self.stream.to_owned()),
            ("tail", self.tail.to_string()),
            ("follow", self.follow.to_string()),
        ]
    }

    fn current(&self) -> Vec<(&'static str, String)> {
        let mut query = self.earlier();
        query.push(("format", "cri".to_owned()));
        query.extend(self.since.map(|since| ("since", since.to_string())));
        query
    }
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// The node's address is not known.
    #[error("{0}")]
    NoAddress(String),
    /// The request failed.
    #[error(transparent)]
    Agent(AgentError),
    /// The agent is of an earlier version.
    #[error(
        "the agent at {0} is of an earlier version, without `since` and `timestamps`: upgrade it, or leave them out"
    )]
    TooOld(AgentAddress),
}

impl OutputError {
    /// Whether the node has no such process, yet or any more.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Agent(AgentError::Refused { status, .. }) if *status == StatusCode::NOT_FOUND)
    }
}

/// An agent's answer.
#[derive(Debug)]
pub(super) struct Answer {
    response: reqwest::Response,
    has_times: bool,
}

impl Answer {
    /// The lines, in batches as they arrive.
    pub(super) fn lines(self) -> impl Stream<Item = Vec<OwnedLine>> + Send + Unpin {
        let mut reader = LineReader::new(self.has_times);
        let chunks = self.response.bytes_stream();
        let chunks = chunks.take_while(|chunk| std::future::ready(chunk.is_ok()));
        Box::pin(chunks.map(move |chunk| reader.push(&chunk.unwrap_or_default())))
    }
}

/// Requests output from the process's node.
pub(super) async fn request(
    api: &Api,
    node: &NodeName,
    id: &ProcessId,
    query: &AgentQuery,
) -> Result<Answer, OutputError> {
    let address = api.address_of(node).map_err(OutputError::NoAddress)?;
    request_at(api, address, id, query).await
}

/// Requests output from an agent.
pub(super) async fn request_at(
    api: &Api,
    address: AgentAddress,
    id: &ProcessId,
    query: &AgentQuery,
) -> Result<Answer, OutputError> {
    let client = api.agents.client();
    match client.logs(address, id, &query.current()).await {
        Err(AgentError::Refused { status, .. }) if status == StatusCode::BAD_REQUEST => {
            if query.since.is_some() || query.timestamps {
                return Err(OutputError::TooOld(address));
            }
            let answer = client.logs(address, id, &query.earlier()).await;
            answer.map(|response| Answer {
                response,
                has_times: false,
            })
        }
        answer => answer.map(|response| Answer {
            response,
            has_times: true,
        }),
    }
    .map_err(OutputError::Agent)
}

/// Output of a removed process, which its node keeps for a while. The cluster's state does not know which node that was, so
/// all are asked.
pub(super) async fn request_kept(
    api: &Api,
    id: &ProcessId,
    query: &AgentQuery,
) -> Option<Result<Answer, OutputError>> {
    let addresses = api.agents.addresses(usize::MAX).into_iter();
    let requests = addresses.map(|address| request_at(api, address, id, query));
    let answers = stream::iter(requests).buffer_unordered(KEPT_REQUESTS);
    let mut found = Box::pin(answers.filter(|answer| {
        let is_found = matches!(answer, Ok(_) | Err(OutputError::TooOld(_)));
        std::future::ready(is_found)
    }));
    found.next().await
}

/// The removed processes of a service whose output is kept, oldest first. Agents that do not answer in time, and those of
/// the version before, have none.
pub(super) async fn kept_of(api: &Api, service: &ServiceName) -> Vec<(AgentAddress, KeptOutput)> {
    let addresses = api.agents.addresses(usize::MAX).into_iter();
    let requests = addresses.map(|address| async move {
        let kept = api.agents.client().kept_output(address, service);
        let kept = tokio::time::timeout(KEPT_TIMEOUT, kept).await;
        let kept = kept.ok().and_then(Result::ok).unwrap_or_default();
        kept.into_iter()
            .map(move |output| (address, output))
            .collect::<Vec<_>>()
    });
    let answers = stream::iter(requests).buffer_unordered(KEPT_REQUESTS);
    let mut all: Vec<_> = answers.concat().await;
    all.sort_by_key(|(_, output)| output.id.number());
    all
}
