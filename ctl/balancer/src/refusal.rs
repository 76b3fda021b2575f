//! Answers of the balancer's own: a status and one line that says why, without anything internal.

use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use tucano_api::ids::ServiceName;

use crate::{
    client::framing::Malformed, headers::BadHeader, request_body::BodyFailure,
    response_body::ResponseBody, target::BadTarget,
};

/// Why a request got no answer from a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It breaks the protocol.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// It does not say where it goes.
    #[error("{0}")]
    Target(#[from] BadTarget),
    /// Its headers cannot be passed on.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// CONNECT.
    #[error("this is no forward proxy: CONNECT is not possible")]
    Connect,
    /// An expectation other than 100-continue.
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    /// Its body did not come to its end.
    #[error("{0}")]
    Body(BodyFailure),
    /// The balancer has never seen a route table.
    #[error("the balancer has no routes yet")]
    NoRoutes,
    /// No service has this host and path.
    #[error("no service for host {0} and this path")]
    Unknown(String),
    /// The service has no process that may get requests.
    #[error("service {0} has no healthy process")]
    Down(ServiceName),
    /// This machine is at its limit of open files or ports.
    #[error("the balancer has no connections left, try again later")]
    Exhausted,
    /// No process accepted a connection.
    #[error("no process of service {0} accepts connections")]
    Unreachable(ServiceName),
    /// The connection broke.
    #[error("the process of service {0} closed the connection before it answered")]
    BrokenOff(ServiceName),
    /// What came back is not HTTP, or not safe to pass on.
    #[error("the process of service {0} gave an invalid response")]
    Invalid(ServiceName),
    /// The process, or its node, was lost while the request waited for its answer.
    #[error("the process of service {0} was lost before it answered")]
    Lost(ServiceName),
    /// No response head in time.
    #[error("the process of service {0} did not answer in time")]
    TimedOut(ServiceName),
}

impl Refusal {
    /// The response's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(malformed) => malformed.status(),
            Self::Target(_) | Self::Header(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Body(BodyFailure::Stalled) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::NoRoutes | Self::Down(_) | Self::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable(_) | Self::BrokenOff(_) | Self::Invalid(_) | Self::Lost(_) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    /// Whether the client's connection may be in a state that the two sides see differently.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Target(_)
                | Self::Header(_)
                | Self::Connect
                | Self::Expectation
                | Self::Body(_)
        )
    }
}

impl From<Refusal> for Response<ResponseBody> {
    fn from(refusal: Refusal) -> Self {
        let mut response = Self::new(ResponseBody::text(format!("{refusal}\n")));
        *response.status_mut() = refusal.status();
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, plain);
        if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if refusal.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
