//! The processes' network: a bridge with a veth pair for each process, node ports forwarded by nftables or iptables.
//!
//! Nothing of it exists while the node has no process: the bridge and the rules come with the first and go with the last.

mod addresses;
mod conntrack;
mod elements;
#[cfg(test)]
mod elements_tests;
mod firewall;
mod iptables;
mod links;
mod namespace;
mod netlink;
mod pool;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use addresses::{Allocator, Exhausted, IDS_PER_PROCESS, Lease, PortRange, Subnet};
use firewall::Firewall;
use links::Links;
use pool::{Filler, Pool};
use rules::Rules;

/// Why a process could not be connected or disconnected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A link could not be made or removed.
    #[error("network: {0}")]
    Link(#[from] links::Error),
    /// The forwarding rules could not be changed.
    #[error("network: {0}")]
    Rules(#[from] firewall::Error),
}

/// The node's part of the processes' network.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    subnet: Subnet,
    /// The controller's API as this agent reaches it, where that is an IPv4 address.
    controller: Option<SocketAddrV4>,
    links: Links,
    filler: Filler,
    /// Chosen when rules are first changed.
    firewall: tokio::sync::OnceCell<Firewall>,
    book: Arc<Mutex<Book>>,
    /// How many connections the node is to have room for.
    tracked_connections: u64,
    /// Held while rules change; inside, those that are in force, if any are.
    in_force: tokio::sync::Mutex<Option<Rules>>,
    /// Whom the rules in force keep to his own address, also while others change: nobody else has to wait for those.
    kept: Mutex<BTreeSet<Ipv4Addr>>,
}

/// Who has what.
#[derive(Debug)]
struct Book {
    allocator: Allocator,
    pool: Pool,
    leases: BTreeSet<Ipv4Addr>,
    forwards: BTreeMap<u16, SocketAddrV4>,
    /// Where other programs of the cluster take orders.
    apis: BTreeSet<SocketAddrV4>,
}

impl Network {
    /// Of the network namespace that the agent runs in. Processes are kept from the controller and from `apis`. Once there is a
    /// process, `ready` networks more than are needed are kept. Changes nothing yet.
    pub fn new(
        bridge: &str,
        subnet: Subnet,
        ports: PortRange,
        controller: Option<SocketAddrV4>,
        apis: BTreeSet<SocketAddrV4>,
        ready: usize,
    ) -> Result<Self, Error> {
        let links = Links::new(bridge, subnet)?;
        let book = Arc::new(Mutex::new(Book {
            allocator: Allocator::new(subnet, ports),
            pool: Pool::new(ready),
            leases: BTreeSet::new(),
            forwards: BTreeMap::new(),
            apis,
        }));
        Ok(Self {
            bridge: bridge.to_owned(),
            subnet,
            controller,
            filler: Filler {
                book: Arc::clone(&book),
                links: links.clone(),
                alone: Arc::default(),
            },
            links,
            firewall: tokio::sync::OnceCell::new(),
            book,
            tracked_connections: 0,
            in_force: tokio::sync::Mutex::new(None),
            kept: Mutex::default(),
        })
    }

    /// The node is to have room for at least as many connections (`nf_conntrack_max`) as long as it has processes.
    #[must_use]
    pub fn with_tracked_connections(self, least: u64) -> Self {
        Self {
            tracked_connections: least,
            ..self
        }
    }

    /// Reserves an address, a port and user ids for a process.
    pub fn lease(&self) -> Result<Lease, Exhausted> {
        let book = &mut *self.book();
        let lease = book.allocator.lease(book.pool.first())?;
        book.pool.lease(lease.ip);
        book.leases.insert(lease.ip);
        Ok(lease)
    }

    /// Takes over the lease of a process that an earlier agent left, and the forwarding to `port` if it runs; false if
    /// it cannot be had. [`Self::tidy`] then puts the rules in force.
    pub fn adopt(&self, lease: Lease, port: Option<u16>) -> bool {
        let mut book = self.book();
        if book.allocator.conflicts(lease) {
            return false;
        }
        book.allocator.adopt(lease);
        book.leases.insert(lease.ip);
        if let Some(port) = port {
            let address = SocketAddrV4::new(lease.ip, port);
            book.forwards.insert(lease.node_port, address);
        }
        true
    }

    /// A network namespace that is connected to the bridge under the lease's address: one that is ready, else a new one.
    pub async fn connect(&self, lease: Lease) -> Result<OwnedFd, Error> {
        // Before there is anybody whom they concern.
        if !self.kept().contains(&lease.ip) {
            self.enforce().await?;
        }
        let name = veth_name(lease.ip);
        let ready = self.book().pool.take(lease.ip);
        if let Some(ready) = ready {
            let (links, name) = (self.links.clone(), name.clone());
            // Since it was made, something else on the node may have removed what it is connected to.
            if blocking(move || links.are_connected(&name)).await? {
                return Ok(ready);
            }
        }
        let links = self.links.clone();
        Ok(namespace::on_own_thread(move || links.connect(&name, lease.ip)).await?)
    }

    /// Prepares for the next starts; to be called when one is over.
    pub fn prepare(&self) -> impl Future<Output = ()> + Send + use<> {
        self.filler.clone().fill()
    }

    /// The processes run without it, too.
    fn make_room(&self) {
        let least = self.tracked_connections;
        if let Err(error) = conntrack::make_room(least) {
            tracing::debug!(%error, least, "the kernel does not track more connections than before");
        }
    }

    /// Forwards the lease's node port to the process's `port`.
    pub async fn forward(&self, lease: Lease, port: u16) -> Result<(), Error> {
        self.book()
            .forwards
            .insert(lease.node_port, SocketAddrV4::new(lease.ip, port));
        self.enforce().await
    }

