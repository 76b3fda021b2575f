//! Requests to an agent.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tucano_api::{
    agent::{DesiredSet, Identity, Prefetch},
    error::ErrorBody,
    ids::{NodeName, ProcessId},
};
use tucano_oci_session::UPGRADE;

use crate::config_mgr::ConfigManager;

/// Presents the agents' token, and does not wait for long.
#[derive(Debug, Clone)]
pub struct AgentClient {
    config: Arc<ConfigManager>,
    client: Client,
}

/// Why an agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be reached, or does not answer in time.
    #[error("the agent at {address} cannot be reached: {source}")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// It did not begin its answer in time.
    #[error("the agent at {address} did not answer in time")]
    Timeout {
        /// Where it is.
        address: SocketAddr,
    },
    /// What it says makes no sense.
    #[error("the agent at {address} does not answer as one of this version does: {source}")]
    Malformed {
        /// Where it is.
        address: SocketAddr,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It refused.
    #[error("the agent at {address} refused ({status}): {}", body.error)]
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// Its status.
        status: StatusCode,
        /// What it said.
        body: ErrorBody,
    },
}

impl AgentClient {
    /// Uses the token and the limits of the configuration in force at the time.
    pub fn new(config: Arc<ConfigManager>, client: Client) -> Self {
        Self { config, client }
    }

    /// Whether the topology has this node.
    pub fn knows(&self, node: &NodeName) -> bool {
        let config = self.config.current();
        config
            .topology
            .workers
            .iter()
            .any(|worker| worker.name == *node)
    }

    /// Sends a desired set.
    ///
    /// # Errors
    /// Why the agent has not taken it.
    pub async fn assign(&self, address: SocketAddr, set: &DesiredSet) -> Result<(), AgentError> {
        let request = self
            .client
            .put(format!("http://{address}/v1/desired"))
            .json(set);
        self.send(address, request).await.map(|_| ())
    }

    /// Tells of blobs that may soon be needed.
    ///
    /// # Errors
    /// Why the agent has not heard of them.
    pub async fn prefetch(
        &self,
        address: SocketAddr,
        prefetch: &Prefetch,
    ) -> Result<(), AgentError> {
        let request = self
            .client
            .post(format!("http://{address}/v1/prefetch"))
            .json(prefetch);
        self.send(address, request).await.map(|_| ())
    }

    /// Asks who answers there.
    ///
    /// # Errors
    /// Why nobody of ours does.
    pub async fn identity(&self, address: SocketAddr) -> Result<Identity, AgentError> {
        let request = self.client.get(format!("http://{address}/v1/identity"));
        let mut answer = self.send(address, request).await?;
        let patience = self.config.current().limits.agent_timeout.0;
        let text = read_bounded(&mut answer, patience).await;
        serde_json::from_slice(&text).map_err(|source| AgentError::Malformed { address, source })
    }

    /// Begins to read a process's logs; the response's body goes on for as long as they do.
    ///
    /// # Errors
    /// Why there is nothing to read.
    pub async fn logs(
        &self,
        address: SocketAddr,
        process: &ProcessId,
        query: &[(&str, String)],
    ) -> Result<Response, AgentError> {
        let url = format!("http://{address}/v1/processes/{process}/logs");
        let query: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let request = self.client.get(format!("{url}?{}", query.join("&")));
        self.send(address, request).await
    }

    /// Begins to run something in a process's container: the answer's connection is one of frames.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn exec(
        &self,
        address: SocketAddr,
        process: &ProcessId,
    ) -> Result<Response, AgentError> {
        let request = self
            .client
            .post(format!("http://{address}/v1/processes/{process}/exec"))
            .header("Connection", "Upgrade")
            .header("Upgrade", UPGRADE);
        self.send(address, request).await
    }

    async fn send(
        &self,
        address: SocketAddr,
        mut request: RequestBuilder,
    ) -> Result<Response, AgentError> {
        let config = self.config.current();
        if let Some(token) = &config.agent_token {
            request = request.bearer_auth(token.expose());
        }
        // Only until the answer begins: the logs that follow may go on for days.
        let answer = tokio::time::timeout(config.limits.agent_timeout.0, request.send())
            .await
            .map_err(|_| AgentError::Timeout { address })?
            .map_err(|source| AgentError::Unreachable {
                address,
                source: source.without_url(),
            })?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let body = refusal(answer, config.limits.agent_timeout.0).await;
        Err(AgentError::Refused {
            address,
            status,
            body,
        })
    }
}

/// The agent's words, where it has any and they are not endless.
async fn refusal(mut answer: Response, patience: Duration) -> ErrorBody {
    let text = read_bounded(&mut answer, patience).await;
    serde_json::from_slice(&text)
        .unwrap_or_else(|_| ErrorBody::new("agent_refused", "it did not say why"))
}

/// As much of a short answer as came in time, and some bytes more than one may have where it is too long.
async fn read_bounded(answer: &mut Response, patience: Duration) -> Vec<u8> {
    const MOST: usize = 16 << 10;
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > MOST {
                break;
            }
        }
    };
    if tokio::time::timeout(patience, read).await.is_err() {
        tracing::debug!("an agent's answer did not end in time");
    }
    text
}
