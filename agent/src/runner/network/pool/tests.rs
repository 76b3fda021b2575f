use std::{collections::BTreeSet, os::unix::fs::MetadataExt};

use tucano_api::service::ServiceConfig;

use super::*;
use crate::runner::network::{
    Cluster, Lease, Network, Options, PortRange, Subnet, elements_tests::in_own_network,
};

/// Runs a test with a network of this subnet, in a network namespace of its own.
fn on_a_node(subnet: &str, ready: usize, test: impl AsyncFnOnce(Network) + Send) {
    on_a_node_with(subnet, PortRange::default(), ready, test);
}

fn on_a_node_with(
    subnet: &str,
    ports: PortRange,
    ready: usize,
    test: impl AsyncFnOnce(Network) + Send,
) {
    in_own_network(|| {
        let subnet: Subnet = subnet.parse().unwrap();
        let options = Options {
            names: Default::default(),
            seed: 0,
            bridge: "pool0",
            subnet,
            ports,
            clients: BTreeSet::new(),
            controller: None,
            cluster: Cluster::default(),
            ready,
            tracked_connections: 0,
        };
        let network = Network::new(options).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(test(network));
    });
}

fn ready(network: &Network) -> Vec<Ipv4Addr> {
    network.state().pool.addresses().collect()
}

async fn filled(network: &Network, number: usize) {
    tokio::spawn(network.prepare());
    while ready(network).len() < number {
        tokio::task::yield_now().await;
    }
    // Locked until the task's end.
    drop(network.filler.filling.lock().await);
    assert_eq!(ready(network).len(), number);
}

/// The network of a first process, and the lease of a second one, whose network is prepared.
async fn one_connected_and_one_ready(network: &Network) -> (OwnedFd, Lease) {
    let first = network.lease(&service()).unwrap().0;
    let connected = network.connect(first).await.unwrap();
    filled(network, 1).await;
    (connected, network.lease(&service()).unwrap().0)
}

fn service() -> ServiceConfig {
    let text = r#"{"name": "a", "concurrency": 1, "port": 80}"#;
    serde_json::from_str(text).unwrap()
}

fn inode(namespace: &OwnedFd) -> u64 {
    let file = std::fs::File::from(namespace.try_clone().unwrap());
    file.metadata().unwrap().ino()
}

fn is_attached(network: &Network, ip: Ipv4Addr) -> bool {
    network.links.are_connected(&veth_name(ip)).unwrap()
}

#[test]
fn each_network_is_used_once_and_none_outlives_the_last_lease() {
    on_a_node("172.31.0.0/16", 2, async |network| {
        let mut leases = vec![network.lease(&service()).unwrap().0];
        let mut inodes = BTreeSet::from([inode(&network.connect(leases[0]).await.unwrap())]);
        filled(&network, 2).await;
        for expected in ready(&network) {
            let lease = network.lease(&service()).unwrap().0;
            assert_eq!(lease.ip, expected);
            assert!(is_attached(&network, lease.ip));
            inodes.insert(inode(&network.connect(lease).await.unwrap()));
            leases.push(lease);
        }
        filled(&network, 2).await;
        assert_eq!(inodes.len(), 3);
        let left = ready(&network);
        for lease in leases {
            assert!(!left.contains(&lease.ip));
            network.disconnect(lease).await.unwrap();
            network.release(lease).await.unwrap();
        }
        assert!(ready(&network).is_empty());
        // The check itself creates a new bridge.
        assert!(!left.into_iter().any(|ip| is_attached(&network, ip)));
        tokio::spawn(network.prepare());
        drop(network.filler.filling.lock().await);
        assert!(ready(&network).is_empty(), "there is no process");
    });
}

#[test]
fn a_prepared_network_keeps_its_address_while_ports_are_short() {
    let ports = PortRange::try_from("41950-41951".to_owned()).unwrap();
    on_a_node_with("172.31.0.0/16", ports, 1, async |network| {
        let first = network.lease(&service()).unwrap().0;
        let _connected = network.connect(first).await.unwrap();
        filled(&network, 1).await;
        let prepared = ready(&network);
        let mut two_ports = service();
        two_ports.ports = serde_json::from_str(r#"{"b": 81}"#).unwrap();
        network.lease(&two_ports).unwrap_err();
        assert_eq!(ready(&network), prepared);
        let reserved = network.state().allocator.reserve(0).unwrap();
        assert!(!prepared.contains(&reserved), "it is not free");
        assert_eq!(network.lease(&service()).unwrap().0.ip, prepared[0]);
    });
}

#[test]
fn a_network_that_lost_its_link_is_replaced() {
    on_a_node("172.31.0.0/16", 1, async |network| {
        let (_first, second) = one_connected_and_one_ready(&network).await;
        network
            .links
            .disconnect(&veth_name(second.ip), second.ip)
            .unwrap();
        assert!(!is_attached(&network, second.ip));
        let _connected = network.connect(second).await.unwrap();
        assert!(is_attached(&network, second.ip));
    });
}

#[test]
fn a_leased_but_unused_network_is_removed_with_its_lease() {
    on_a_node("172.31.0.0/16", 1, async |network| {
        let (_first, second) = one_connected_and_one_ready(&network).await;
        network.disconnect(second).await.unwrap();
        assert!(!is_attached(&network, second.ip));
        network.release(second).await.unwrap();
        filled(&network, 1).await;
        assert_eq!(ready(&network), [second.ip]);
        assert!(is_attached(&network, second.ip));
    });
}

#[test]
fn the_pool_leaves_addresses_for_leases() {
    on_a_node("10.1.2.0/29", 3, async |network| {
        let first = network.lease(&service()).unwrap().0;
        let _connected = network.connect(first).await.unwrap();
        filled(&network, 1).await;
        for _ in 0..4 {
            network.lease(&service()).unwrap();
        }
        assert!(
            network.lease(&service()).is_err(),
            "each address has been leased"
        );
    });
}
