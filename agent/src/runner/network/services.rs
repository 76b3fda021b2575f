//! The services that processes reach by their addresses: who may reach which, and where each answers. Pure.
//!
//! A service's address has [`SLOTS`] elements in one map for each port, shared out to the endpoints by their weights. The kernel
//! draws one for each new connection, so that its cost does not grow with the number of services or endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use tucano_api::{
    agent::DesiredProcess,
    ids::{PortName, ProcessId, ServiceName},
    names::{NamedEndpoint, NamedService, Names, ServiceSubnet},
};

use super::addresses::Transport;

/// Elements of each port of an address. An address has as many endpoints at most; of more, each node uses others.
pub(super) const SLOTS: u32 = 64;

/// Which process answers a new connection, by the number that the kernel has drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotElement {
    pub(super) number: u32,
    pub(super) address: Ipv4Addr,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) to: SocketAddrV4,
}

/// The elements of each service. Unchanged ones are shared with earlier rules.
pub(super) type Maps = BTreeMap<ServiceName, Arc<Vec<SlotElement>>>;

/// The part of the rules that connects services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceRules {
    /// The network of services' addresses: what is not needed there is closed.
    pub(super) subnet: ServiceSubnet,
    /// Process → address of a service that it needs.
    pub(super) needs: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    pub(super) maps: Maps,
}

/// What is known of services, and of this node's processes.
#[derive(Debug, Default)]
pub(super) struct Services {
    subnet: Option<ServiceSubnet>,
    version: Option<String>,
    named: BTreeMap<ServiceName, Arc<NamedService>>,
    processes: BTreeMap<Ipv4Addr, LocalProcess>,
    maps: Maps,
    /// Nodes whose endpoints are used only where a service has no others.
    silent: BTreeSet<Ipv4Addr>,
    /// Differs between nodes.
    seed: u32,
}

/// A process of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LocalProcess {
    id: ProcessId,
    service: ServiceName,
    needs: BTreeSet<ServiceName>,
    /// Its ports, by their names.
    ports: BTreeMap<PortName, u16>,
}

impl Services {
    pub(super) fn new(seed: u32) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    pub(super) fn set_subnet(&mut self, subnet: Option<ServiceSubnet>) {
        self.subnet = subnet;
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The services that this node knows, with their endpoints, as the next agent reads them.
    pub(super) fn known(&self) -> Names {
        let services = self.named.values();
        Names {
            version: self.version.clone().unwrap_or_default(),
            whole: true,
            services: services.map(|it| it.as_ref().clone()).collect(),
            gone: Vec::new(),
        }
    }

    /// Takes what has changed.
    pub(super) fn learn(&mut self, names: Names) {
        if names.whole {
            let kept: BTreeSet<_> = names.services.iter().map(|it| it.service.clone()).collect();
            self.named.retain(|name, _| kept.contains(name));
            self.maps.retain(|name, _| kept.contains(name));
        }
        for name in names.gone {
            self.named.remove(&name);
            self.maps.remove(&name);
        }
        for service in names.services {
            let name = service.service.clone();
            let known = self.named.get(&name);
            if known.is_some_and(|known| **known == service) {
                continue;
            }
            self.named.insert(name.clone(), Arc::new(service));
            self.map(&name);
        }
        self.version = Some(names.version);
    }

    /// A process has this address, and its configuration may have changed.
    pub(super) fn set_process(&mut self, ip: Ipv4Addr, process: &DesiredProcess) {
        let config = &process.config;
        let local = LocalProcess {
            id: process.id.clone(),
            service: config.name.clone(),
            needs: config.needs.iter().cloned().collect(),
            ports: ports(process),
        };
        if self.processes.get(&ip) == Some(&local) {
            return;
        }
        self.processes.insert(ip, local);
        self.map(&config.name.clone());
    }

    /// The address has no process any more.
    pub(super) fn remove_process(&mut self, ip: Ipv4Addr) {
        if let Some(process) = self.processes.remove(&ip) {
            self.map(&process.service);
        }
    }

    /// The other nodes that have endpoints.
    pub(super) fn neighbours(&self) -> BTreeSet<Ipv4Addr> {
        let local: BTreeSet<_> = self.processes.values().map(|it| &it.id).collect();
        let endpoints = self.named.values().flat_map(|it| &it.endpoints);
        let others = endpoints.filter(|it| !local.contains(&it.process));
        others.filter_map(|it| it.node_address()).collect()
    }

    /// Nodes whose endpoints get no connections while their service has others.
    pub(super) fn set_silent(&mut self, silent: BTreeSet<Ipv4Addr>) {
        let changed: BTreeSet<_> = silent.symmetric_difference(&self.silent).copied().collect();
        self.silent = silent;
        let is_changed =
            |it: &NamedEndpoint| it.node_address().is_some_and(|ip| changed.contains(&ip));
        let services = self.named.values();
        let affected = services.filter(|it| it.endpoints.iter().any(is_changed));
        let affected: Vec<_> = affected.map(|it| it.service.clone()).collect();
        affected.iter().for_each(|name| self.map(name));
    }

    /// Whether any process of this node needs a service.
    pub(super) fn are_needed(&self) -> bool {
        self.processes.values().any(|it| !it.needs.is_empty())
    }

    /// Those of these services that are not known yet.
    pub(super) fn unknown<'a>(
        &self,
        needs: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Vec<ServiceName> {
        let unknown = needs.into_iter().filter(|it| !self.named.contains_key(*it));
        unknown.cloned().collect()
    }

    /// What a process at this address may reach.
    pub(super) fn visible(&self, from: Ipv4Addr) -> Vec<Arc<NamedService>> {
        let process = self.processes.get(&from);
        let needs = process.iter().flat_map(|process| &process.needs);
        needs.filter_map(|it| self.named.get(it).cloned()).collect()
    }

    /// The network of services' addresses.
    pub(super) fn subnet(&self) -> Option<ServiceSubnet> {
        self.subnet
    }

    /// The rules; `None` while the network of services is not known.
    pub(super) fn rules(&self) -> Option<ServiceRules> {
        let pairs = self.processes.iter().flat_map(|(ip, process)| {
            let needed = process.needs.iter().filter_map(|it| self.named.get(it));
            needed.flat_map(|service| addresses(service).map(|to| (*ip, to)))
        });
        Some(ServiceRules {
            subnet: self.subnet?,
            needs: pairs.collect(),
            maps: self.maps.clone(),
        })
    }

    fn map(&mut self, name: &ServiceName) {
        let Some(service) = self.named.get(name) else {
            return;
        };
        let elements = self.elements(service);
        self.maps.insert(name.clone(), Arc::new(elements));
    }

    fn elements(&self, service: &NamedService) -> Vec<SlotElement> {
        let slots = service.slots.iter().zip(1..);
        let slots = slots.map(|(address, slot)| (*address, Some(slot)));
        let own = [(service.address, None)];
        let mut elements = Vec::new();
        for (address, slot) in own.into_iter().chain(slots) {
            let of_slot = |it: &&NamedEndpoint| slot.is_none() || it.slot == slot;
            let all = service.endpoints.iter().filter(of_slot);
            let (silent, answering): (Vec<_>, Vec<_>) = all.partition(|it| self.is_silent(it));
            // If all are silent, it may as well be this node that is cut off.
            let endpoints = if answering.is_empty() {
                silent
            } else {
                answering
            };
            for (index, port) in service.ports.iter().enumerate() {
                let weighted = endpoints.iter().filter_map(|endpoint| {
                    let to = self.target(service, endpoint, index)?;
                    Some((to, endpoint.weight))
                });
                let shares = shares(weighted.collect(), self.seed);
                elements.extend(shares.into_iter().zip(0..).map(|(to, number)| SlotElement {
                    number,
                    address,
                    transport: port.protocol.into(),
                    port: port.port,
                    to,
                }));
            }
        }
        elements
    }

    fn is_silent(&self, endpoint: &NamedEndpoint) -> bool {
        let address = endpoint.node_address();
        let is_local = || self.processes.values().any(|it| it.id == endpoint.process);
        address.is_some_and(|ip| self.silent.contains(&ip)) && !is_local()
    }

    /// Where an endpoint answers: a neighbour on this node at its own address, another one at its node's port.
    fn target(
        &self,
        service: &NamedService,
        endpoint: &NamedEndpoint,
        index: usize,
    ) -> Option<SocketAddrV4> {
        let mut local = self.processes.iter();
        if let Some((ip, process)) = local.find(|(_, it)| it.id == endpoint.process) {
            let port = process.ports.get(&service.ports[index].name)?;
            return Some(SocketAddrV4::new(*ip, *port));
        }
        let port = endpoint.address(index)?.port();
        Some(SocketAddrV4::new(endpoint.node_address()?, port))
    }
}

impl ServiceRules {
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotElement> {
        self.maps
            .values()
            .flat_map(|elements| elements.iter().copied())
    }

