//! The processes' network: a bridge with a veth pair for each process, node ports forwarded by nftables or iptables.
//!
//! Nothing of it exists while the node has no process: the bridge and the rules come with the first and go with the last.

mod addresses;
mod cidr;
mod cluster;
mod connections;
mod conntrack;
mod elements;
#[cfg(test)]
mod elements_tests;
mod firewall;
mod iptables;
mod links;
mod names;
mod namespace;
mod neighbours;
mod netlink;
mod ping;
mod pool;
mod ports;
mod rules;
mod service_rules;
mod services;
mod sockets;
mod suspicion;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use addresses::{
    Allocator, Exhausted, IDS_PER_PROCESS, Lease, NodePort, PortRange, Subnet, Transport,
};
pub use cidr::Cidr;
pub use cluster::Cluster;
use firewall::Firewall;
use links::Links;
use pool::{Pool, PoolFiller};
pub use ports::{FurtherPorts, by_name};
use rules::Rules;
use services::Services;
use tokio::sync::watch as watch_channel;
use tucano_api::names::{Names, ServiceSubnet};
use tucano_api::service::{NamedPort, ServiceConfig};

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
    ports: PortRange,
    clients: BTreeSet<Cidr>,
    /// The controller's API, if its URL has an IPv4 address.
    controller: Option<SocketAddrV4>,
    links: Links,
    filler: PoolFiller,
    /// Detected with the first change of rules.
    firewall: tokio::sync::OnceCell<Firewall>,
    state: Arc<Mutex<State>>,
    /// Minimum size of the connection tracking table.
    tracked_connections: u64,
    /// The rules in force, if any; locked while they change.
    in_force: tokio::sync::Mutex<Option<Rules>>,
    /// Counts complete replacements of the rules.
    rules_replaced: AtomicU64,
    /// Counts rules that were put back after another program had removed them.
    rules_restored: AtomicU64,
    /// The network that a route closes.
    closed: Mutex<Option<ServiceSubnet>>,
    names_changed: watch_channel::Sender<()>,
    needs_changed: watch_channel::Sender<()>,
    /// Addresses whose anti-spoofing rule is in force. A separate lock: starts need not wait for a change of other rules.
    enforced: Mutex<BTreeSet<Ipv4Addr>>,
}

/// Leases, forwarded ports and blocked addresses.
#[derive(Debug)]
struct State {
    allocator: Allocator,
    pool: Pool,
    leases: BTreeSet<Ipv4Addr>,
    /// The networks of processes. Kept, so that a program that has ended refuses connections until they go elsewhere.
    namespaces: BTreeMap<Ipv4Addr, Arc<OwnedFd>>,
    forwards: BTreeMap<NodePort, SocketAddrV4>,
    cluster: Cluster,
    services: Services,
    /// Name servers of processes.
    resolvers: BTreeSet<Ipv4Addr>,
}

/// Options of [`Network::new`].
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Name of the bridge.
    pub bridge: &'a str,
    /// Subnet of the processes.
    pub subnet: Subnet,
    /// Node ports.
    pub ports: PortRange,
    /// Clients of node ports beside the cluster's machines.
    pub clients: BTreeSet<Cidr>,
    /// The controller's API, if its URL has an IPv4 address.
    pub controller: Option<SocketAddrV4>,
    /// What an earlier agent knew of the cluster.
    pub cluster: Cluster,
    /// The services that an earlier agent knew.
    pub names: Names,
    /// Differs between nodes, so that they use different endpoints of services that have very many.
    pub seed: u32,
    /// Number of spare networks that are prepared while the node has processes.
    pub ready: usize,
    /// Minimum size of the connection tracking table (`nf_conntrack_max`) while the node has processes.
    pub tracked_connections: u64,
}

