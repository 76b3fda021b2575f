//! Requests to an agent.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tucano_api::{
    agent::{DesiredSet, Identity, Prefetch},
    error::{ErrorBody, innermost},
    ids::{NodeName, ProcessId, ServiceName},
    logs::KeptOutput,
};
use tucano_oci_session::UPGRADE;
use tucano_tls::Mode;

use crate::config_mgr::ConfigManager;

/// An agent's address and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentAddress {
    /// The address that it listens on.
    pub socket: SocketAddr,
    /// Whether it uses TLS.
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

/// Sends requests to agents with their token, bounded in time.
#[derive(Debug, Clone)]
pub struct AgentClient {
    config: Arc<ConfigManager>,
    client: Client,
    tls: Mode,
}

/// Why a request to an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be reached, or does not answer in time.
    #[error("the agent at {address} cannot be reached: {}", root(source))]
    Unreachable {
        /// Its expected address.
        address: AgentAddress,
        /// The cause.
        source: reqwest::Error,
    },
    /// It did not begin its answer in time.
    #[error("the agent at {address} did not answer in time")]
    Timeout {
        /// Its address.
        address: AgentAddress,
    },
    /// Its answer is malformed.
    #[error("the agent at {address} sent a malformed answer (is it of another version?): {source}")]
    Malformed {
        /// Its address.
        address: AgentAddress,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// It refused.
    #[error("the agent at {address} refused ({status}): {}", body.error)]
    Refused {
        /// Its address.
        address: AgentAddress,
        /// Its status.
        status: StatusCode,
        /// Its error message.
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

    /// Sets the protocol for agents on other machines.
    #[must_use]
    pub fn with_tls(self, tls: Mode) -> Self {
        Self { tls, ..self }
    }

    /// Asks for the identity of the agent at this address, and determines its protocol.
    ///
    /// # Errors
    /// No agent of this cluster answers there.
    pub async fn probe(&self, socket: SocketAddr) -> Result<(AgentAddress, Identity), AgentError> {
        let (first, fallback) = addresses(self.tls, socket);
        match (self.identity(first).await, fallback) {
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
    /// The agent did not accept it.
    pub async fn assign(&self, address: AgentAddress, set: &DesiredSet) -> Result<(), AgentError> {
        let request = self
            .client
            .put(format!("{}/v1/desired", address.base()))
            .json(set);
        self.send(address, request).await.map(|_| ())
    }

    /// Announces blobs that may be needed soon.
    ///
    /// # Errors
    /// The agent did not accept it.
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

    /// Asks for the agent's identity.
    async fn identity(&self, address: AgentAddress) -> Result<Identity, AgentError> {
        let request = self.client.get(format!("{}/v1/identity", address.base()));
        let mut answer = self.send(address, request).await?;
        let max_wait = self.config.current().limits.agent_timeout.0;
        let text = read_bounded(&mut answer, max_wait).await;
        serde_json::from_slice(&text).map_err(|source| AgentError::Malformed { address, source })
    }

    /// Requests a process's logs; the response's body is the stream.
    ///
    /// # Errors
    /// The agent did not accept it.
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

    /// Requests the list of a service's removed processes whose output the node keeps.
    ///
    /// # Errors
    /// The agent did not accept it: one of an earlier version answers 404.
    pub async fn kept_output(
        &self,
        address: AgentAddress,
        service: &ServiceName,
    ) -> Result<Vec<KeptOutput>, AgentError> {
        let url = format!("{}/v1/services/{service}/logs", address.base());
        let mut answer = self.send(address, self.client.get(url)).await?;
        let max_wait = self.config.current().limits.agent_timeout.0;
        let text = read_at_most(&mut answer, MAX_KEPT_LIST_BYTES, max_wait).await;
        serde_json::from_slice(&text).map_err(|source| AgentError::Malformed { address, source })
    }

    /// Requests a session in a process's container; the response upgrades to frames.
    ///
    /// # Errors
    /// The agent did not accept it.
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
        let mut tokens = self.config.agent_tokens().into_iter();
        let answer = loop {
            let token = tokens.next();
            // Of these requests each has a body in memory.
            let next = request.try_clone().filter(|_| tokens.len() > 0);
            let attempt = match &token {
                Some(token) => request.bearer_auth(token.expose()),
                None => request,
            };
            // Bounds the response's head only: a log stream may last for days.
            let answer = tokio::time::timeout(config.limits.agent_timeout.0, attempt.send())
                .await
                .map_err(|_| AgentError::Timeout { address })?
                .map_err(|source| AgentError::Unreachable {
                    address,
                    source: source.without_url(),
                })?;
            match next {
                // During the overlap, the agent may not have read its new token yet.
                Some(next) if answer.status() == StatusCode::UNAUTHORIZED => request = next,
                _ => break answer,
            }
        };
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

/// The root cause, with advice where the cause is known.
fn root(error: &reqwest::Error) -> String {
    let text = innermost(error).to_string();
    if text.contains("UnknownIssuer") {
        return format!("{text}; is its ca_file a copy of this controller's ca.pem?");
    }
    text
}

/// The protocols to try, in order. While TLS is not required, workers migrate to it one by one.
fn addresses(tls: Mode, socket: SocketAddr) -> (AgentAddress, Option<AgentAddress>) {
    let address = |tls| AgentAddress { socket, tls };
    match tls {
        _ if socket.ip().to_canonical().is_loopback() => (address(false), None),
        Mode::On => (address(true), None),
        Mode::Off => (address(false), Some(address(true))),
    }
}

/// The agent's error body, if it is well-formed and short.
async fn refusal(mut answer: Response, max_wait: Duration) -> ErrorBody {
    let text = read_bounded(&mut answer, max_wait).await;
    serde_json::from_slice(&text)
        .unwrap_or_else(|_| ErrorBody::new("agent_refused", "without a reason"))
}

/// Maximum length of the list of a service's removed processes: thousands of them.
const MAX_KEPT_LIST_BYTES: usize = 1 << 20;

/// The part of a short answer that arrives in time; more than the limit if it is too long.
async fn read_bounded(answer: &mut Response, max_wait: Duration) -> Vec<u8> {
    read_at_most(answer, 16 << 10, max_wait).await
}

async fn read_at_most(answer: &mut Response, max_bytes: usize, max_wait: Duration) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > max_bytes {
                break;
            }
        }
    };
    if tokio::time::timeout(max_wait, read).await.is_err() {
        tracing::debug!("an agent's answer did not end in time");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_sent_to_other_machines_over_tls_only_unless_configured_otherwise() {
        let tried = |tls, socket: &str| {
            let (first, fallback) = addresses(tls, socket.parse().unwrap());
            [Some(first), fallback].map(|one| one.map_or_else(String::new, |one| one.to_string()))
        };
        let there = "10.0.0.11:7071";
        assert_eq!(tried(Mode::On, there), ["https://10.0.0.11:7071", ""]);
        assert_eq!(
            tried(Mode::Off, there),
            ["http://10.0.0.11:7071", "https://10.0.0.11:7071"]
        );
        for tls in [Mode::On, Mode::Off] {
            assert_eq!(
                tried(tls, "127.0.0.11:7071"),
                ["http://127.0.0.11:7071", ""]
            );
            assert_eq!(tried(tls, "[::1]:7071"), ["http://[::1]:7071", ""]);
        }
    }
}
