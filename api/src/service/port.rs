//! Named ports of a service's processes.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use super::{ServiceConfig, validate::length_problem};
use crate::{ids::PortName, settings::Problem};

/// Most named ports of one service.
pub const MAX_PORTS: usize = 64;
/// Name of the port that `port` is short for, and of the one that the balancer routes requests to.
pub const HTTP: &str = "http";

/// The named ports of a service.
pub type Ports = BTreeMap<PortName, Port>;

/// A port on which each process listens, inside its own network namespace. A number is short for `{ port = NUMBER }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Port {
    /// 1 to 65535.
    pub port: u16,
    /// What is spoken on it.
    #[serde(skip_serializing_if = "Protocol::is_http")]
    pub protocol: Protocol,
    /// How it is probed, beside the service's `health`; not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<PortHealth>,
}

/// What is spoken on a port.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP, over TCP.
    #[default]
    Http,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Whether its transport is UDP; it is TCP otherwise.
    pub fn is_udp(self) -> bool {
        self == Self::Udp
    }

    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// How a port is probed. Exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortHealth {
    /// Path of a GET request that must answer with a status below 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A TCP connect to the port must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
}

/// A port with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name.
    pub name: PortName,
    /// The port.
    pub port: Port,
}

impl ServiceConfig {
    /// Every port, ordered by name. `port` is the one named `http`.
    pub fn all_ports(&self) -> Vec<NamedPort> {
        let mut all = self.ports_as_written();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn ports_as_written(&self) -> Vec<NamedPort> {
        let short = self.port.map(|port| NamedPort {
            name: PortName::http(),
            port: Port::from(port),
        });
        let named = self.ports.iter().map(|(name, port)| NamedPort {
            name: name.clone(),
            port: port.clone(),
        });
        short.into_iter().chain(named).collect()
    }

    /// The port that the balancer routes requests to: the one named `http`, else the only one, if HTTP is spoken on it.
    pub fn http_port(&self) -> Option<NamedPort> {
        let mut all = self.all_ports();
        let named = all.iter().position(|port| port.name.as_str() == HTTP);
        let index = named.or((all.len() == 1).then_some(0))?;
        Some(all.swap_remove(index)).filter(|it| it.port.protocol == Protocol::Http)
    }

    /// The port that stands for the process where there can be only one: the one of requests, else the first with TCP, else the
    /// first.
    pub fn main_port(&self) -> Option<NamedPort> {
        let all = self.all_ports();
        let tcp = all.iter().find(|it| !it.port.protocol.is_udp());
        let other = tcp.or(all.first()).cloned();
        self.http_port().or(other)
    }

    /// The TCP port that the service's probe connects to; `None` where there is none: then the process is healthy while it runs,
    /// unless a command says otherwise.
    pub fn probed_port(&self) -> Option<u16> {
        let main = self.main_port().map(|it| it.port);
        let main = main.filter(|port| !port.protocol.is_udp());
        self.health.port.or(main.map(|port| port.port))
    }
}

/// Ports that cannot be.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems: Vec<_> = length_problem("ports", "ports", config.ports.len(), MAX_PORTS)
        .into_iter()
        .collect();
    if config.port == Some(0) {
        let message = "0 is not a port: write the one the program listens on";
        problems.push(Problem::new("port", message));
    }
    if config.port.is_some() && config.ports.contains_key(&PortName::http()) {
        let message = "`port` is short for `ports.http`: write only one of them";
        problems.push(Problem::new("ports.http", message).depending_on("port"));
    }
    for (name, port) in &config.ports {
        problems.extend(port_problem(name, port));
        problems.extend(probe_problem(name, port));
    }
    problems.extend(doubled(config));
    problems.extend(unrouted(config));
    problems
}

fn port_problem(name: &PortName, port: &Port) -> Option<Problem> {
    let message = "0 is not a port: write the one the program listens on";
    (port.port == 0).then(|| Problem::new(format!("ports.{name}.port"), message))
}

fn probe_problem(name: &PortName, port: &Port) -> Option<Problem> {
    let health = port.health.as_ref()?;
    let problem = |message: &str| Some(Problem::new(format!("ports.{name}.health"), message));
    if port.protocol.is_udp() {
        return problem(
            "a UDP port has no answer to wait for: probe another one, or use `health.exec`",
        );
    }
    match (&health.http, health.tcp) {
        (Some(path), None) if path.starts_with('/') => None,
        (Some(path), None) => problem(&format!("{path:?} is not a path: it starts with '/'")),
        (None, Some(true)) => None,
        _ => problem("write either `http = \"/path\"` or `tcp = true`"),
    }
}

/// Two ports of one transport cannot have one number.
fn doubled(config: &ServiceConfig) -> Vec<Problem> {
    let all = config.ports_as_written();
    let same = |a: &NamedPort, b: &NamedPort| {
        a.port.port == b.port.port && a.port.protocol.is_udp() == b.port.protocol.is_udp()
    };
    let doubled = all.iter().enumerate().filter_map(|(index, port)| {
        let other = all[..index].iter().find(|other| same(other, port))?;
        (port.name != other.name).then_some((other, port))
    });
    doubled
        .map(|(other, port)| {
            let message = format!(
                "{} is the port {:?} already",
                port.port.port,
                other.name.as_str()
            );
            Problem::new(format!("ports.{}", port.name), message)
        })
        .collect()
}

/// What routes requests has no effect without a port for them, and what connects none without a port.
fn unrouted(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, is_given) in [
        ("hosts", !config.hosts.is_empty()),
        ("path_prefix", config.path_prefix.is_some()),
    ] {
        if is_given && config.http_port().is_none() {
            let message = "no port gets requests: write `port = …`, or name the one for HTTP `http` in `ports`";
            problems.push(Problem::new(key, message).depending_on("port"));
        }
    }
    let connects = config.health.http.is_some() || config.health.tcp == Some(true);
    let connectable = config
        .main_port()
        .is_some_and(|it| !it.port.protocol.is_udp());
    if connects && config.health.port.is_none() && !connectable {
        let message = "the service has no TCP port to connect to: write `health.port`, or `port`";
        problems.push(Problem::new("health", message).depending_on("port"));
    }
    problems
}

impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Self {
            port,
            protocol: Protocol::default(),
            health: None,
        }
    }
}

/// The long form of a port.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortTable {
    port: u16,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    health: Option<PortHealth>,
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl<'de> Visitor<'de> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port from 1 to 65535, or a table with `port`")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Port, E> {
        let port = u16::try_from(number);
        let invalid = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        port.map(Port::from).map_err(|_| invalid())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Port, E> {
        let port = u16::try_from(number);
        let invalid = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
        port.map(Port::from).map_err(|_| invalid())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Port, A::Error> {
        let long = PortTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Port {
            port: long.port,
            protocol: long.protocol,
            health: long.health,
        })
    }
}

#[cfg(test)]
mod tests;
