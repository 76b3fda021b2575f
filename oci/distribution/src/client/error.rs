//! Why an image cannot be had from a registry, or not be brought to it.

use std::{error::Error as _, time::Duration};

use reqwest::{Response, StatusCode};
use serde::Deserialize;

/// Most of an error's text that is shown.
const SHOWN: usize = 300;
/// Most of an error's body that is read, in bytes.
const BODY_BYTES: usize = 64 << 10;

/// Why something did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address, or what belongs to it, cannot be used.
    #[error("the registry {base} cannot be used: {reason}")]
    Unusable {
        /// As it was given.
        base: String,
        /// Why.
        reason: String,
    },
    /// No connection.
    #[error("cannot reach the registry {host}: {reason}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// No secure connection.
    #[error(
        "cannot speak TLS with the registry {host}: {reason}: is it the right one, does it speak TLS at all, and is its certificate signed by an authority that is known here?"
    )]
    Tls {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// The registry wants to know who we are.
    #[error("the registry {host} refuses us: {reason}: check its credentials")]
    Unauthorized {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// It is not there.
    #[error("the registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was looked for.
        what: String,
    },
    /// Another answer than the one that was hoped for.
    #[error("the registry {host} answered with status {status} to {what}{message}")]
    Refused {
        /// The registry.
        host: String,
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
        /// What it said, after a colon; empty where it said nothing.
        message: String,
    },
    /// A transfer ended early.
    #[error("the transfer of {what} from or to {host} broke off: {reason}")]
    BrokeOff {
        /// The registry.
        host: String,
        /// What was transferred.
        what: String,
        /// Why.
        reason: String,
    },
    /// What came is not what was asked for.
    #[error("{host} gave {what} with the digest {actual}, not {expected}")]
    WrongDigest {
        /// The registry.
        host: String,
        /// What it should have been.
        what: String,
        /// What was asked for.
        expected: String,
        /// What came.
        actual: String,
    },
    /// An answer that makes no sense.
    #[error("{host}: {what} makes no sense: {reason}")]
    Malformed {
        /// The registry.
        host: String,
        /// What was read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than there may be.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// More time than there is.
    #[error("{what} did not come within {after:?}")]
    TooLong {
        /// What was pulled.
        what: String,
        /// The bound.
        after: Duration,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] tucano_oci_image::Error),
    /// What is to be sent cannot be read.
    #[error("cannot read what is to be sent: {0}")]
    Read(#[source] std::io::Error),
    /// Work on a thread of its own failed.
    #[error("the transfer failed: {0}")]
    Failed(String),
}

impl Error {
    /// Whether another try may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BrokeOff { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || [408, 429].contains(status),
            _ => false,
        }
    }

    /// Of a request that got no answer.
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

    /// Of an answer that is none of the good ones; `what` was asked for.
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

/// What an error's body says, as the specification words it, after a colon.
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

/// The cause of all causes: the outermost says little.
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
        // An `io::Error` hides what it was made of: its own source is that of its content.
        let within = inner.downcast_ref::<std::io::Error>();
        cause = match within.and_then(std::io::Error::get_ref) {
            Some(content) => Some(content),
            None => inner.source(),
        };
    }
    false
}
