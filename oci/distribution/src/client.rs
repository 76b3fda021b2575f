//! The client: pulls images from a registry into a store, and pushes blobs to a registry.
//!
//! - [`Remote`]: a registry and its connection options.
//! - `auth`: answers its challenges, Basic and Bearer with a token service.
//! - `fetch`: one blob, with resumption.
//! - `pull`: an image for a platform.
//! - `push`: missing blobs, sent in pieces.
//!
//! Content is trusted by its digest only. Secrets are sent over TLS, or to a registry that is configured for plain HTTP;
//! they are never part of an error.

mod auth;
mod error;
mod fetch;
mod pull;
mod push;

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};

pub use self::{error::Error, pull::Bounds, push::Blob};

/// Most redirects of one request.
const REDIRECTS: usize = 5;
/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The credentials for a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    #[default]
    Anonymous,
    /// A user with a password, for Basic authentication and for token services.
    User {
        /// The user.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token.
    Token(Secret),
}

/// A registry's address and connection options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its address without `/v2/`, such as `https://registry.example:5000`. Plain HTTP only if it says so.
    pub base: String,
    /// The credentials.
    pub credentials: Credentials,
    /// Additional certificate authorities, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// Whether the additional authorities replace the system's.
    pub only_those: bool,
    /// Longest silence before a transfer counts as broken.
    pub silence: Duration,
    /// Whether to use the proxies of the environment.
    pub proxies: bool,
}

/// A registry's client.
#[derive(Debug)]
pub struct Remote {
    http: reqwest::Client,
    base: Url,
    /// The host and port.
    host: String,
    credentials: Credentials,
    /// Tokens by scope.
    presented: Mutex<HashMap<String, HeaderValue>>,
}

impl Remote {
    /// Does not connect yet.
    ///
    /// # Errors
    /// If the address or a certificate is malformed.
    pub fn new(options: Options) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Unusable {
            base: options.base.clone(),
            reason,
        };
        let base: Url = options
            .base
            .parse()
            .map_err(|error| unusable(format!("{error}")))?;
        if !["http", "https"].contains(&base.scheme()) || !base.has_host() {
            return Err(unusable("it is not an http or https address".to_owned()));
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(options.silence)
            .redirect(redirects(base.scheme() == "https"))
            .user_agent(concat!("tucano/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &options.authorities {
            let authorities = Certificate::from_pem_bundle(pem)
                .map_err(|error| unusable(format!("its certificate authorities: {error}")))?;
            http = match options.only_those {
                true => http.tls_certs_only(authorities),
                false => http.tls_certs_merge(authorities),
            };
        }
        if !options.proxies {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| unusable(error::innermost(&error)))?;
        let port = base
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self {
            http,
            host: format!("{}{port}", base.host_str().unwrap_or_default()),
            base,
            credentials: options.credentials,
            presented: Mutex::default(),
        })
    }

    /// Sends requests with this client, which has its own TLS configuration, instead of one built from the options.
    #[must_use]
    pub fn with_http(mut self, http: reqwest::Client) -> Self {
        self.http = http;
        self
    }

    /// The host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// Sends a request, and repeats it once with credentials after a challenge; `scope` is that of the token.
    async fn send(
        &self,
        scope: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        let known = self.known(scope)?;
        let response = self.attempt(request(), known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let answer = auth::answer(self, scope, &response).await?;
        self.presented().insert(scope.to_owned(), answer.clone());
        let response = self.attempt(request(), Some(answer)).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                self.presented().remove(scope);
                Err(self.unauthorized("it does not accept the credentials"))
            }
            _ => Ok(response),
        }
    }

    async fn attempt(
        &self,
        mut request: RequestBuilder,
        presented: Option<HeaderValue>,
    ) -> Result<Response, Error> {
        if let Some(presented) = presented {
            request = request.header(AUTHORIZATION, presented);
        }
        request
            .send()
            .await
            .map_err(|error| Error::unsent(&self.host, &error))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// The credentials to send without a challenge.
    fn known(&self, scope: &str) -> Result<Option<HeaderValue>, Error> {
        if let Credentials::Token(token) = &self.credentials {
            return auth::bearer(self, token.expose()).map(Some);
        }
        Ok(self.presented().get(scope).cloned())
    }

    fn unauthorized(&self, reason: &str) -> Error {
        Error::Unauthorized {
            host: self.host.clone(),
            reason: reason.to_owned(),
        }
    }

    fn presented(&self) -> MutexGuard<'_, HashMap<String, HeaderValue>> {
        // Each change is a single step, so a panic leaves a consistent map.
        self.presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a limited number of redirects, such as to blob storage, but none from TLS to plain HTTP. Credentials are not
/// sent to another host.
fn redirects(only_tls: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            return attempt.error("too many redirects");
        }
        if only_tls && attempt.url().scheme() != "https" {
            return attempt.error("a redirect from https to http");
        }
        attempt.follow()
    })
}
