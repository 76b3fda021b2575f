//! Requests to an agent.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tucano_api::{
    agent::{DesiredSet, Identity, Prefetch},
    error::{ErrorBody, innermost},
    ids::{NodeName, ProcessId},
};
use tucano_oci_session::UPGRADE;
use tucano_tls::Mode;

use crate::config_mgr::ConfigManager;

/// Where an agent is, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentAddress {
    /// Where it listens.
    pub socket: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl AgentAddress {
    fn base(self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.socket)
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base())
    }
}

/// Presents the agents' token, and does not wait for long.
#[derive(Debug, Clone)]
pub struct AgentClient {
    config: Arc<ConfigManager>,
    client: Client,
    tls: Mode,
}

/// Why an agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be reached, or does not answer in time.
    #[error("the agent at {address} cannot be reached: {}", root(source))]
    Unreachable {
        /// Where it should be.
        address: AgentAddress,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// It did not begin its answer in time.
    #[error("the agent at {address} did not answer in time")]
    Timeout {
        /// Where it is.
        address: AgentAddress,
    },
    /// What it says makes no sense.
    #[error("the agent at {address} does not answer as one of this version does: {source}")]
    Malformed {
        /// Where it is.
        address: AgentAddress,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It refused.
    #[error("the agent at {address} refused ({status}): {}", body.error)]
    Refused {
        /// Where it is.
        address: AgentAddress,
        /// Its status.
        status: StatusCode,
        /// What it said.
        body: ErrorBody,
    },
}

impl AgentClient {
    /// Uses the token and the limits of the configuration in force at the time.
    pub fn new(config: Arc<ConfigManager>, client: Client) -> Self {
        Self {
            config,
            client,
            tls: Mode::On,
        }
    }

    /// With agents on other machines spoken to so.
    pub fn with_tls(self, tls: Mode) -> Self {
        Self { tls, ..self }
    }

    /// Asks who answers there, and finds out how that one is to be spoken to.
    ///
    /// # Errors
    /// Why nobody of ours does.
    pub async fn find(&self, socket: SocketAddr) -> Result<(AgentAddress, Identity), AgentError> {
        let (first, more) = ways(self.tls, socket);
        match (self.identity(first).await, more) {
            (Ok(identity), _) => Ok((first, identity)),
            (Err(error), None) => Err(error),
            (Err(error), Some(other)) => match self.identity(other).await {
                Ok(identity) => Ok((other, identity)),
                Err(_) => Err(error),
            },
        }
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
    pub async fn assign(&self, address: AgentAddress, set: &DesiredSet) -> Result<(), AgentError> {
        let request = self
            .client
            .put(format!("{}/v1/desired", address.base()))
            .json(set);
        self.send(address, request).await.map(|_| ())
    }

    /// Tells of blobs that may soon be needed.
    ///
    /// # Errors
    /// Why the agent has not heard of them.
    pub async fn prefetch(
        &self,
        address: AgentAddress,
        prefetch: &Prefetch,
    ) -> Result<(), AgentError> {
        let request = self
            .client
            .post(format!("{}/v1/prefetch", address.base()))
            .json(prefetch);
        self.send(address, request).await.map(|_| ())
    }

    /// Asks who answers there.
    ///
    /// # Errors
    /// Why nobody of ours does.
    async fn identity(&self, address: AgentAddress) -> Result<Identity, AgentError> {
        let request = self.client.get(format!("{}/v1/identity", address.base()));
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
        address: AgentAddress,
        process: &ProcessId,
        query: &[(&str, String)],
    ) -> Result<Response, AgentError> {
        let url = format!("{}/v1/processes/{process}/logs", address.base());
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
        address: AgentAddress,
        process: &ProcessId,
    ) -> Result<Response, AgentError> {
        let request = self
            .client
            .post(format!("{}/v1/processes/{process}/exec", address.base()))
            .header("Connection", "Upgrade")
            .header("Upgrade", UPGRADE);
        self.send(address, request).await
    }

    async fn send(
        &self,
        address: AgentAddress,
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

/// The first cause, with what to do where it is known.
fn root(error: &reqwest::Error) -> String {
    let text = innermost(error).to_string();
    if text.contains("UnknownIssuer") {
        return format!("{text}; is its ca_file a copy of this controller's ca.pem?");
    }
    text
}

/// How an agent may be spoken to, the first of two first. Where TLS is not demanded, workers may change to it one by one.
fn ways(tls: Mode, socket: SocketAddr) -> (AgentAddress, Option<AgentAddress>) {
    let way = |tls| AgentAddress { socket, tls };
    match tls {
        _ if socket.ip().to_canonical().is_loopback() => (way(false), None),
        Mode::On => (way(true), None),
        Mode::Off => (way(false), Some(way(true))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_other_machines_by_tls_alone_unless_the_sysadmin_says_otherwise() {
        let ways = |tls, socket: &str| {
            let (first, more) = ways(tls, socket.parse().unwrap());
            [Some(first), more].map(|way| way.map_or_else(String::new, |way| way.to_string()))
        };
        let there = "10.0.0.11:7071";
        assert_eq!(ways(Mode::On, there), ["https://10.0.0.11:7071", ""]);
        assert_eq!(
            ways(Mode::Off, there),
            ["http://10.0.0.11:7071", "https://10.0.0.11:7071"]
        );
        for tls in [Mode::On, Mode::Off] {
            assert_eq!(ways(tls, "127.0.0.11:7071"), ["http://127.0.0.11:7071", ""]);
            assert_eq!(ways(tls, "[::1]:7071"), ["http://[::1]:7071", ""]);
        }
    }
}
