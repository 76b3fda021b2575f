//! Which failed attempts may be repeated.

use crate::http1::chunks::MalformedChunk;

/// Why an attempt to have a request answered produced no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No byte of the request was sent.
    Unsent,
    /// The connection broke.
    ConnectionBroken,
    /// The response is not valid HTTP.
    Invalid,
    /// The response head exceeds a limit.
    TooLarge,
    /// More interim responses than permitted.
    TooManyInterim,
    /// The process was removed from the route table.
    Lost,
    /// No response head in time.
    TimedOut,
    /// The request's body was not received completely.
    Body(BodyFailure),
    /// The client does not wait for the response any longer.
    ClientGone,
}

/// Why a request's body is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    /// The client paused for longer than permitted.
    #[error("the client stopped sending the request's body (--body-timeout)")]
    Stalled,
    /// The client sends more slowly than permitted.
    #[error("the client sends the request's body too slowly (--body-rate-min)")]
    TooSlow,
    /// The client went away.
    #[error("the request's body was cut off")]
    CutOff,
    /// Its chunks are malformed.
    #[error("the request's body is malformed: {0}")]
    Malformed(#[from] MalformedChunk),
}

/// What a retry depends on, of one request.
#[derive(Debug, Clone, Copy)]
pub struct Repeatable {
    /// Whether its method is idempotent.
    pub is_idempotent: bool,
    /// Whether its body can still be sent from its beginning.
    pub is_body_whole: bool,
    /// How often it has been sent.
    pub sent: usize,
    /// How often it may be.
    pub tries: usize,
}

impl Repeatable {
    /// A retry is permitted if no process can have acted on the request, or if the method is idempotent
    /// (RFC 9110, section 9.2.2), and only while the body can still be sent from its beginning.
    pub fn permits(&self, failure: Failure) -> bool {
        let is_harmless = match failure {
            Failure::Unsent => true,
            Failure::ConnectionBroken | Failure::Lost => self.is_idempotent,
            Failure::Invalid
            | Failure::TooLarge
            | Failure::TooManyInterim
            | Failure::TimedOut
            | Failure::Body(_)
            | Failure::ClientGone => false,
        };
        is_harmless && self.is_body_whole && self.sent < self.tries
    }
}

/// Whether a method is idempotent (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_process_has_acted_on_is_repeated() {
        let request = |is_idempotent, is_body_whole, sent| Repeatable {
            is_idempotent,
            is_body_whole,
            sent,
            tries: 3,
        };
        for failure in [Failure::Unsent, Failure::ConnectionBroken, Failure::Lost] {
            assert!(request(true, true, 2).permits(failure));
            assert!(!request(true, true, 3).permits(failure), "too often");
            assert!(!request(true, false, 1).permits(failure), "body is gone");
            let is_unsent = failure == Failure::Unsent;
            assert_eq!(request(false, true, 1).permits(failure), is_unsent);
        }
        for failure in [Failure::Invalid, Failure::TimedOut, Failure::ClientGone] {
            assert!(!request(true, true, 1).permits(failure));
        }
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert!(is_idempotent(b"GET") && is_idempotent(b"DELETE"));
        assert!(!is_idempotent(b"get") && !is_idempotent(b"POST") && !is_idempotent(b"PATCH"));
    }
}
