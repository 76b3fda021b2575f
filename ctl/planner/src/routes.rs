//! The route table: which processes get requests.
//!
//! Per service up to `concurrency` healthy processes: current ones first, then by age. A draining one stays in
//! the table, marked, until it is stopped. Whatever is not healthy is not in it.

use std::net::SocketAddr;

use tucano_api::{
    routes::{Endpoint, ServiceRoute},
    service::ServiceConfig,
};

use crate::{cluster::Cluster, processes::Process, services::Service};

impl Cluster {
    /// All routes as they are now, by service. Until every worker has been heard of after a start, they are not
    /// complete and not to be published.
    pub fn routes(&self) -> Vec<ServiceRoute> {
        self.services
            .values()
            .filter_map(|service| service.route.clone())
            .collect()
    }

    /// Renews the routes that this step may have changed.
    pub(crate) fn reroute(&mut self) {
        for name in std::mem::take(&mut self.changes.reroute) {
            let Some(service) = self.services.get(&name) else {
                continue;
            };
            let route = Some(self.route(service));
            if route != service.route
                && let Some(service) = self.services.get_mut(&name)
            {
                service.route = route;
                self.changes.publish = true;
            }
        }
    }

    fn route(&self, service: &Service) -> ServiceRoute {
        let config = &service.current().config;
        let candidates = service
            .processes
            .iter()
            .filter_map(|number| self.processes.get(number));
        let (draining, mut serving): (Vec<_>, Vec<_>) = candidates
            .filter(|process| process.is_healthy())
            .partition(|process| process.is_draining());
        serving.sort_by_key(|process| !service.is_current(process));
        serving.truncate(service.concurrency());
        let mut routed = [draining, serving].concat();
        routed.sort_by_key(|process| process.record.id.number());
        ServiceRoute {
            service: service.record.name.clone(),
            hosts: hosts(config, &self.settings.domain),
            path_prefix: path_prefix(config).map(str::to_owned),
            endpoints: routed
                .into_iter()
                .filter_map(|process| self.endpoint(process))
                .collect(),
        }
    }

    fn endpoint(&self, process: &Process) -> Option<Endpoint> {
        let node = &self.nodes[process.node];
        Some(Endpoint {
            process: process.record.id.clone(),
            node: process.record.node.clone(),
            address: SocketAddr::new(node.worker.ip, process.node_port()?),
            weight: node.load.weight(),
            draining: process.is_draining(),
        })
    }
}

/// Host names that a service answers to, in lower case, its own below the domain first.
pub(crate) fn hosts(config: &ServiceConfig, domain: &str) -> Vec<String> {
    let own = match domain {
        "" => config.name.to_string(),
        domain => format!("{}.{domain}", config.name),
    };
    let mut hosts: Vec<String> = Vec::new();
    for host in std::iter::once(&own).chain(&config.hosts) {
        let host = host.to_ascii_lowercase();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// The path prefix without a `/` at its end; `None` where all paths match.
pub(crate) fn path_prefix(config: &ServiceConfig) -> Option<&str> {
    let prefix = config.path_prefix.as_deref()?.trim_end_matches('/');
    (!prefix.is_empty()).then_some(prefix)
}
