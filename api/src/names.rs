//! The services that processes find by name: controller → agent. What a node gets is limited to what its processes need.
//!
//! `GET /v1/names?after=VERSION` on the controller answers as soon as something differs from VERSION, or with 204 after
//! 20 s without a change: first all of it, then what has changed.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{NodeName, PortName, ProcessId, ServiceName},
    network::{check_host_bits, mask},
    service::Protocol,
};

/// The domain of services' names, as processes see it.
pub const NAMES_DOMAIN: &str = "internal";

/// What has changed since a version, or all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Names {
    /// Opaque; differs whenever the content does, across restarts of the controller too.
    pub version: String,
    /// Whether `services` has every service of the node: any other one is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Services that are new or have changed.
    pub services: Vec<NamedService>,
    /// Services that no process of the node needs any more, or that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<ServiceName>,
}

/// A service as the processes see it that need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedService {
    /// Its name.
    pub service: ServiceName,
    /// Its address, which never changes.
    #[schema(value_type = String)]
    pub address: Ipv4Addr,
    /// The addresses of its slots, from slot 1; none for a service without volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub slots: Vec<Ipv4Addr>,
    /// Whether connections go to processes on the same worker, where it has any. Agents of an earlier version draw from all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nearest: bool,
    /// Its ports, ordered by name.
    pub ports: Vec<NamedPort>,
    /// Its healthy processes that are not draining, ordered by process.
    pub endpoints: Vec<NamedEndpoint>,
    /// Its draining processes: they get no new connections, and keep those that they have until they are stopped. Agents of earlier
    /// versions do not know them, and end these connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<NamedEndpoint>,
}

impl NamedService {
    /// The processes that may have connections.
    pub fn connected(&self) -> impl Iterator<Item = &NamedEndpoint> {
        self.endpoints.iter().chain(&self.leaving)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedPort {
    /// Its name.
    pub name: PortName,
    /// Its number, at the service's address and in its processes.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// A process that answers at a service's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedEndpoint {
    /// The process.
    pub process: ProcessId,
    /// Its node.
    pub node: NodeName,
    /// Its slot of a service with volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Share of connections relative to the service's other endpoints: 1 to 100.
    pub weight: u32,
    /// The node's address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// The node's port for each of the service's ports, in their order; absent where the agent forwards none.
    pub node_ports: Vec<Option<u16>>,
}

impl NamedEndpoint {
    /// The node's address and port for the service's port of this index.
    pub fn address(&self, port: usize) -> Option<SocketAddr> {
        let number = self.node_ports.get(port).copied().flatten()?;
        Some(SocketAddr::new(self.ip, number))
    }

    /// The node's IPv4 address, if it has one.
    pub fn node_address(&self) -> Option<Ipv4Addr> {
        match self.ip.to_canonical() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }
    }
}

/// The addresses of one process's service, by which the next controller knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceAddress {
    /// The service's.
    #[schema(value_type = String)]
    pub service: Ipv4Addr,
    /// The slot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub slot: Option<Ipv4Addr>,
}

/// The network that services have their addresses in, such as `100.80.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceSubnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Default for ServiceSubnet {
    /// Of the addresses that are set aside for carriers (RFC 6598), which neither the Internet nor private networks have.
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(100, 80, 0, 0),
            prefix: 16,
        }
    }
}

impl ServiceSubnet {
    /// Whether an address is in it.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & self.mask() == self.network.to_bits()
    }

    /// Whether it has an address in common with another network.
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let mask = self.mask() & mask(prefix);
        network.to_bits() & mask == self.network.to_bits() & mask
    }

    /// Its first address, which no service has.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The addresses that services can have: all but the first and the last.
    pub fn size(self) -> u32 {
        (!self.mask()).saturating_sub(1)
    }

    /// The address after this one, and the first one after the last.
    pub fn next(self, after: Option<Ipv4Addr>) -> Ipv4Addr {
        let first = self.network.to_bits() + 1;
        let last = self.network.to_bits() + self.size();
        let next = after.map_or(first, |ip| ip.to_bits().saturating_add(1));
        Ipv4Addr::from_bits(match (first..=last).contains(&next) {
            true => next,
            false => first,
        })
    }

    fn mask(self) -> u32 {
        mask(self.prefix)
    }
}

impl FromStr for ServiceSubnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(network, prefix)| Some((network.parse().ok()?, prefix.parse().ok()?)));
        let Some((network, prefix @ 8..=28)) = parsed else {
            return Err(format!(
                "{text:?} is not a network for services: write for example \"100.80.0.0/16\", of /8 to /28"
            ));
        };
        let network: Ipv4Addr = network;
        check_host_bits(text, network, prefix)?;
        if network.is_loopback() || network.is_multicast() || network.is_unspecified() {
            return Err(format!(
                "{text:?} is not a network that services can have: write for example \"100.80.0.0/16\""
            ));
        }
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for ServiceSubnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServiceSubnet> for String {
    fn from(subnet: ServiceSubnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for ServiceSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_leave_out_the_first_and_the_last() {
        let subnet: ServiceSubnet = "10.9.0.16/28".parse().unwrap();
        assert_eq!(subnet.size(), 14);
        let mut all = Vec::new();
        let mut last = None;
        for _ in 0..15 {
            let next = subnet.next(last);
            all.push(next.octets()[3]);
            last = Some(next);
        }
        let expected: Vec<u8> = (17..=30).chain([17]).collect();
        assert_eq!(all, expected);
        assert_eq!(
            subnet.next("192.0.2.1".parse().ok()),
            Ipv4Addr::new(10, 9, 0, 17)
        );
    }

    #[test]
    fn networks_are_parsed_and_compared() {
        let subnet = ServiceSubnet::default();
        assert_eq!(subnet.to_string(), "100.80.0.0/16");
        assert!(subnet.contains([100, 80, 255, 255].into()));
        assert!(!subnet.contains([100, 81, 0, 0].into()));
        for (network, prefix, overlaps) in [
            ([100, 64, 0, 0], 10, true),
            ([100, 80, 7, 0], 24, true),
            ([172, 31, 0, 0], 16, false),
            ([0, 0, 0, 0], 0, true),
        ] {
            assert_eq!(subnet.overlaps(network.into(), prefix), overlaps);
        }
        for text in [
            "",
            "100.80.0.0",
            "100.80.0.0/7",
            "100.80.0.0/29",
            "100.80.0.1/16",
            "127.0.0.0/8",
            "fd00::/16",
        ] {
            assert!(text.parse::<ServiceSubnet>().is_err(), "{text}");
        }
    }
}
