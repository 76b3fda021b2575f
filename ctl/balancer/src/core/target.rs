//! A request's target: its host and path, validated (RFC 9112, sections 3.2 and 3.3).

use std::net::Ipv6Addr;

use crate::http1::{
    fields::{Kind, decimal},
    request::RequestParser,
};

/// The longest host name (RFC 1035).
pub const HOST_BYTES_MAX: usize = 255;

/// A request's validated target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The host as it was written: without port and final dot.
    pub host: &'a [u8],
    /// `Host` as forwarded to the process.
    pub host_header: &'a [u8],
    /// The target as forwarded to the process, after [`Self::slash`]: a path with its query, or `*`.
    pub origin_form: &'a [u8],
}

/// A missing, ambiguous or malformed target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// No `Host`.
    #[error("the request has no Host header")]
    NoHost,
    /// More than one `Host`.
    #[error("the request has several Host headers")]
    SeveralHosts,
    /// Not a host name or address with an optional port.
    #[error("the request's host is malformed")]
    MalformedHost,
    /// Neither a path, nor an http URL, nor `*` of OPTIONS.
    #[error("the request's target is neither a path nor an http URL")]
    MalformedTarget,
}

impl<'a> Target<'a> {
    /// Reads and validates the target of the request that `parser` has found in `head`.
    ///
    /// # Errors
    /// It is missing, ambiguous or malformed.
    pub fn of(head: &'a [u8], parser: &RequestParser) -> Result<Self, BadTarget> {
        let line = parser.line();
        let (method, target) = (line.method.of(head), line.target.of(head));
        let header = host_header(head, parser)?;
        let absolute = absolute(target);
        if header.is_none() && (line.is_http_11 || absolute.is_none()) {
            return Err(BadTarget::NoHost);
        }
        // An absolute target overrides `Host`, which is then replaced (RFC 9112, section 3.2.2).
        let (host_header, origin_form) = match (absolute, target) {
            (Some((authority, rest)), _) => (authority, rest),
            (None, b"*") if method == b"OPTIONS" => (header.unwrap_or_default(), target),
            (None, [b'/', ..]) => (header.unwrap_or_default(), target),
            _ => return Err(BadTarget::MalformedTarget),
        };
        Ok(Self {
            host: host_name(host_header)?,
            host_header,
            origin_form,
        })
    }

    /// What [`Self::origin_form`] lacks: an absolute target may have no path.
    pub fn slash(&self) -> &'static [u8] {
        match self.origin_form.first() {
            Some(b'/' | b'*') => b"",
            _ => b"/",
        }
    }
}

/// The path of a target in origin form, without its query.
pub fn path(target: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    &target[..end]
}

/// HTTP/1.0 knows no `Host`; there, an absolute target may replace it.
fn host_header<'a>(head: &'a [u8], parser: &RequestParser) -> Result<Option<&'a [u8]>, BadTarget> {
    let fields = parser.fields().iter();
    let mut hosts = fields.filter(|field| field.kind == Kind::Host);
    let host = hosts.next().map(|field| field.value.of(head));
    match hosts.next() {
        None => Ok(host),
        Some(_) => Err(BadTarget::SeveralHosts),
    }
}

/// Authority and rest of an http URL.
fn absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    const SCHEME: &[u8] = b"http://";
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let end = rest.iter().position(|byte| b"/?".contains(byte));
    Some(rest.split_at(end.unwrap_or(rest.len())))
}

/// The host of `host[:port]`.
fn host_name(header: &[u8]) -> Result<&[u8], BadTarget> {
    let malformed = BadTarget::MalformedHost;
    if header.len() > HOST_BYTES_MAX + ":65535".len() {
        return Err(malformed);
    }
    let host_len = match header.first() {
        Some(b'[') => address_len(header),
        _ => name_len(header),
    };
    let (host, port) = header.split_at(host_len.ok_or(malformed)?);
    match is_port(port) {
        true => Ok(host.strip_suffix(b".").unwrap_or(host)),
        false => Err(malformed),
    }
}

/// Length of the IPv6 address in brackets that `header` begins with.
fn address_len(header: &[u8]) -> Option<usize> {
    let end = header.iter().position(|byte| *byte == b']')?;
    let address = std::str::from_utf8(&header[1..end]).ok()?;
    address.parse::<Ipv6Addr>().ok().map(|_| end + 1)
}

/// Length of the host name or IPv4 address, with its final dot, that `header` consists of before its port. Some names contain
/// `_`.
fn name_len(header: &[u8]) -> Option<usize> {
    let mut label_len = 0;
    let mut has_label = false;
    for (len, byte) in header.iter().enumerate() {
        match byte {
            b'.' if label_len == 0 => return None,
            b'.' => label_len = 0,
            b':' => return has_label.then_some(len),
            byte if byte.is_ascii_alphanumeric() || b"-_".contains(byte) => {
                label_len += 1;
                has_label = true;
            }
            _ => return None,
        }
    }
    has_label.then_some(header.len())
}

/// Nothing, or a colon and perhaps a number.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
