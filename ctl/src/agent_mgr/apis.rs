//! The control APIs' addresses, which every node firewalls off from its processes, in addition to authentication.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use tucano_api::{
    agent::{ApiAddress, Apis},
    ids::NodeName,
    names::ServiceSubnet,
};

use crate::config_mgr::{Config, Listen, topology::Topology};

/// All addresses, unless the node's tag shows that it has them. `agent` resolves a worker's agent address, if known.
pub(super) fn if_changed(
    config: &Config,
    known: Option<&str>,
    agent: impl Fn(&NodeName) -> Option<SocketAddr>,
) -> Option<Apis> {
    // Agents know the address of an inherited socket by their own configuration.
    let listening: Vec<SocketAddr> = config
        .listen
        .iter()
        .filter_map(|listen| match listen {
            Listen::Address(address) => Some(*address),
            Listen::Stdin => None,
        })
        .collect();
    let addresses = all(&config.topology, &listening, agent);
    let workers: Vec<_> = config.topology.workers.iter().map(|one| one.ip).collect();
    let services = config.planner.service_subnet;
    let tag = tag(&addresses, &workers, services);
    (known != Some(&tag)).then_some(Apis {
        tag,
        addresses,
        workers,
        services: Some(services),
    })
}

fn all(
    topology: &Topology,
    listening: &[SocketAddr],
    agent: impl Fn(&NodeName) -> Option<SocketAddr>,
) -> Vec<ApiAddress> {
    let ctl = topology.ctl.ip;
    // Wildcard listeners, and ones behind port forwarding, are reached at the node's address.
    let own = listening.iter().flat_map(|address| {
        let elsewhere = !address.ip().is_unspecified() && !address.ip().is_loopback();
        let named = elsewhere.then_some(address.ip()).filter(|ip| *ip != ctl);
        let port = Some(address.port());
        [Some(ctl), named]
            .into_iter()
            .flatten()
            .map(move |ip| ApiAddress { ip, port })
    });
    let agents = topology.workers.iter().map(|worker| ApiAddress {
        ip: worker.ip,
        port: agent(&worker.name).map(|address| address.port()),
    });
    own.chain(agents).collect()
}

fn tag(addresses: &[ApiAddress], workers: &[IpAddr], services: ServiceSubnet) -> String {
    let mut hasher = DefaultHasher::new();
    (addresses, workers, services).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_mgr::topology::{CtlNode, WorkerNode};

    #[test]
    fn the_apis_of_the_controller_and_every_agent_are_listed() {
        let worker = |name: &str, ip: &str| WorkerNode {
            labels: Default::default(),
            name: name.parse().unwrap(),
            ip: ip.parse().unwrap(),
            restart: None,
        };
        let topology = Topology {
            ctl: CtlNode {
                name: "ctl".parse().unwrap(),
                ip: "10.0.0.1".parse().unwrap(),
            },
            workers: vec![worker("w1", "10.0.0.2"), worker("w2", "10.0.0.3")],
        };
        let listening = ["0.0.0.0:7070", "10.1.0.1:7072"].map(|text| text.parse().unwrap());
        let w1 =
            |name: &NodeName| (name.as_str() == "w1").then(|| "10.0.0.2:9000".parse().unwrap());
        let addresses = all(&topology, &listening, w1);
        let texts: Vec<_> = addresses
            .iter()
            .map(|one| format!("{} {:?}", one.ip, one.port))
            .collect();
        let expected = [
            "10.0.0.1 Some(7070)",
            "10.0.0.1 Some(7072)",
            "10.1.0.1 Some(7072)",
            "10.0.0.2 Some(9000)",
            "10.0.0.3 None",
        ];
        assert_eq!(texts, expected);
        let worker = ["10.0.0.2".parse().unwrap()];
        let tag = |addresses, workers| tag(addresses, workers, ServiceSubnet::default());
        assert_ne!(tag(&addresses, &worker), tag(&addresses[1..], &worker));
        assert_ne!(tag(&addresses, &worker), tag(&addresses, &[]));
        assert_eq!(tag(&addresses, &worker), tag(&addresses.clone(), &worker));
    }
}
