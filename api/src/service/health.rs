//! How a process is found healthy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::units::Span;

/// How a process is found healthy. At most one of `http`, `tcp`, `exec`. When none is given, a TCP connect; a process without TCP
/// ports is healthy while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path of a GET request that must answer with a status below 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// `Host` of that request: the first of the service's `hosts` when absent, else the process's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further headers of that request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Port of the HTTP request or of the TCP connect: the port of requests when absent, else the first one with TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A TCP connect to `port` must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// A command that must exit with 0 inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Time between two probes.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// A probe that takes longer has failed.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a process may take to answer its first probe before it is restarted; and how long a
    /// once healthy one may go on failing.
    #[serde(default = "default_grace")]
    pub grace: Span,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            http: None,
            host: None,
            headers: BTreeMap::new(),
            port: None,
            tcp: None,
            exec: None,
            interval: default_interval(),
            timeout: default_timeout(),
            grace: default_grace(),
        }
    }
}

/// The one probe that a [`Health`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<'a> {
    /// GET this path.
    Http(&'a str),
    /// Connect to the port.
    Tcp,
    /// Run this command inside the container.
    Exec(&'a [String]),
}

impl Health {
    /// The probe to run.
    pub fn probe(&self) -> Probe<'_> {
        match (&self.http, &self.exec) {
            (Some(path), _) => Probe::Http(path),
            (None, Some(command)) => Probe::Exec(command),
            (None, None) => Probe::Tcp,
        }
    }
}

fn default_interval() -> Span {
    Span::secs(1)
}
fn default_timeout() -> Span {
    Span::secs(1)
}
fn default_grace() -> Span {
    Span::secs(30)
}