    /// The elements of services that differ.
    pub(super) fn slots_beside(&self, other: &Self) -> (Vec<SlotElement>, Vec<SlotElement>) {
        let mut both = (Vec::new(), Vec::new());
        let names: BTreeSet<_> = self.maps.keys().chain(other.maps.keys()).collect();
        for name in names {
            let (own, others) = (self.maps.get(name), other.maps.get(name));
            let same = own.zip(others).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                both.0.extend(own.iter().flat_map(|it| it.iter().copied()));
                both.1
                    .extend(others.iter().flat_map(|it| it.iter().copied()));
            }
        }
        both
    }
}

/// The addresses of a service and of its slots.
fn addresses(service: &NamedService) -> impl Iterator<Item = Ipv4Addr> {
    [service.address]
        .into_iter()
        .chain(service.slots.iter().copied())
}

fn ports(process: &DesiredProcess) -> BTreeMap<PortName, u16> {
    let all = process.config.all_ports().into_iter();
    all.map(|it| (it.name, it.port.port)).collect()
}

/// Gives each endpoint of at most [`SLOTS`] a share by its weight, at least one, in their order. No endpoint has no share.
fn shares(endpoints: Vec<(SocketAddrV4, u32)>, seed: u32) -> Vec<SocketAddrV4> {
    let endpoints = some_of(endpoints, seed);
    if endpoints.is_empty() {
        return Vec::new();
    }
    let mut counts = vec![1_u32; endpoints.len()];
    for _ in endpoints.len()..SLOTS as usize {
        // The one that has the least for its weight (Sainte-Laguë).
        let claim = |index: &usize| {
            let weight = f64::from(endpoints[*index].1.max(1));
            weight / f64::from(2 * counts[*index] + 1)
        };
        let next = (0..endpoints.len())
            .rev()
            .max_by(|a, b| claim(a).total_cmp(&claim(b)));
        counts[next.unwrap_or_default()] += 1;
    }
    let all = endpoints.iter().zip(counts);
    all.flat_map(|((to, _), count)| (0..count).map(|_| *to))
        .collect()
}

/// As many endpoints as there are slots, others on each node.
fn some_of(endpoints: Vec<(SocketAddrV4, u32)>, seed: u32) -> Vec<(SocketAddrV4, u32)> {
    let (count, most) = (endpoints.len(), SLOTS as usize);
    if count <= most {
        return endpoints;
    }
    let first = seed as usize % count;
    (0..most)
        .map(|index| endpoints[(first + index * count / most) % count])
        .collect()
}

#[cfg(test)]
mod tests;
