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
mod tests;