impl Network {
    /// The network in the agent's network namespace. Changes nothing yet.
    ///
    /// # Errors
    /// The netlink socket cannot be opened.
    pub fn new(options: Options<'_>) -> Result<Self, Error> {
        let links = Links::new(options.bridge, options.subnet)?;
        let mut services = Services::new(options.seed);
        services.set_subnet(options.cluster.services);
        services.learn(options.names);
        let state = Arc::new(Mutex::new(State {
            services,
            allocator: Allocator::new(options.subnet, options.ports),
            pool: Pool::new(options.ready),
            leases: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            forwards: BTreeMap::new(),
            cluster: options.cluster,
            resolvers: [options.subnet.gateway()].into(),
        }));
        Ok(Self {
            bridge: options.bridge.to_owned(),
            subnet: options.subnet,
            ports: options.ports,
            clients: options.clients,
            controller: options.controller,
            filler: PoolFiller {
                state: Arc::clone(&state),
                links: links.clone(),
                filling: Arc::default(),
            },
            links,
            firewall: tokio::sync::OnceCell::new(),
            state,
            tracked_connections: options.tracked_connections,
            in_force: tokio::sync::Mutex::new(None),
            rules_replaced: AtomicU64::new(0),
            rules_restored: AtomicU64::new(0),
            closed: Mutex::default(),
            names_changed: watch_channel::Sender::new(()),
            needs_changed: watch_channel::Sender::new(()),
            enforced: Mutex::default(),
        })
    }

    /// Reserves an address, user ids, and for each of the service's ports a port of the node.
    ///
    /// # Errors
    /// No address is free, or too few ports.
    pub fn lease(&self, config: &ServiceConfig) -> Result<(Lease, FurtherPorts), Exhausted> {
        let state = &mut *self.state();
        let main = ports::main_transport(config);
        let prepared = state.pool.first();
        let lease = state.allocator.lease(prepared, main)?;
        let further = ports::further(config)
            .into_iter()
            .map(|NamedPort { name, port }| {
                let transport = port.protocol.into();
                Ok((name, state.allocator.further_port(lease, transport)?))
            });
        let further = further.collect::<Result<_, Exhausted>>();
        let further = further.inspect_err(|_| {
            state.allocator.release(lease);
            // The prepared network keeps its address.
            if let Some(ip) = prepared {
                state.allocator.reserve_this(ip);
            }
        })?;
        state.pool.lease(lease.ip);
        state.leases.insert(lease.ip);
        Ok((lease, further))
    }

    /// Takes over the lease of an earlier agent's process, and the forwardings if it runs; false if the lease conflicts.
    /// [`Self::tidy`] then puts the rules in force.
    pub fn adopt(
        &self,
        lease: Lease,
        ports: &FurtherPorts,
        config: &ServiceConfig,
        is_running: bool,
    ) -> bool {
        let state = &mut *self.state();
        if state.allocator.conflicts(lease) {
            return false;
        }
        state.allocator.adopt(lease, ports::main_transport(config));
        let mut further = ports::further(config).into_iter();
        let is_free = further.all(|NamedPort { name, port }| {
            let node_port = ports.get(&name).copied();
            let transport = port.protocol.into();
            node_port.is_some_and(|it| state.allocator.adopt_further(lease, it, transport))
        });
        if !is_free {
            state.allocator.release(lease);
            return false;
        }
        state.leases.insert(lease.ip);
        if is_running {
            let forwards = ports::forwards(lease, ports, config);
            state.forwards.extend(forwards);
        }
        true
    }

    /// A network namespace with the lease's address, connected to the bridge: a prepared one, else a new one.
    ///
    /// # Errors
    /// The namespace, its links or the rules cannot be set up.
    pub async fn connect(&self, lease: Lease) -> Result<OwnedFd, Error> {
        // The rules must be in force before anything can send from the address.
        if !self.enforced().contains(&lease.ip) {
            self.enforce().await?;
        }
        let name = veth_name(lease.ip);
        let ready = self.state().pool.take(lease.ip);
        let ready = match ready {
            Some(ready) => {
                let (links, name) = (self.links.clone(), name.clone());
                // Another program may have removed the bridge or the link since.
                let is_connected = blocking(move || links.are_connected(&name)).await?;
                is_connected.then_some(ready)
            }
            None => None,
        };
        let network = match ready {
            Some(ready) => ready,
            None => {
                let links = self.links.clone();
                namespace::on_own_thread(move || links.connect(&name, lease.ip)).await?
            }
        };
        self.keep_namespace(lease, network.try_clone());
        Ok(network)
    }

    /// Keeps the network of a process that runs. Only what is done after its end depends on that.
    pub fn keep_namespace(&self, lease: Lease, network: io::Result<OwnedFd>) {
        match network {
            Ok(network) => drop(self.state().namespaces.insert(lease.ip, Arc::new(network))),
            Err(error) => tracing::warn!(%error, "cannot keep the network of a process"),
        }
    }