    /// Ends the forwarding: the node refuses connections to the port at once, instead of leaving them unanswered.
    pub async fn stop_forwarding(&self, lease: Lease) -> Result<(), Error> {
        self.book().forwards.remove(&lease.node_port);
        self.enforce().await
    }

    /// Removes the process's link and rules. The lease stays reserved.
    pub async fn disconnect(&self, lease: Lease) -> Result<(), Error> {
        self.stop_forwarding(lease).await?;
        drop(self.book().pool.take(lease.ip));
        let (links, name) = (self.links.clone(), veth_name(lease.ip));
        Ok(blocking(move || links.disconnect(&name, lease.ip)).await?)
    }

    /// Gives the lease back; with the last one, bridge and rules are removed.
    pub async fn release(&self, lease: Lease) -> Result<(), Error> {
        {
            let mut book = self.book();
            book.allocator.release(lease);
            book.leases.remove(&lease.ip);
        }
        self.remove_if_unused().await
    }

    /// Removes links of the bridge that belong to no lease: what an agent that was killed left. Puts the rules in force.
    pub async fn tidy(&self) -> Result<(), Error> {
        let known: BTreeSet<String> = {
            let book = self.book();
            let leased = book.leases.iter().copied();
            leased.chain(book.pool.addresses()).map(veth_name).collect()
        };
        let links = self.links.clone();
        let is_of_use = move |name: &str| known.contains(name) || !name.starts_with(VETH_PREFIX);
        blocking(move || links.tidy(is_of_use)).await?;
        self.enforce().await?;
        self.remove_if_unused().await
    }

    /// Keeps processes from these, and from the controller, from now on; the rules are in force when this returns.
    pub async fn keep_from(&self, apis: BTreeSet<SocketAddrV4>) -> Result<(), Error> {
        self.book().apis = apis;
        self.enforce().await
    }

    /// What the node lacks for it, as far as is known: [`Self::tidy`] finds out.
    pub fn lacking(&self) -> Option<String> {
        self.firewall.get().and_then(Firewall::lacking)
    }

    async fn firewall(&self) -> Result<&Firewall, Error> {
        let choice = self
            .firewall
            .get_or_try_init(|| Firewall::choose(&self.bridge));
        Ok(choice.await?)
    }

    /// Brings the rules in line with the book. Calls that wait for each other share one change.
    async fn enforce(&self) -> Result<(), Error> {
        let mut in_force = self.in_force.lock().await;
        let Some(rules) = self.rules() else {
            return Ok(());
        };
        if in_force.as_ref() == Some(&rules) {
            return Ok(());
        }
        let before = in_force.take();
        let firewall = self.firewall().await?;
        if let Err(error) = firewall.apply(&rules, before.as_ref()).await {
            self.kept().clear();
            return Err(error.into());
        }
        if before.is_none() {
            // Connections are tracked from now on.
            self.make_room();
        }
        *self.kept() = rules.senders.iter().copied().collect();
        *in_force = Some(rules);
        Ok(())
    }

    /// What the book asks for, while anybody has a lease.
    fn rules(&self) -> Option<Rules> {
        let book = self.book();
        let last = *book.leases.last()?;
        Some(Rules {
            bridge: self.bridge.clone(),
            subnet: self.subnet,
            apis: self
                .controller
                .into_iter()
                .chain(book.apis.iter().copied())
                .collect(),
            forwards: book.forwards.clone(),
            senders: self
                .subnet
                .hosts()
                .take(senders_until(self.subnet, last))
                .collect(),
        })
    }

    async fn remove_if_unused(&self) -> Result<(), Error> {
        let mut in_force = self.in_force.lock().await;
        // Who has a lease by now may not have asked yet whether it is kept; who gets one later is told that it is not, and waits.
        let kept = std::mem::take(&mut *self.kept());
        if !self.book().leases.is_empty() {
            *self.kept() = kept;
            return Ok(());
        }
        *in_force = None;
        // Until the bridge is gone nothing is connected to it.
        let _alone = self.filler.alone.lock().await;
        self.filler.empty().await?;
        self.firewall().await?.remove(&self.bridge).await?;
        let links = self.links.clone();
        Ok(blocking(move || links.remove_bridge()).await?)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeSet<Ipv4Addr>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what waits for the kernel.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, links::Error> + Send + 'static,
) -> Result<T, links::Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| links::Error::Ending)?
}

/// How many of the subnet's addresses the rules know, at least up to `last`. They know more than are in use, so that they
/// need no change before each start: an address that nobody has is let through from its own hardware address only, and nobody
/// can send from that.
fn senders_until(subnet: Subnet, last: Ipv4Addr) -> usize {
    const AT_ONCE: usize = 64;
    let number = u32::from(last).saturating_sub(u32::from(subnet.gateway()));
    (number as usize).next_multiple_of(AT_ONCE)
}

const VETH_PREFIX: &str = "tu";

/// Name of the node's end of a process's link: it tells the address, so that leftovers are recognised.
fn veth_name(ip: Ipv4Addr) -> String {
    format!("{VETH_PREFIX}{:08x}", u32::from(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_know_every_leased_address_and_seldom_change() {
        let subnet = Subnet::default();
        let until = |last: &str| senders_until(subnet, last.parse().unwrap());
        assert_eq!(until("172.31.0.2"), 64);
        assert_eq!(until("172.31.0.65"), 64);
        assert_eq!(until("172.31.0.66"), 128);
        let known: Vec<_> = subnet.hosts().take(until("172.31.0.66")).collect();
        assert!(known.contains(&"172.31.0.66".parse().unwrap()));
    }
}
