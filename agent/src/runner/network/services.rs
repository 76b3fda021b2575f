//! The services that processes reach by their addresses: who may reach which, and where each answers. Pure.
//!
//! A service's address has [`SLOTS`] elements in one map for each port, shared out to the endpoints by their weights. The kernel
//! draws one for each new connection, so that its cost does not grow with the number of services or endpoints.

mod maps;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use tucano_api::{
    agent::DesiredProcess,
    ids::{PortName, ProcessId, ServiceName},
    names::{NamedEndpoint, NamedPort, NamedService, Names, ServiceSubnet},
};

pub(super) use self::maps::Maps;
use super::addresses::Transport;

/// Process → address of a service that it needs.
type Needs = BTreeSet<(Ipv4Addr, Ipv4Addr)>;

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

/// A process that answers: the protocol, the service's address and port, and its own.
pub(super) type Answering = (Transport, SocketAddrV4, SocketAddrV4);

/// Where a service is reached from this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceMap {
    /// Where new connections go.
    pub(super) elements: Vec<SlotElement>,
    /// All that answer, also those that get no new connection from this node: connections to them stay.
    pub(super) answering: BTreeSet<Answering>,
}

/// The part of the rules that connects services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceRules {
    /// The network of services' addresses: what is not needed there is closed.
    pub(super) subnet: ServiceSubnet,
    /// Who may reach which service. Shared with earlier rules while it is the same.
    pub(super) needs: Arc<Needs>,
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
    needs: Arc<Needs>,
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

/// Where an endpoint answers on a port.
#[derive(Debug, Clone, Copy)]
struct Target {
    to: SocketAddrV4,
    weight: u32,
    /// Whether it is on this node.
    is_local: bool,
    /// Whether it gets no new connections.
    is_leaving: bool,
}

impl ServiceMap {
    /// What answers at a port of an address: all of the targets, or only this node's where the nearest are wanted and any is here.
    fn add(
        &mut self,
        nearest: bool,
        address: Ipv4Addr,
        port: &NamedPort,
        targets: Vec<Target>,
        seed: u32,
    ) {
        let transport = port.protocol.into();
        let at = SocketAddrV4::new(address, port.port);
        let answering = targets.iter().map(|target| (transport, at, target.to));
        self.answering.extend(answering);
        let staying = targets.iter().filter(|it| !it.is_leaving);
        let only_local = nearest && staying.clone().any(|target| target.is_local);
        let chosen = staying.filter(|it| it.is_local || !only_local);
        let shares = shares(chosen.map(|it| (it.to, it.weight)).collect(), seed);
        let elements = shares.into_iter().zip(0..).map(|(to, number)| SlotElement {
            number,
            address,
            transport,
            port: port.port,
            to,
        });
        self.elements.extend(elements);
    }
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
        let mut is_moved = names.whole || !names.gone.is_empty();
        if names.whole {
            let kept: BTreeSet<_> = names.services.iter().map(|it| it.service.clone()).collect();
            self.named.retain(|name, _| kept.contains(name));
            self.maps.retain(|name| kept.contains(name));
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
            is_moved |= !known.is_some_and(|known| addresses(known).eq(addresses(&service)));
            self.named.insert(name.clone(), Arc::new(service));
            self.map(&name);
        }
        if is_moved {
            self.update_needs();
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
        self.map(&config.name);
        self.update_needs();
    }

    /// The address has no process any more.
    pub(super) fn remove_process(&mut self, ip: Ipv4Addr) {
        if let Some(process) = self.processes.remove(&ip) {
            self.map(&process.service);
            self.update_needs();
        }
    }

    /// The other nodes that have endpoints.
    pub(super) fn neighbours(&self) -> BTreeSet<Ipv4Addr> {
        let local: BTreeSet<_> = self.processes.values().map(|it| &it.id).collect();
        let endpoints = self.named.values().flat_map(|it| it.connected());
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
        let affected = services.filter(|it| it.connected().any(is_changed));
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
        Some(ServiceRules {
            subnet: self.subnet?,
            needs: Arc::clone(&self.needs),
            maps: self.maps.clone(),
        })
    }

    /// After a change of processes or addresses. Endpoints are no matter of it.
    fn update_needs(&mut self) {
        let pairs = self.processes.iter().flat_map(|(ip, process)| {
            let needed = process.needs.iter().filter_map(|it| self.named.get(it));
            needed.flat_map(|service| addresses(service).map(|to| (*ip, to)))
        });
        self.needs = Arc::new(pairs.collect());
    }

    fn map(&mut self, name: &ServiceName) {
        let Some(service) = self.named.get(name) else {
            return;
        };
        let map = self.map_of(service);
        self.maps.insert(name.clone(), map);
    }

    fn map_of(&self, service: &NamedService) -> ServiceMap {
        let slots = service.slots.iter().zip(1..);
        let slots = slots.map(|(address, slot)| (*address, Some(slot)));
        let own = [(service.address, None)];
        let mut map = ServiceMap::default();
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
            let leaving = service.leaving.iter().filter(of_slot);
            let leaving = leaving.filter(|it| !self.is_silent(it));
            for (index, port) in service.ports.iter().enumerate() {
                let target = |it: &NamedEndpoint| self.target(service, it, index);
                let staying = endpoints.iter().filter_map(|it| target(it));
                let leaving = leaving.clone().filter_map(|it| {
                    let is_leaving = true;
                    Some(Target {
                        is_leaving,
                        ..target(it)?
                    })
                });
                let targets = staying.chain(leaving).collect();
                map.add(service.nearest, address, port, targets, self.seed);
            }
        }
        map
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
    ) -> Option<Target> {
        let mut local = self.processes.iter();
        let local = local.find(|(_, it)| it.id == endpoint.process);
        let to = match local {
            Some((ip, process)) => {
                let port = process.ports.get(&service.ports[index].name)?;
                SocketAddrV4::new(*ip, *port)
            }
            None => {
                let port = endpoint.address(index)?.port();
                SocketAddrV4::new(endpoint.node_address()?, port)
            }
        };
        Some(Target {
            to,
            weight: endpoint.weight,
            is_local: local.is_some(),
            is_leaving: false,
        })
    }
}

impl ServiceRules {
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotElement> {
        self.maps.all().flat_map(|map| map.elements.iter().copied())
    }

    /// The services that differ, as they are here, and as they are in the other rules.
    pub(super) fn beside<'a>(
        &'a self,
        other: &'a Self,
    ) -> (Vec<&'a ServiceMap>, Vec<&'a ServiceMap>) {
        let (own, others) = (&self.maps, &other.maps);
        (own.beside(others).collect(), others.beside(own).collect())
    }

    /// Who may reach what only by these rules, and what only by the others.
    pub(super) fn needs_beside(&self, other: &Self) -> (Needs, Needs) {
        if Arc::ptr_eq(&self.needs, &other.needs) {
            return (Needs::new(), Needs::new());
        }
        let only = |own: &Needs, others: &Needs| own.difference(others).copied().collect();
        (
            only(&self.needs, &other.needs),
            only(&other.needs, &self.needs),
        )
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
