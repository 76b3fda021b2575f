//! Host, headers and port of a probe's request.

use super::Health;
use crate::settings::Problem;

/// Largest number of headers of a probe.
const MAX_HEADERS: usize = 32;
/// Longest name of a header, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Longest value of a header, in bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// Headers that the probe sets itself, or that would change how the request is framed.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn request_problems(health: &Health) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, given) in [
        ("health.host", health.host.is_some()),
        ("health.headers", !health.headers.is_empty()),
    ] {
        if given && health.http.is_none() {
            let message = "has no effect without `http`: only HTTP probes send it";
            problems.push(Problem::new(key, message));
        }
    }
    if health.port.is_some() && health.exec.is_some() {
        let message = "has no effect with `exec`: a command connects to no port";
        problems.push(Problem::new("health.port", message));
    }
    if health.port == Some(0) {
        let message = "0 is not a port: write the one that answers probes";
        problems.push(Problem::new("health.port", message));
    }
    problems.extend(health.host.as_deref().and_then(host_problem));
    if health.headers.len() > MAX_HEADERS {
        let message = format!("write at most {MAX_HEADERS} headers");
        problems.push(Problem::new("health.headers", message));
    }
    let headers = health.headers.iter();
    problems.extend(headers.filter_map(|(name, value)| header_problem(name, value)));
    problems
}

/// A host name or an IP address, with or without a port, as in `Host`.
fn host_problem(host: &str) -> Option<Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if (1..=255).contains(&host.len()) && host.bytes().all(plain) {
        return None;
    }
    let message = format!("{host:?} is not a host: write for example \"www.example.org\"");
    Some(Problem::new("health.host", message))
}

/// Values may be secrets: they are not shown.
fn header_problem(name: &str, value: &str) -> Option<Problem> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let problem = |message: String| Some(Problem::new("health.headers", message));
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(token) {
        return problem(format!("{name:?} is not the name of a header"));
    }
    if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        return problem(format!("{name} cannot be set here; `host` sets Host"));
    }
    let printable = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if value.len() > MAX_VALUE_BYTES || !value.bytes().all(printable) {
        return problem(format!(
            "the value of {name} has to be at most {MAX_VALUE_BYTES} printable ASCII characters"
        ));
    }
    None
}
