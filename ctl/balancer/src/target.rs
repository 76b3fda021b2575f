//! A request's target: its host and path, validated (RFC 9112, sections 3.2 and 3.3).

use hyper::{
    Method, Request, Uri, Version,
    header::{HOST, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
};

/// The longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 255;

/// A request's validated target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host: lower case, without port and final dot.
    pub host: String,
    /// `Host` as forwarded to the process.
    pub host_header: HeaderValue,
    /// The request target as forwarded to the process: in origin form, or `*`.
    pub uri: Uri,
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

impl Target {
    /// Reads and validates the target of `request`.
    pub fn of<B>(request: &Request<B>) -> Result<Self, BadTarget> {
        let header = host_header(request)?;
        let uri = request.uri();
        let has_authority = uri.authority().is_some();
        if header.is_none() && !(request.version() == Version::HTTP_10 && has_authority) {
            return Err(BadTarget::NoHost);
        }
        // An absolute target overrides `Host`, which is then replaced (RFC 9112, section 3.2.2).
        let host_header = match (uri.scheme(), uri.authority()) {
            (None, None) => header.ok_or(BadTarget::NoHost)?.clone(),
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => {
                HeaderValue::from_str(authority.as_str()).map_err(|_| BadTarget::MalformedHost)?
            }
            _ => return Err(BadTarget::MalformedTarget),
        };
        Ok(Self {
            host: host_name(&host_header)?,
            host_header,
            uri: origin_form(request.method(), uri)?,
        })
    }

    /// The path by which the service is chosen.
    pub fn path(&self) -> &str {
        self.uri.path()
    }
}

/// HTTP/1.0 knows no `Host`; there, an absolute target may replace it.
fn host_header<B>(request: &Request<B>) -> Result<Option<&HeaderValue>, BadTarget> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    match hosts.next() {
        None => Ok(host),
        Some(_) => Err(BadTarget::SeveralHosts),
    }
}

fn host_name(header: &HeaderValue) -> Result<String, BadTarget> {
    let malformed = BadTarget::MalformedHost;
    let text = header.to_str().map_err(|_| malformed)?;
    if text.contains('@') || text.len() > HOST_BYTES_MAX + ":65535".len() {
        return Err(malformed);
    }
    let authority: Authority = text.parse().map_err(|_| malformed)?;
    let port = text[authority.host().len()..].strip_prefix(':');
    let port_is_valid = port.is_none_or(|port| port.is_empty() || authority.port_u16().is_some());
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    let has_empty_label = host.split('.').any(str::is_empty);
    if has_empty_label || !port_is_valid || !host.bytes().all(is_host_byte) {
        return Err(malformed);
    }
    Ok(host.to_ascii_lowercase())
}

/// Host names, IPv4 addresses and IPv6 addresses in brackets; some names contain `_`.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte)
}

fn origin_form(method: &Method, uri: &Uri) -> Result<Uri, BadTarget> {
    let path = match uri.path_and_query() {
        Some(path) if path.as_str() == "*" && method != Method::OPTIONS => {
            return Err(BadTarget::MalformedTarget);
        }
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    Ok(Uri::from(path))
}

#[cfg(test)]
mod tests;
