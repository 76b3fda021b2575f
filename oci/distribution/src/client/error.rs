//! Errors of pulls and pushes.

use std::{error::Error as _, time::Duration};

use reqwest::{Response, StatusCode};
use serde::Deserialize;

/// Longest text of an error, in bytes.
const SHOWN: usize = 300;
/// Largest error body that is read, in bytes.
const BODY_BYTES: usize = 64 << 10;

/// Why a pull or push failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid options.
    #[error("the registry {base} cannot be used: {reason}")]
    Unusable {
        /// The address.
        base: String,
        /// Why.
        reason: String,
    },
    /// The connection failed.
    #[error("cannot reach the registry {host}: {reason}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error(
        "cannot speak TLS with the registry {host}: {reason}: check its address, that it uses TLS, and that its certificate authority is trusted here"
    )]
    Tls {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// The registry requires other credentials.
    #[error("the registry {host} refuses access: {reason}: check the credentials")]
    Unauthorized {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// Not found.
    #[error("the registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was requested.
        what: String,
    },
    /// An unexpected status.
    #[error("the registry {host} answered with status {status} to {what}{message}")]
    Refused {
        /// The registry.
        host: String,
        /// The request.
        what: String,
        /// The status.
        status: u16,
        /// The registry's message after a colon, or empty.
        message: String,
    },
    /// A transfer ended early.
    #[error("the transfer of {what} from or to {host} broke off: {reason}")]
    BrokeOff {
        /// The registry.
        host: String,
        /// The content.
        what: String,
        /// Why.
        reason: String,
    },
    /// The content does not match the requested digest.
    #[error("{host} sent {what} with the digest {actual}, not {expected}")]
    WrongDigest {
        /// The registry.
        host: String,
        /// The content.
        what: String,
        /// The requested digest.
        expected: String,
        /// The actual digest.
        actual: String,
    },
    /// A malformed answer.
    #[error("{host}: {what} is malformed: {reason}")]
    Malformed {
        /// The registry.
        host: String,
        /// The answer.
        what: String,
        /// The reason.
        reason: String,
    },
    /// A limit is exceeded.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The time limit is exceeded.
    #[error("{what} was not received within {after:?}")]
    TooLong {
        /// The content.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] tucano_oci_image::Error),
    /// The blob to push cannot be read.
    #[error("cannot read the blob to push: {0}")]
    Read(#[source] std::io::Error),
    /// Blocking work failed.
    #[error("the transfer failed: {0}")]
    Failed(String),
}

impl Error {
    /// Whether a retry may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BrokeOff { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || [408, 429].contains(status),
            _ => false,
        }
    }

    /// The error of a request without an answer.
    pub(super) fn unsent(host: &str, error: &reqwest::Error) -> Self {
        let (host, reason) = (host.to_owned(), innermost(error));
        match (is_tls(error), error.is_connect()) {
            (true, _) => Self::Tls { host, reason },
            (false, true) => Self::Unreachable { host, reason },
            (false, false) => Self::BrokeOff {
                host,
                what: "an answer".to_owned(),
                reason,
            },
        }
    }

    /// The error of an answer with an unexpected status; `what` was requested.
    pub(super) async fn of(host: &str, what: &str, response: Response) -> Self {
        let (host, what) = (host.to_owned(), what.to_owned());
        let status = response.status();
        let said = said(response).await;
        match status {
            StatusCode::NOT_FOUND => Self::NotFound { host, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorized {
                host,
                reason: format!("status {} to {what}{said}", status.as_u16()),
            },
            _ => Self::Refused {
                host,
                what,
                status: status.as_u16(),
                message: said,
            },
        }
    }
}

#[derive(Debug, Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    code: String,
    #[serde(default)]
    message: String,
}

/// The message of a specified error body, after a colon.
async fn said(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_BYTES {
            break;
        }
    }
    let Ok(complaints) = serde_json::from_slice::<Complaints>(&body) else {
        return String::new();
    };
    let first = complaints.errors.into_iter().next();
    first.map_or_else(String::new, |it| {
        let text = format!("{} {}", it.code, it.message);
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        format!(
            ": {}",
            text.chars().take(SHOWN).map(plain).collect::<String>()
        )
    })
}

/// The innermost cause, which says most.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<rustls::Error>() {
            return true;
        }
        // The source of an `io::Error` is that of its inner error, which would be skipped.
        let within = inner.downcast_ref::<std::io::Error>();
        cause = match within.and_then(std::io::Error::get_ref) {
            Some(content) => Some(content),
            None => inner.source(),
        };
    }
    false
}
