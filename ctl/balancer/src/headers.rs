//! Which headers are forwarded, in both directions (RFC 9110, section 7.6; RFC 9112, section 9).

use std::{fmt::Write, net::IpAddr};

use bytes::Bytes;
use hyper::{
    HeaderMap,
    body::Frame,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
        SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use crate::client::fields::{HIDDEN_EXPECT, decimal};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Hop-by-hop headers: never forwarded.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    UPGRADE,
];

/// A header that makes the whole message unacceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// `Connection` is not a list of header names.
    #[error("the Connection header is malformed")]
    Connection,
    /// `Connection` names a header that frames or routes the message.
    #[error("the Connection header names {0}, which is not a hop-by-hop header")]
    ConnectionNames(HeaderName),
    /// The message's length is stated twice, or in an unknown way.
    #[error("the message's length is ambiguous")]
    Length,
}

/// An expectation other than `100-continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherExpectation;

/// The origin of a request, for `X-Forwarded-*`.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The requested host.
    pub host: &'a HeaderValue,
    /// Whether the client's own `X-Forwarded-*` headers are trusted.
    pub trust: bool,
}

/// Removes a request's hop-by-hop headers. Returns the protocol that the client wants to upgrade to.
pub fn strip_request(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, BadHeader> {
    let upgrade = headers.get(UPGRADE).cloned();
    let wants_upgrade = connection_lists(headers, "upgrade");
    let takes_trailers = te_lists_trailers(headers);
    strip_hop_by_hop(headers)?;
    headers.remove(HIDDEN_EXPECT);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(upgrade.filter(|_| wants_upgrade))
}

/// Validates a response's length and removes its hop-by-hop headers.
pub fn strip_response(headers: &mut HeaderMap) -> Result<(), BadHeader> {
    check_length(headers)?;
    strip_hop_by_hop(headers)
}

/// The headers of an interim response that are forwarded.
pub fn strip_interim(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(CONTENT_LENGTH);
    // With a malformed Connection header nothing can be said about the others.
    if strip_hop_by_hop(&mut headers).is_err() {
        headers.clear();
    }
    headers
}

/// Whether a client waits for `100 Continue`; an error for any other expectation.
pub fn expects_continue(headers: &HeaderMap) -> Result<bool, OtherExpectation> {
    let expectations = headers.get_all(HIDDEN_EXPECT).iter();
    let mut expects = false;
    for value in expectations {
        if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(OtherExpectation);
        }
        expects = true;
    }
    Ok(expects)
}

/// Sets `X-Forwarded-*`.
pub fn add_forwarded(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    let chain = forwarded_for(headers, forwarded);
    remove_untrusted(headers, forwarded.trust);
    headers.insert(X_FORWARDED_FOR, chain);
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    headers
        .entry(X_FORWARDED_HOST)
        .or_insert_with(|| forwarded.host.clone());
}

/// Sets the headers of an upgrade, in a request or in a response.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Filters a body's frame: removes trailers that would change a message's framing, routing or
/// authorisation if they were merged into its headers (RFC 9110, section 6.5.1).
pub fn safe_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            drop_unsafe_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

fn drop_unsafe_trailers(trailers: &mut HeaderMap) {
    let unsafe_names = [
        AUTHORIZATION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        SET_COOKIE,
        TRAILER,
        TRANSFER_ENCODING,
        FORWARDED,
        X_REAL_IP,
    ];
    for name in unsafe_names.iter().chain(&HOP_BY_HOP) {
        trailers.remove(name);
    }
    remove_where(trailers, is_forwarding_header);
}

fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), BadHeader> {
    for name in connection_names(headers)? {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // Each side has its own framing.
    headers.remove(TRANSFER_ENCODING);
    Ok(())
}

/// The headers that `Connection` names.
fn connection_names(headers: &HeaderMap) -> Result<Vec<HeaderName>, BadHeader> {
    let mut names = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let value = value.to_str().map_err(|_| BadHeader::Connection)?;
        for token in value.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let name =
                HeaderName::from_bytes(token.as_bytes()).map_err(|_| BadHeader::Connection)?;
            if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                return Err(BadHeader::ConnectionNames(name));
            }
            names.push(name);
        }
    }
    Ok(names)
}

fn connection_lists(headers: &HeaderMap, token: &str) -> bool {
    lists(headers, &CONNECTION, token)
}

fn te_lists_trailers(headers: &HeaderMap) -> bool {
    lists(headers, &TE, "trailers")
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// Accepts `Transfer-Encoding: chunked`, one length, or neither. A length repeated with the same value is
/// reduced to one.
fn check_length(headers: &mut HeaderMap) -> Result<(), BadHeader> {
    let is_chunked = is_chunked(headers)?;
    let Some(length) = content_length(headers)? else {
        return Ok(());
    };
    if is_chunked {
        return Err(BadHeader::Length);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}

fn is_chunked(headers: &HeaderMap) -> Result<bool, BadHeader> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(BadHeader::Length),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, BadHeader> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for number in value.as_bytes().split(|byte| *byte == b',') {
            let number = decimal(number.trim_ascii()).ok_or(BadHeader::Length)?;
            if length.replace(number).is_some_and(|other| other != number) {
                return Err(BadHeader::Length);
            }
        }
    }
    Ok(length)
}

/// The client's address, appended to the trusted chain if there is one.
fn forwarded_for(headers: &HeaderMap, forwarded: Forwarded<'_>) -> HeaderValue {
    let mut chain = String::new();
    if forwarded.trust {
        let earlier = headers.get_all(X_FORWARDED_FOR).iter();
        for value in earlier.filter_map(|value| value.to_str().ok()) {
            chain.push_str(value);
            chain.push_str(", ");
        }
    }
    let client = forwarded.client.to_canonical();
    // Writing to a String cannot fail, and its content consists of header values.
    if write!(chain, "{client}").is_err() {
        chain.clear();
    }
    HeaderValue::try_from(chain).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Removes forwarding headers that are not trusted.
fn remove_untrusted(headers: &mut HeaderMap, trust: bool) {
    headers.remove(FORWARDED);
    if !trust {
        headers.remove(X_REAL_IP);
        remove_where(headers, is_forwarding_header);
    } else {
        // CGI-like servers read `_` as `-`: such a name could shadow the trusted header.
        remove_where(headers, |name| {
            name.contains('_') && is_forwarding_header(name)
        });
    }
}

/// Whether a process may read the header as a forwarding header: `X-Forwarded-*`, also written with `_`.
fn is_forwarding_header(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}
