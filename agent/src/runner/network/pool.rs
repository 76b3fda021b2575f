//! Networks that are ready before anybody needs one: a namespace with its address, connected to the bridge. To make one is the
//! dearest step of a start. They are held by descriptors alone, and so vanish with the agent.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use super::{
    Book,
    addresses::Allocator,
    blocking,
    links::{self, Links},
    lock,
    namespace::on_own_thread,
    veth_name,
};

/// Some of them. Their addresses are kept from everyone else.
#[derive(Debug)]
pub(super) struct Pool {
    ready: BTreeMap<Ipv4Addr, OwnedFd>,
    /// Those whose addresses have been leased, until somebody asks for them.
    leased: BTreeMap<Ipv4Addr, OwnedFd>,
    size: usize,
}

impl Pool {
    /// Empty.
    pub(super) fn new(size: usize) -> Self {
        Self {
            ready: BTreeMap::new(),
            leased: BTreeMap::new(),
            size,
        }
    }

    /// The address to lease next.
    pub(super) fn first(&self) -> Option<Ipv4Addr> {
        self.addresses().next()
    }

    /// Those that nobody has leased.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ready.keys().copied()
    }

    /// The address has been leased.
    pub(super) fn lease(&mut self, ip: Ipv4Addr) {
        self.leased.extend(self.ready.remove_entry(&ip));
    }

    /// The network of a leased address, if it was ready: nobody has ever used it.
    pub(super) fn take(&mut self, ip: Ipv4Addr) -> Option<OwnedFd> {
        self.leased.remove(&ip)
    }

    /// The address for one more, while some are missing. As many addresses stay free: who leases one meanwhile finds another.
    fn next(&self, allocator: &mut Allocator) -> Option<Ipv4Addr> {
        let is_full = self.ready.len() >= self.size;
        (!is_full).then(|| allocator.hold(self.size)).flatten()
    }
}

/// Makes what is missing.
#[derive(Debug, Clone)]
pub(super) struct Filler {
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) links: Links,
    /// Held by the one task that makes more, or by who removes all.
    pub(super) alone: Arc<tokio::sync::Mutex<()>>,
}

impl Filler {
    /// Once all are there, or one cannot be made, or there are no processes, it ends.
    pub(super) async fn fill(self) {
        let Ok(_alone) = self.alone.try_lock() else {
            return;
        };
        while let Some(ip) = self.next() {
            let links = self.links.clone();
            let made = on_own_thread(move || links.connect(&veth_name(ip), ip)).await;
            let mut book = lock(&self.book);
            match made {
                Ok(network) => drop(book.pool.ready.insert(ip, network)),
                Err(_) => {
                    // Who needs one tries it again, and tells.
                    book.allocator.let_go(ip);
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<Ipv4Addr> {
        let book = &mut *lock(&self.book);
        if book.leases.is_empty() {
            return None;
        }
        book.pool.next(&mut book.allocator)
    }

    /// Removes those that nobody has leased.
    pub(super) async fn empty(&self) -> Result<(), links::Error> {
        let ready = std::mem::take(&mut lock(&self.book).pool.ready);
        let addresses: Vec<_> = ready.keys().copied().collect();
        let (links, theirs) = (self.links.clone(), addresses.clone());
        let removed = blocking(move || {
            let mut all = theirs.into_iter();
            all.try_for_each(|ip| links.disconnect(&veth_name(ip), ip))
        });
        let removed = removed.await;
        let book = &mut *lock(&self.book);
        addresses
            .into_iter()
            .for_each(|ip| book.allocator.let_go(ip));
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::MetadataExt};

    use super::*;
    use crate::runner::network::{
        Lease, Network, PortRange, Subnet, elements_tests::in_own_network,
    };

    /// With a node's network of its own, whose subnet is this.
    fn on_a_node(subnet: &str, ready: usize, test: impl AsyncFnOnce(Network) + Send) {
        in_own_network(|| {
            let subnet: Subnet = subnet.parse().unwrap();
            let (ports, nobody) = (PortRange::default(), BTreeSet::new());
            let network = Network::new("pool0", subnet, ports, None, nobody, ready).unwrap();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(test(network));
        });
    }

    fn ready(network: &Network) -> Vec<Ipv4Addr> {
        network.book().pool.addresses().collect()
    }

    async fn filled(network: &Network, number: usize) {
        tokio::spawn(network.prepare());
        while ready(network).len() < number {
            tokio::task::yield_now().await;
        }
        // The task holds it until its end.
        drop(network.filler.alone.lock().await);
        assert_eq!(ready(network).len(), number);
    }

    /// The first process's network, and the lease of a second one's, which was ready.
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
    fn each_is_used_once_by_who_leases_its_address_and_none_outlasts_the_last_process() {
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
            // The bridge of this question is a new one.
            assert!(!left.into_iter().any(|ip| is_attached(&network, ip)));
            tokio::spawn(network.prepare());
            drop(network.filler.alone.lock().await);
            assert!(ready(&network).is_empty(), "there is no process");
        });
    }

    #[test]
    fn one_that_something_else_has_removed_is_made_anew() {
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
    fn one_that_was_leased_and_never_asked_for_goes_with_its_lease() {
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
    fn they_take_no_address_that_a_process_may_need_soon() {
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
