//! A pool of prepared networks: namespaces with an address, connected to the bridge. Creating one is the most expensive step of
//! a start. Only descriptors keep them alive, so they vanish with the agent.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use super::{
    State,
    addresses::Allocator,
    blocking,
    links::{self, Links},
    lock,
    namespace::on_own_thread,
    veth_name,
};

/// The pool. Its addresses are reserved in the allocator.
#[derive(Debug)]
pub(super) struct Pool {
    ready: BTreeMap<Ipv4Addr, OwnedFd>,
    /// Networks whose addresses were leased and that were not taken yet.
    leased: BTreeMap<Ipv4Addr, OwnedFd>,
    size: usize,
}

impl Pool {
    /// An empty pool for `size` networks.
    pub(super) fn new(size: usize) -> Self {
        Self {
            ready: BTreeMap::new(),
            leased: BTreeMap::new(),
            size,
        }
    }

    /// The address of a prepared network, to be leased next.
    pub(super) fn first(&self) -> Option<Ipv4Addr> {
        self.addresses().next()
    }

    /// Addresses of networks that are not leased.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ready.keys().copied()
    }

    /// Marks an address as leased.
    pub(super) fn lease(&mut self, ip: Ipv4Addr) {
        self.leased.extend(self.ready.remove_entry(&ip));
    }

    /// The prepared network of a leased address, if there is one. No process has used it.
    pub(super) fn take(&mut self, ip: Ipv4Addr) -> Option<OwnedFd> {
        self.leased.remove(&ip)
    }

    /// Reserves an address for another network, unless the pool is full. As many addresses as the pool's size stay free for
    /// leases.
    fn reserve_next(&self, allocator: &mut Allocator) -> Option<Ipv4Addr> {
        let is_full = self.ready.len() >= self.size;
        (!is_full).then(|| allocator.reserve(self.size)).flatten()
    }
}

/// Fills and empties the pool.
#[derive(Debug, Clone)]
pub(super) struct PoolFiller {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) links: Links,
    /// Locked while the pool is filled or emptied.
    pub(super) filling: Arc<tokio::sync::Mutex<()>>,
}

impl PoolFiller {
    /// Fills the pool. Stops at the first failure, or when the node has no lease.
    pub(super) async fn fill(self) {
        let Ok(_filling) = self.filling.try_lock() else {
            return;
        };
        while let Some(ip) = self.reserve_next() {
            let links = self.links.clone();
            let made = on_own_thread(move || links.connect(&veth_name(ip), ip)).await;
            let mut state = lock(&self.state);
            match made {
                Ok(network) => drop(state.pool.ready.insert(ip, network)),
                Err(_) => {
                    // The next start tries again, and reports the error.
                    state.allocator.unreserve(ip);
                    return;
                }
            }
        }
    }

    fn reserve_next(&self) -> Option<Ipv4Addr> {
        let state = &mut *lock(&self.state);
        if state.leases.is_empty() {
            return None;
        }
        state.pool.reserve_next(&mut state.allocator)
    }

    /// Removes the networks that are not leased.
    pub(super) async fn empty(&self) -> Result<(), links::Error> {
        let ready = std::mem::take(&mut lock(&self.state).pool.ready);
        let addresses: Vec<_> = ready.keys().copied().collect();
        let (links, removed_ips) = (self.links.clone(), addresses.clone());
        let removed = blocking(move || {
            let mut all = removed_ips.into_iter();
            all.try_for_each(|ip| links.disconnect(&veth_name(ip), ip))
        });
        let removed = removed.await;
        let state = &mut *lock(&self.state);
        addresses
            .into_iter()
            .for_each(|ip| state.allocator.unreserve(ip));
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::MetadataExt};

    use super::*;
    use crate::runner::network::{
        Cluster, Lease, Network, Options, PortRange, Subnet, elements_tests::in_own_network,
    };

    /// Runs a test with a network of this subnet, in a network namespace of its own.
    fn on_a_node(subnet: &str, ready: usize, test: impl AsyncFnOnce(Network) + Send) {
        in_own_network(|| {
            let subnet: Subnet = subnet.parse().unwrap();
            let options = Options {
                bridge: "pool0",
                subnet,
                ports: PortRange::default(),
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
        let first = network.lease().unwrap();
        let connected = network.connect(first).await.unwrap();
        filled(network, 1).await;
        (connected, network.lease().unwrap())
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
            let mut leases = vec![network.lease().unwrap()];
            let mut inodes = BTreeSet::from([inode(&network.connect(leases[0]).await.unwrap())]);
            filled(&network, 2).await;
            for expected in ready(&network) {
                let lease = network.lease().unwrap();
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
            let first = network.lease().unwrap();
            let _connected = network.connect(first).await.unwrap();
            filled(&network, 1).await;
            for _ in 0..4 {
                network.lease().unwrap();
            }
            assert!(network.lease().is_err(), "each address has been leased");
        });
    }
}
