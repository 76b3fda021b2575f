//! The services that processes find by name: for each node those that its processes need, where they answer.
//!
//! - [`addresses`]: which address each service has; [`checks`]: whether a service can need another one, or be removed;
//! - [`start`]: services that are started for the first time after others.

pub(crate) mod addresses;
pub(crate) mod checks;
pub(crate) mod start;

use std::{collections::BTreeSet, sync::Arc};

use tucano_api::{
    ids::{NodeName, PortName, ServiceName},
    names::{NamedEndpoint, NamedPort, NamedService},
    routes::Endpoint,
    service::ServiceConfig,
};

use crate::{
    model::NamesUpdate,
    state::{Node, Process, Service, State},
};

/// Computes what this step may have changed, and keeps it until it can be published.
pub(crate) fn update(state: &mut State) {
    addresses::assign(state);
    for name in std::mem::take(&mut state.changes.renamed) {
        let entry = state.services.get(&name).and_then(|it| entry(state, it));
        if state.named.get(&name).map(AsRef::as_ref) == entry.as_ref() {
            continue;
        }
        let entry = entry.map(Arc::new);
        match entry.clone() {
            Some(entry) => state.named.insert(name.clone(), entry),
            None => state.named.remove(&name),
        };
        state.changes.names.services.insert(name, entry);
    }
    let mut nodes = std::mem::take(&mut state.changes.needy);
    nodes.extend(state.changes.reassign.iter().cloned());
    for name in nodes {
        update_needs(state, name);
    }
}

/// Every service, and what each node needs.
pub(crate) fn all(state: &State) -> NamesUpdate {
    let services = state.named.iter();
    let nodes = state.nodes.iter();
    let needs = nodes.map(|node| (node.record.name.clone(), node.needs.clone()));
    NamesUpdate {
        services: services
            .map(|(name, entry)| (name.clone(), Some(Arc::clone(entry))))
            .collect(),
        needs: needs.filter(|(_, needs)| !needs.is_empty()).collect(),
    }
}

/// A node's processes have changed.
fn update_needs(state: &mut State, name: NodeName) {
    let index = state.node_index.get(&name).copied();
    let needs = index.map_or_else(BTreeSet::new, |index| needs_of(state, &state.nodes[index]));
    let Some(index) = index else {
        state.changes.names.needs.insert(name, needs);
        return;
    };
    if state.nodes[index].needs == needs {
        return;
    }
    state.nodes[index].needs.clone_from(&needs);
    state.changes.names.needs.insert(name, needs);
}

/// The services that processes on a node need, also those that have yet to end.
fn needs_of(state: &State, node: &Node) -> BTreeSet<ServiceName> {
    // Runs have the needs of their services.
    let numbers = node.all_processes();
    let desired = state.processes(&numbers);
    let desired = desired.filter_map(|process| state.revision_of(&process.record));
    let ending = node.undesired.iter().filter_map(|it| {
        let service = state.services.get(&it.report.service)?;
        service.revision(it.report.revision)
    });
    let needs = desired.chain(ending).flat_map(|it| &it.config.needs);
    needs.cloned().collect()
}

fn entry(state: &State, service: &Service) -> Option<NamedService> {
    let ports = ports(&service.current().config);
    let slots = match service.has_volumes() {
        true => (1..=service.current().config.concurrency)
            .map_while(|slot| service.record.slot_addresses.get(&slot).copied())
            .collect(),
        false => Vec::new(),
    };
    let route = service.route.iter().flat_map(|route| &route.endpoints);
    let of_state = |draining: bool| {
        let endpoints = route.clone().filter(|it| it.draining == draining);
        let named = endpoints.filter_map(|it| endpoint(state, it, &ports));
        named.collect::<Vec<_>>()
    };
    let (endpoints, leaving) = (of_state(false), of_state(true));
    Some(NamedService {
        service: service.record.name.clone(),
        nearest: service.current().config.nearest,
        address: service.record.address?,
        slots,
        endpoints,
        leaving,
        ports,
    })
}

fn endpoint(state: &State, endpoint: &Endpoint, ports: &[NamedPort]) -> Option<NamedEndpoint> {
    let process = state.process(&endpoint.process)?;
    let node_ports = ports
        .iter()
        .map(|port| node_port(state, process, &port.name));
    Some(NamedEndpoint {
        process: endpoint.process.clone(),
        node: endpoint.node.clone(),
        slot: process.record.slot,
        weight: endpoint.weight,
        ip: endpoint.address.ip(),
        node_ports: node_ports.collect(),
    })
}

/// The node's port for a process's port of this name. An agent of an earlier version reports the one of its main port only.
fn node_port(state: &State, process: &Process, name: &PortName) -> Option<u16> {
    let report = process.report.as_ref()?;
    let named = report.ports.get(name).copied();
    named.or_else(|| {
        let config = &state.revision_of(&process.record)?.config;
        let is_main = config.main_port().is_some_and(|main| main.name == *name);
        report.node_port.filter(|_| is_main)
    })
}

/// The ports of a configuration, ordered by name.
pub(crate) fn ports(config: &ServiceConfig) -> Vec<NamedPort> {
    let all = config.all_ports().into_iter();
    all.map(|it| NamedPort {
        name: it.name,
        port: it.port.port,
        protocol: it.port.protocol,
    })
    .collect()
}

/// Whether any process needs this service, also one that has yet to end.
pub(crate) fn is_needed(state: &State, name: &ServiceName) -> bool {
    state.nodes.iter().any(|node| node.needs.contains(name))
}

/// The services that need this one.
pub(crate) fn reachable_from(state: &State, name: &ServiceName) -> BTreeSet<ServiceName> {
    let others = state.services.values();
    others
        .filter(|other| other.current().config.needs.contains(name))
        .map(|other| other.record.name.clone())
        .collect()
}

/// Whether there is nothing to publish.
pub(crate) fn is_empty(update: &NamesUpdate) -> bool {
    update.services.is_empty() && update.needs.is_empty()
}
