//! What the agent presents to the controller: its node's certificate, or the token until it has one with an identity. And
//! what it accepts from the controller.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, redirect::Policy};
use subtle::ConstantTimeEq;
use tucano_tls::{Certificates, Trust};

use crate::settings::{Settings, Token};

/// Interval at which the token's file is read again.
const REREAD: Duration = Duration::from_secs(1);

/// The agent's credentials, shared by everything that speaks to the controller.
#[derive(Debug)]
pub struct Credentials {
    trust: Option<Trust>,
    certificates: Arc<Certificates>,
    token: AgentToken,
    /// Whether connections to the controller are TLS, and present the certificate.
    is_tls: bool,
}

impl Credentials {
    /// Of these settings, without a certificate yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            trust: settings.trust.clone(),
            certificates: Arc::default(),
            token: AgentToken::new(settings),
            is_tls: settings.controller.starts_with("https:"),
        }
    }

    /// The authority's certificate.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The agent's own certificate.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// The token shared with the controller.
    pub fn token(&self) -> &AgentToken {
        &self.token
    }

    /// Whether the certificate has an identity: then the controller has one as well, and the token is for enrolment only.
    pub fn has_identity(&self) -> bool {
        let leaf = self.certificates.current();
        leaf.is_some_and(|leaf| leaf.identity().is_some())
    }

    /// Whether the controller must present its certificate. Without the authority's certificate it could not be verified.
    pub fn requires_controller_identity(&self) -> bool {
        self.trust.is_some() && self.has_identity()
    }

    /// Whether requests to the controller present an identity, and need no token.
    pub fn presents_identity(&self) -> bool {
        self.is_tls && self.has_identity()
    }

    /// A client for requests to the controller that presents the current certificate.
    ///
    /// # Errors
    /// The authority's certificate is not usable.
    pub fn client(&self) -> Result<ClientBuilder, tucano_tls::Error> {
        self.client_with(Arc::clone(&self.certificates))
    }

    /// A client that presents no certificate.
    ///
    /// # Errors
    /// As [`Credentials::client`].
    pub fn anonymous_client(&self) -> Result<ClientBuilder, tucano_tls::Error> {
        self.client_with(Arc::default())
    }

    fn client_with(&self, own: Arc<Certificates>) -> Result<ClientBuilder, tucano_tls::Error> {
        let client = Client::builder().redirect(Policy::none()).no_proxy();
        Ok(match &self.trust {
            Some(trust) => client.tls_backend_preconfigured(trust.client_config(own)?),
            None => client,
        })
    }

    /// Sends a request, with the token unless it presents an identity.
    ///
    /// # Errors
    /// The controller cannot be reached.
    pub async fn send(&self, request: impl Fn() -> RequestBuilder) -> reqwest::Result<Response> {
        if self.presents_identity() {
            return request().send().await;
        }
        self.token.send(request).await
    }
}

/// The token shared with the controller. Its file is read again, so that it can be replaced while the agent runs; the
/// previous token is valid for a while, so that controller and agents need not change at the same moment.
pub struct AgentToken {
    file: Option<PathBuf>,
    overlap: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Token>,
    previous: Option<(Token, Instant)>,
    read_at: Option<Instant>,
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken(redacted)")
    }
}

impl AgentToken {
    /// The token of these settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            file: settings.token_file.clone(),
            overlap: settings.token_overlap.0,
            state: Mutex::new(State {
                current: settings.token.clone(),
                ..State::default()
            }),
        }
    }

    /// The current token and, during the overlap, the previous one.
    pub fn valid(&self) -> Vec<Token> {
        let mut state = self.state();
        self.reread(&mut state);
        if let Some((_, since)) = &state.previous
            && since.elapsed() > self.overlap
        {
            state.previous = None;
        }
        let previous = state.previous.as_ref().map(|(token, _)| token);
        state.current.iter().chain(previous).cloned().collect()
    }

    /// Whether a token is configured at all.
    pub fn is_configured(&self) -> bool {
        self.state().current.is_some()
    }

    /// Compares with the valid tokens, in constant time.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let valid = self.valid();
        let equal = |token: &Token| bool::from(presented.ct_eq(token.reveal().as_bytes()));
        valid.iter().filter(|token| equal(token)).count() > 0
    }

    /// Sends a request with each valid token until one is accepted.
    ///
    /// # Errors
    /// The controller cannot be reached.
    pub async fn send(&self, request: impl Fn() -> RequestBuilder) -> reqwest::Result<Response> {
        let mut tokens = self.valid().into_iter();
        loop {
            let token = tokens.next();
            let attempt = match &token {
                Some(token) => request().bearer_auth(token.reveal()),
                None => request(),
            };
            let response = attempt.send().await?;
            if response.status() != StatusCode::UNAUTHORIZED || tokens.len() == 0 {
                return Ok(response);
            }
        }
    }

    /// A file that cannot be read, or is empty, changes nothing: it may be being replaced.
    fn reread(&self, state: &mut State) {
        let is_due = state.read_at.is_none_or(|at| at.elapsed() >= REREAD);
        let Some(file) = self.file.as_ref().filter(|_| is_due) else {
            return;
        };
        state.read_at = Some(Instant::now());
        let text = fs::read_to_string(file).unwrap_or_default();
        let new = Token::from(text.trim());
        if text.trim().is_empty() || state.current.as_ref() == Some(&new) {
            return;
        }
        tracing::info!(file = %file.display(), "the agent's token has changed");
        let old = state.current.replace(new);
        state.previous = old.map(|old| (old, Instant::now()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
