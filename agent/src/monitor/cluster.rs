//! The cluster's machines, of which the controller sends a list: processes must not reach their APIs and node ports, and only they
//! are forwarded at this node's ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use tucano_api::{
    AGENT_PORT,
    agent::{ApiAddress, Apis},
};

use crate::runner::network::Cluster;

/// The cluster by a list of the controller. Processes have IPv4 addresses only. An agent's unknown port is assumed to be the default
/// one or the one that it had before.
pub(super) fn updated(before: &Cluster, list: &Apis) -> Cluster {
    Cluster {
        apis: apis(&list.addresses, &before.apis),
        workers: list.workers.iter().filter_map(|ip| ipv4(*ip)).collect(),
        controllers: before.controllers.clone(),
        services: list.services,
    }
}

/// The address as IPv4, if it is one or is mapped from one.
pub(super) fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn apis(list: &[ApiAddress], before: &BTreeSet<SocketAddrV4>) -> BTreeSet<SocketAddrV4> {
    let mut all = BTreeSet::new();
    for ApiAddress { ip, port } in list {
        let Some(ip) = ipv4(*ip) else {
            continue;
        };
        match port {
            Some(port) => drop(all.insert(SocketAddrV4::new(ip, *port))),
            None => {
                all.insert(SocketAddrV4::new(ip, AGENT_PORT));
                all.extend(before.iter().filter(|address| *address.ip() == ip));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[(&str, Option<u16>)], workers: &[&str]) -> Apis {
        let addresses = addresses.iter().map(|(ip, port)| ApiAddress {
            ip: ip.parse().unwrap(),
            port: *port,
        });
        Apis {
            tag: "t".to_owned(),
            addresses: addresses.collect(),
            services: None,
            workers: workers.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn an_unknown_port_is_the_previous_or_the_default_one() {
        let list = list(
            &[
                ("10.0.0.1", Some(7070)),
                ("10.0.0.2", None),
                ("10.0.0.3", Some(9000)),
                ("::ffff:10.0.0.4", Some(7071)),
                ("fd00::1", Some(7071)),
            ],
            &[],
        );
        let before = Cluster {
            apis: BTreeSet::from(["10.0.0.2:8000", "10.0.0.3:8000"].map(|it| it.parse().unwrap())),
            ..Cluster::default()
        };
        let cluster = updated(&before, &list);
        let apis: Vec<_> = cluster.apis.iter().map(ToString::to_string).collect();
        let expected = [
            "10.0.0.1:7070",
            "10.0.0.2:7071",
            "10.0.0.2:8000",
            "10.0.0.3:9000",
            "10.0.0.4:7071",
        ];
        assert_eq!(apis, expected);
    }

    #[test]
    fn workers_are_replaced_and_the_controllers_addresses_stay() {
        let mut before = Cluster {
            workers: ["10.0.0.9".parse().unwrap()].into(),
            ..Cluster::default()
        };
        before.add_controller([10, 0, 1, 1].into());
        let after = updated(&before, &list(&[], &["10.0.0.2", "fd00::2"]));
        assert_eq!(after.workers, ["10.0.0.2".parse().unwrap()].into());
        assert_eq!(after.controllers, before.controllers);
    }
}
