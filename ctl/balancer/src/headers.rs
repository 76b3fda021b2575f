//! Which headers are passed on, in both directions (RFC 9110, section 7.6; RFC 9112, section 9).

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

use crate::client::framing::decimal;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Always about one connection only.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    UPGRADE,
];

/// A header that must not be passed on, nor the message with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// `Connection` holds something else than header names.
    #[error("the Connection header is malformed")]
    Connection,
    /// `Connection` would have a header removed that says where the message ends or goes.
    #[error("the Connection header names {0}, which concerns more than one connection")]
    ConnectionNames(HeaderName),
    /// The message's length is stated in two ways, or in an unknown one.
    #[error("the message's length is ambiguous")]
    Length,
}

/// Who a request came from, for `X-Forwarded-*`.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The host that the client asked for.
    pub host: &'a HeaderValue,
    /// Whether what the client says of those before it is believed.
    pub trust: bool,
}

/// Removes from a request what concerns only the client's connection. Gives the protocol that the client
/// wants to change to.
pub fn strip_request(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, BadHeader> {
    let upgrade = headers.get(UPGRADE).cloned();
    let wants_upgrade = connection_lists(headers, "upgrade");
    let takes_trailers = te_lists_trailers(headers);
    strip_hop_by_hop(headers)?;
    // Its only expectation, 100-continue, is met by the balancer when the process reads the body.
    headers.remove(EXPECT);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(upgrade.filter(|_| wants_upgrade))
}

/// Removes from a response what concerns only the process's connection.
pub fn strip_response(headers: &mut HeaderMap) -> Result<(), BadHeader> {
    check_length(headers)?;
    strip_hop_by_hop(headers)
}

/// Says in the request's headers who sent it.
pub fn add_forwarded(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    let chain = forwarded_for(headers, forwarded);
    remove_claims(headers, forwarded.trust);
    headers.insert(X_FORWARDED_FOR, chain);
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    headers
        .entry(X_FORWARDED_HOST)
        .or_insert_with(|| forwarded.host.clone());
}

/// Asks the process to change to another protocol, in a request or in a response to the client.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Passes a frame of a body on. From trailers it removes those that would change how the message is framed,
/// routed or authorised, were they merged into its headers (RFC 9110, section 6.5.1).
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
    remove_where(trailers, claims_origin);
}

fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), BadHeader> {
    for name in connection_names(headers)? {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // The body has its own framing on each side.
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

/// Either `Transfer-Encoding: chunked` or one length, which may be repeated, or neither. A repeated length is
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

/// The client, after those before it if they are believed.
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
    // Writing to a String cannot fail, and all in it came out of header values.
    if write!(chain, "{client}").is_err() {
        chain.clear();
    }
    HeaderValue::try_from(chain).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Removes what the client says of where it comes from.
fn remove_claims(headers: &mut HeaderMap, trust: bool) {
    headers.remove(FORWARDED);
    if !trust {
        headers.remove(X_REAL_IP);
        remove_where(headers, claims_origin);
    } else {
        // CGI-like servers take `_` for `-`: such names could stand beside the true ones.
        remove_where(headers, |name| name.contains('_') && claims_origin(name));
    }
}

/// Whether a process may take the header for one of ours: `X-Forwarded-*`, also written with `_`.
fn claims_origin(name: &str) -> bool {
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
