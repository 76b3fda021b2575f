//! The route table: which processes get requests.
//!
//! Per service up to `concurrency` healthy processes: current ones first, then by age. A draining process stays in the
//! table, marked, until it is stopped. A process that is not healthy is not in the table.

use std::net::SocketAddr;

use tucano_api::routes::{Endpoint, ServiceRoute};

use crate::{
    jobs,
    state::{Process, Service, State, hosts, path_prefix},
    volumes::restores,
};

/// All routes, by service. They are not complete, and not to be published, until every worker has reported after the
/// controller's start.
pub(crate) fn all(state: &State) -> Vec<ServiceRoute> {
    state
        .services
        .values()
        .filter_map(|service| service.route.clone())
        .collect()
}

/// Computes the routes that this step may have changed.
pub(crate) fn update(state: &mut State) {
    for name in std::mem::take(&mut state.changes.reroute) {
        state.changes.renamed.insert(name.clone());
        let Some(service) = state.services.get(&name) else {
            continue;
        };
        if jobs::is_job(service) {
            continue;
        }
        let route = route(state, service);
        if service.route.as_ref() == Some(&route) {
            continue;
        }
        for endpoint in &route.endpoints {
            if let Some(process) = state.processes.get_mut(&endpoint.process.number()) {
                process.was_routed = true;
            }
        }
        if let Some(service) = state.services.get_mut(&name) {
            service.route = Some(route);
            state.changes.publish = true;
        }
    }
}

fn route(state: &State, service: &Service) -> ServiceRoute {
    let config = &service.current().config;
    let (draining, mut serving): (Vec<_>, Vec<_>) = state
        .processes(&service.processes)
        .filter(|process| process.is_healthy() && !is_loading(state, service, process))
        .partition(|process| process.is_draining());
    serving.sort_by_key(|process| !service.is_current(process));
    serving.truncate(service.concurrency());
    let mut routed = [draining, serving].concat();
    routed.sort_by_key(|process| process.record.id.number());
    ServiceRoute {
        service: service.record.name.clone(),
        hosts: hosts(config, &state.settings.domain),
        path_prefix: path_prefix(config).map(str::to_owned),
        endpoints: routed
            .into_iter()
            .filter_map(|process| endpoint(state, process))
            .collect(),
    }
}

/// Whether its volumes do not have all of their content yet.
fn is_loading(state: &State, service: &Service, process: &Process) -> bool {
    let slot = process.record.slot;
    slot.is_some_and(|slot| restores::is_loading(state, &service.record.name, slot))
}

fn endpoint(state: &State, process: &Process) -> Option<Endpoint> {
    let node = &state.nodes[process.node];
    Some(Endpoint {
        process: process.record.id.clone(),
        node: process.record.node.clone(),
        address: SocketAddr::new(node.worker.ip, process.node_port()?),
        weight: node.load.weight(),
        draining: process.is_draining(),
    })
}
