//! Which ports of the node are forwarded to which ports of a process.

use std::{collections::BTreeMap, net::SocketAddrV4};

use tucano_api::{
    ids::PortName,
    service::{NamedPort, ServiceConfig},
};

use super::addresses::{Lease, NodePort, Transport};

/// Ports of the node that a process has beyond the one of its lease, by the names of its own ports.
pub type FurtherPorts = BTreeMap<PortName, u16>;

/// The ports of a process beyond its main one, which is forwarded from the port of its lease.
pub(super) fn further(config: &ServiceConfig) -> Vec<NamedPort> {
    let main = config.main_port();
    let mut all = config.all_ports();
    all.retain(|port| main.as_ref() != Some(port));
    all
}

/// The transport of the port of a lease.
pub(super) fn main_transport(config: &ServiceConfig) -> Transport {
    let main = config.main_port();
    main.map_or(Transport::Tcp, |main| main.port.protocol.into())
}

/// The process's address for each port of the node.
pub(super) fn forwards(
    lease: Lease,
    ports: &FurtherPorts,
    config: &ServiceConfig,
) -> BTreeMap<NodePort, SocketAddrV4> {
    let node_ports = by_name(lease, ports, config);
    let all = config.all_ports().into_iter();
    all.filter_map(|NamedPort { name, port }| {
        let node_port = (port.protocol.into(), *node_ports.get(&name)?);
        Some((node_port, SocketAddrV4::new(lease.ip, port.port)))
    })
    .collect()
}

/// The node's port for each named port of a process.
pub fn by_name(lease: Lease, ports: &FurtherPorts, config: &ServiceConfig) -> FurtherPorts {
    let main = config.main_port().map(|main| (main.name, lease.node_port));
    let further = ports.iter().map(|(name, port)| (name.clone(), *port));
    main.into_iter().chain(further).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn service_with_ports(ports: &str) -> ServiceConfig {
        let text = format!(r#"{{"name": "a", "concurrency": 1, "ports": {ports}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_named_port_is_forwarded_from_a_port_of_the_node() {
        let config = service_with_ports(
            r#"{"http": 80, "dns": {"port": 53, "protocol": "udp"}, "metrics": 9090}"#,
        );
        let lease = Lease {
            ip: Ipv4Addr::new(172, 31, 0, 2),
            node_port: 20_000,
            ids_base: 0,
        };
        let names: Vec<_> = further(&config).into_iter().map(|it| it.name).collect();
        let ports: FurtherPorts = names.into_iter().zip(20_001..).collect();
        let all: Vec<_> = forwards(lease, &ports, &config).into_iter().collect();
        let expected = [
            ((Transport::Tcp, 20_000), 80),
            ((Transport::Tcp, 20_002), 9090),
            ((Transport::Udp, 20_001), 53),
        ];
        let expected = expected.map(|(port, to)| (port, SocketAddrV4::new(lease.ip, to)));
        assert_eq!(all, expected);
    }

    #[test]
    fn a_process_without_ports_has_no_forwardings() {
        let config = service_with_ports("{}");
        let lease = Lease {
            ip: Ipv4Addr::new(172, 31, 0, 2),
            node_port: 20_000,
            ids_base: 0,
        };
        assert!(forwards(lease, &FurtherPorts::new(), &config).is_empty());
        assert_eq!(main_transport(&config), Transport::Tcp);
    }
}
