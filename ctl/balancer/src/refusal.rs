//! The balancer's own responses: a status and one line with the reason, without internal details.

use bytesize::ByteSize;
use hyper::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use tucano_api::ids::ServiceName;

use crate::{
    client::framing::Malformed, headers::BadHeader, request_body::BodyFailure,
    response_body::ResponseBody, target::BadTarget, waiting::WaitingLimit,
};

/// Why a request got no response from a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It violates the protocol.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Its target is invalid.
    #[error("{0}")]
    Target(#[from] BadTarget),
    /// Its headers cannot be forwarded.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// Its client's address has too many connections.
    #[error("too many connections from this address (--max-connections-per-address)")]
    TooManyConnections,
    /// CONNECT.
    #[error("CONNECT is not supported: this is not a forward proxy")]
    Connect,
    /// An expectation other than 100-continue.
    #[error("the only supported expectation is 100-continue")]
    Expectation,
    /// Its body is incomplete.
    #[error("{0}")]
    Body(BodyFailure),
    /// No route table has been received yet.
    #[error("the balancer has no routes yet")]
    NoRoutes,
    /// No service has this host and path.
    #[error("no service for host {0} and this path")]
    UnknownService(String),
    /// The service has no endpoint.
    #[error("service {0} has no healthy process")]
    NoEndpoint(ServiceName),
    /// No process, and no room to wait for one.
    #[error("service {0} has no healthy process, and too many requests wait already ({1})")]
    NoRoomToWait(ServiceName, WaitingLimit),
    /// The client is gone.
    #[error("the client has closed its connection")]
    ClientGone,
    /// This machine is out of descriptors or ports.
    #[error("the balancer has no connections left, try again later")]
    Exhausted,
    /// No process accepted a connection.
    #[error("no process of service {0} accepts connections")]
    Unreachable(ServiceName),
    /// The connection failed before a response.
    #[error("the process of service {0} closed the connection before it answered")]
    ConnectionBroken(ServiceName),
    /// The response head exceeds a limit.
    #[error(
        "the process of service {0} sent a response head of more than {1} (--head-bytes) or {2} headers (--max-headers)"
    )]
    ResponseTooLarge(ServiceName, ByteSize, usize),
    /// The process sent too many interim responses.
    #[error(
        "the process of service {0} sent more than {1} interim responses (--max-interim-responses)"
    )]
    TooManyInterim(ServiceName, usize),
    /// The response is not valid HTTP, or not safe to forward.
    #[error("the process of service {0} sent an invalid response")]
    InvalidResponse(ServiceName),
    /// The process or its node was lost while the request was in flight.
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
            Self::Target(_) | Self::Header(_) | Self::ClientGone => StatusCode::BAD_REQUEST,
            Self::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Body(BodyFailure::Stalled | BodyFailure::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::UnknownService(_) => StatusCode::NOT_FOUND,
            Self::NoRoutes | Self::NoEndpoint(_) | Self::NoRoomToWait(..) | Self::Exhausted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::ResponseTooLarge(..)
            | Self::TooManyInterim(..)
            | Self::Unreachable(_)
            | Self::ConnectionBroken(_)
            | Self::InvalidResponse(_)
            | Self::Lost(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the same request may succeed a little later, and has not reached a process or may be repeated.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NoEndpoint(_) | Self::Unreachable(_) | Self::Lost(_) | Self::ConnectionBroken(_)
        )
    }

    /// Whether client and balancer may disagree about the state of the connection.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Target(_)
                | Self::Header(_)
                | Self::TooManyConnections
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
