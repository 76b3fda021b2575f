//! HTTP/1.1 and 1.0 without IO: the one parser of requests and responses, and what is written to the other side.
//!
//! Lenient parsers that differ from each other can be made to see different requests in the same bytes (request
//! smuggling). Requests are parsed strictly: everything that makes a message's length ambiguous is refused (a bare line
//! feed, a repeated length, an unknown transfer coding, a malformed chunk), and what is forwarded is written anew.
//!
//! - [`fields`]: header lines, of heads and trailers; [`options`]: lists in their values
//! - [`request`], [`response`]: heads; [`body`], [`chunks`]: what follows them
//! - [`edit`]: heads as the other side receives them (RFC 9110, section 7.6); [`date`]: the `Date` of a response

pub mod body;
pub mod chunks;
pub mod date;
#[cfg(test)]
mod differential;
pub mod edit;
pub mod fields;
pub mod options;
pub mod request;
pub mod response;
