//! What processes are kept from on every node: where the controller and the agents take orders. Their tokens guard them too.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use tucano_api::{
    agent::{ApiAddress, Apis},
    ids::NodeName,
};

use crate::config_mgr::{Config, Listen, topology::Topology};

/// All of them, unless these are what the node knows. `agent` tells where a worker's agent listens, as far as is known.
pub(super) fn unless_known(
    config: &Config,
    known: Option<&str>,
    agent: impl Fn(&NodeName) -> Option<SocketAddr>,
) -> Option<Apis> {
    // Of an inherited socket, the agents know by their own setting where it is.
    let listening: Vec<SocketAddr> = config
        .listen
        .iter()
        .filter_map(|listen| match listen {
            Listen::Address(address) => Some(*address),
            Listen::Stdin => None,
        })
        .collect();
    let addresses = all(&config.topology, &listening, agent);
    let tag = tag(&addresses);
    (known != Some(&tag)).then_some(Apis { tag, addresses })
}

fn all(
    topology: &Topology,
    listening: &[SocketAddr],
    agent: impl Fn(&NodeName) -> Option<SocketAddr>,
) -> Vec<ApiAddress> {
    let ctl = topology.ctl.ip;
    // What listens on all addresses, or is reached through another port's forwarding, is at the node's.
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

fn tag(addresses: &[ApiAddress]) -> String {
    let mut hasher = DefaultHasher::new();
    addresses.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_mgr::topology::{CtlNode, WorkerNode};

    #[test]
    fn the_controllers_and_every_agents_api_are_named() {
        let worker = |name: &str, ip: &str| WorkerNode {
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
        assert_ne!(tag(&addresses), tag(&addresses[1..]));
        assert_eq!(tag(&addresses), tag(&addresses.clone()));
    }
}