    /// Prepares spare networks; called after a start.
    pub fn prepare(&self) -> impl Future<Output = ()> + Send + use<> {
        self.filler.clone().fill()
    }

    /// Best effort: processes run without it.
    fn enlarge_conntrack(&self) {
        let least = self.tracked_connections;
        if let Err(error) = conntrack::enlarge(least) {
            tracing::debug!(%error, least, "cannot enlarge the connection tracking table");
        }
    }

    /// Forwards the node's ports of a process to its own.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn forward(
        &self,
        lease: Lease,
        ports: &FurtherPorts,
        config: &ServiceConfig,
    ) -> Result<(), Error> {
        let forwards = ports::forwards(lease, ports, config);
        self.state().forwards.extend(forwards);
        self.enforce().await
    }

    /// Stops the forwarding: the node then refuses connections to the ports instead of dropping them.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn stop_forwarding(&self, lease: Lease) -> Result<(), Error> {
        let is_others = |_: &NodePort, to: &mut SocketAddrV4| *to.ip() != lease.ip;
        self.state().forwards.retain(is_others);
        self.enforce().await
    }

    /// Removes the process's link and rules. The lease stays reserved.
    ///
    /// # Errors
    /// The link or the rules cannot be removed.
    pub async fn disconnect(&self, lease: Lease) -> Result<(), Error> {
        self.stop_forwarding(lease).await?;
        drop(self.state().pool.take(lease.ip));
        let (links, name) = (self.links.clone(), veth_name(lease.ip));
        blocking(move || links.disconnect(&name, lease.ip)).await?;
        self.state().namespaces.remove(&lease.ip);
        Ok(())
    }

    /// Releases the lease; with the last one, bridge and rules are removed.
    ///
    /// # Errors
    /// The bridge or the rules cannot be removed.
    pub async fn release(&self, lease: Lease) -> Result<(), Error> {
        {
            let mut state = self.state();
            state.allocator.release(lease);
            state.leases.remove(&lease.ip);
            state.services.remove_process(lease.ip);
        }
        self.needs_changed.send_replace(());
        self.remove_if_unused().await
    }

    /// Removes links without a lease, which a killed agent may have left, and puts the rules in force.
    ///
    /// # Errors
    /// A link cannot be removed, or the rules cannot be changed.
    pub async fn tidy(&self) -> Result<(), Error> {
        let known: BTreeSet<String> = {
            let state = self.state();
            let leased = state.leases.iter().copied();
            leased
                .chain(state.pool.addresses())
                .map(veth_name)
                .collect()
        };
        let links = self.links.clone();
        let is_used = move |name: &str| known.contains(name) || !name.starts_with(VETH_PREFIX);
        blocking(move || links.tidy(is_used)).await?;
        self.enforce().await?;
        self.remove_if_unused().await
    }

    /// What is known of the cluster's machines.
    pub fn cluster(&self) -> Cluster {
        self.state().cluster.clone()
    }

    /// Whether the controller was seen at this address.
    pub fn knows_controller(&self, ip: Ipv4Addr) -> bool {
        self.state().cluster.controllers.contains(&ip)
    }

    /// Changes what is known of the cluster's machines; the rules are in force on return.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn update_cluster(&self, change: impl FnOnce(&mut Cluster)) -> Result<(), Error> {
        {
            let state = &mut *self.state();
            change(&mut state.cluster);
            state.services.set_subnet(state.cluster.services);
        }
        self.enforce().await
    }

    /// Sets the name servers of processes; the rules are in force on return.
    ///
    /// # Errors
    /// The rules cannot be changed.
    pub async fn set_resolvers(&self, mut resolvers: BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        // The agent answers there.
        resolvers.insert(self.subnet.gateway());
        if self.state().resolvers == resolvers {
            return Ok(());
        }
        self.state().resolvers = resolvers;
        self.enforce().await
    }

    /// A condition of the node's network, if there is one. Known after [`Self::tidy`].
    pub fn condition(&self) -> Option<String> {
        let firewall = self.firewall.get().and_then(Firewall::condition);
        firewall.or_else(|| self.subnet_conflict())
    }

    async fn firewall(&self) -> Result<&Firewall, Error> {
        let firewall = self
            .firewall
            .get_or_try_init(|| Firewall::detect(&self.bridge));
        Ok(firewall.await?)
    }

    /// Puts the rules for the current state in force. Concurrent calls share one change.
    async fn enforce(&self) -> Result<(), Error> {
        let mut in_force = self.in_force.lock().await;
        if self.state().leases.is_empty() {
            return Ok(());
        }
        let firewall = self.firewall().await?;
        let Some(rules) = self.rules() else {
            return Ok(());
        };
        if in_force.as_ref() == Some(&rules) {
            return Ok(());
        }
        let before = in_force.take();
        let applied = firewall.apply(&rules, before.as_ref()).await;
        let is_replaced = applied.inspect_err(|_| self.enforced().clear())?;
        if before.is_none() {
            // Connection tracking starts with the first rules.
            self.enlarge_conntrack();
        }
        if is_replaced {
            self.rules_replaced.fetch_add(1, Ordering::Relaxed);
        }
        *self.enforced() = rules.senders.iter().copied().collect();
        let services = rules.services.as_ref();
        let of_before = before.as_ref().and_then(|rules| rules.services.as_ref());
        let ended = services.zip(of_before);
        let ended = ended.map_or_else(Vec::new, |(now, before)| connections::ended(before, now));
        let closed = services.map(|it| it.subnet).filter(|_| is_replaced);
        *in_force = Some(rules);
        self.close(closed, ended).await;
        Ok(())
    }

    /// The rules for the current state; `None` without a lease.
    fn rules(&self) -> Option<Rules> {
        let connects = self.connects_services();
        let state = self.state();
        let last = *state.leases.last()?;
        Some(Rules {
            bridge: self.bridge.clone(),
            subnet: self.subnet,
            apis: state.cluster.apis(self.controller),
            port_range: self.ports,
            machines: state.cluster.machines(self.controller),
            clients: self.clients.clone(),
            workers: state.cluster.workers.clone(),
            resolvers: state.resolvers.clone(),
            forwards: state.forwards.clone(),
            services: connects.then(|| state.services.rules()).flatten(),
            senders: self
                .subnet
                .hosts()
                .take(senders_until(self.subnet, last))
                .collect(),
        })
    }

    async fn remove_if_unused(&self) -> Result<(), Error> {
        let mut in_force = self.in_force.lock().await;
        // Cleared before the check: a lease that is granted afterwards finds its rule missing, and waits for `in_force`.
        let enforced = std::mem::take(&mut *self.enforced());
        if !self.state().leases.is_empty() {
            *self.enforced() = enforced;
            return Ok(());
        }
        *in_force = None;
        // No network is prepared until the bridge is removed.
        let _filling = self.filler.filling.lock().await;
        self.filler.empty().await?;
        self.firewall().await?.remove(&self.bridge).await?;
        self.reopen().await?;
        let links = self.links.clone();
        Ok(blocking(move || links.remove_bridge()).await?)
    }

    fn enforced(&self) -> MutexGuard<'_, BTreeSet<Ipv4Addr>> {
        self.enforced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a blocking operation.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, links::Error> + Send + 'static,
) -> Result<T, links::Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| links::Error::Ending)?
}

/// Number of the subnet's addresses with an anti-spoofing rule, including `last`. Rules exist in advance, so that a start need
/// not change them: an unused address is accepted only from its own hardware address, which no process has.
fn senders_until(subnet: Subnet, last: Ipv4Addr) -> usize {
    const BATCH: usize = 64;
    let number = u32::from(last).saturating_sub(u32::from(subnet.gateway()));
    (number as usize).next_multiple_of(BATCH)
}

const VETH_PREFIX: &str = "tu";

/// Name of the node's end of a process's link. It contains the address, so that leftovers are recognised.
fn veth_name(ip: Ipv4Addr) -> String {
    format!("{VETH_PREFIX}{:08x}", u32::from(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anti_spoofing_rules_cover_every_lease_in_batches() {
        let subnet = Subnet::default();
        let until = |last: &str| senders_until(subnet, last.parse().unwrap());
        assert_eq!(until("172.31.0.2"), 64);
        assert_eq!(until("172.31.0.65"), 64);
        assert_eq!(until("172.31.0.66"), 128);
        let covered: Vec<_> = subnet.hosts().take(until("172.31.0.66")).collect();
        assert!(covered.contains(&"172.31.0.66".parse().unwrap()));
    }
}
