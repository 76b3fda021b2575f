//! The balancer's own responses: a status and one line with the reason, without internal details.

use bytesize::ByteSize;
use tucano_api::ids::ServiceName;

use super::{retry::BodyFailure, target::BadTarget, waiting::WaitingLimit};
use crate::http1::{
    date::DATE_LEN,
    edit::{Persistence, write_status},
    fields::write_line,
    options::BadConnection,
    request::Malformed,
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
    Connection(#[from] BadConnection),
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
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(malformed) => malformed.status(),
            Self::Target(_) | Self::Connection(_) | Self::ClientGone => 400,
            Self::TooManyConnections => 429,
            Self::Connect => 405,
            Self::Expectation => 417,
            Self::Body(BodyFailure::Stalled | BodyFailure::TooSlow) => 408,
            Self::Body(_) => 400,
            Self::UnknownService(_) => 404,
            Self::NoRoutes | Self::NoEndpoint(_) | Self::NoRoomToWait(..) | Self::Exhausted => 503,
            Self::TimedOut(_) => 504,
            Self::ResponseTooLarge(..)
            | Self::TooManyInterim(..)
            | Self::Unreachable(_)
            | Self::ConnectionBroken(_)
            | Self::InvalidResponse(_)
            | Self::Lost(_) => 502,
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
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::Target(_)
                | Self::Connection(_)
                | Self::TooManyConnections
                | Self::Connect
                | Self::Expectation
                | Self::Body(_)
        )
    }
}

/// To whom a refusal is written.
#[derive(Debug, Clone, Copy)]
pub struct Recipient {
    /// Whether it speaks HTTP/1.1, not 1.0.
    pub is_http_11: bool,
    /// Whether its request was HEAD.
    pub is_head: bool,
}

impl Refusal {
    /// Appends the response.
    pub fn write(
        &self,
        to: &mut Vec<u8>,
        recipient: Recipient,
        connection: Persistence,
        date: &[u8; DATE_LEN],
    ) {
        let status = self.status();
        let text = format!("{self}\n");
        write_status(to, recipient.is_http_11, status, reason(status).as_bytes());
        write_line(to, b"content-type", b"text/plain; charset=utf-8");
        if status == 503 {
            write_line(to, b"retry-after", b"1");
        }
        write_line(to, b"content-length", text.len().to_string().as_bytes());
        write_line(to, b"date", date);
        to.extend_from_slice(connection.line());
        to.extend_from_slice(b"\r\n");
        if !recipient.is_head {
            to.extend_from_slice(text.as_bytes());
        }
    }
}

/// RFC 9110, section 15, and RFC 6585.
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Bad Gateway",
    }
}
