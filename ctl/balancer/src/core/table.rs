//! The compiled route table: immutable, looked up by host and path, replaced as a whole.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use tracing::warn;
use tucano_api::{
    ids::ServiceName,
    routes::{Endpoint, RouteTable, ServiceRoute},
};

use super::{
    backend::Backend, choose::Rotation, health::Uptime, path::normalize, waiting::Release,
};
use crate::metrics::ServiceStats;

/// All compiled routes.
#[derive(Debug, Default)]
pub struct Table {
    version: Option<String>,
    /// Positions of services by host, longest path prefix first.
    hosts: HashMap<Box<[u8]>, Vec<usize>>,
    services: Vec<Arc<Service>>,
}

/// One service's routes.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Counters of its requests.
    pub stats: Arc<ServiceStats>,
    /// Without a `/` at the end; empty for all paths.
    prefix: String,
    members: Vec<Member>,
    /// Releases requests that have waited for a process.
    pub release: Arc<Release>,
}

/// One process of a service.
#[derive(Debug)]
pub struct Member {
    /// The process.
    pub backend: Arc<Backend>,
    weight: u32,
    draining: bool,
}

/// Whose turn it is among the processes of one service, in one thread.
#[derive(Debug, Default)]
pub struct Choice {
    rotation: Rotation,
}

impl Table {
    /// Compiles `routes` for so many threads. The state of services and processes that `previous` contains too is carried
    /// over.
    pub fn compile(routes: RouteTable, previous: &Self, threads: usize) -> Self {
        let mut table = Self {
            version: Some(routes.version),
            ..Self::default()
        };
        for mut route in routes.services {
            let hosts = std::mem::take(&mut route.hosts);
            let old = previous.service(&route.service);
            let service = Service::compile(route, old.map(Arc::as_ref), threads);
            table.services.push(Arc::new(service));
            for host in hosts {
                table.add(&host.to_ascii_lowercase(), table.services.len() - 1);
            }
        }
        table
    }

    /// Version of the controller's table; `None` before the first one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The position of the service of `host` (lower case, without port) and `path`, whichever way that is written.
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        let places = self.hosts.get(host)?;
        if let [place] = places[..]
            && self.services[place].prefix.is_empty()
        {
            return Some(place);
        }
        // Targets are ASCII.
        let path = normalize(std::str::from_utf8(path).ok()?);
        let mut places = places.iter().copied();
        places.find(|place| self.services[*place].covers(&path))
    }

    /// All services, in the controller's order.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// All processes, including draining ones.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.services.iter().flat_map(|service| service.backends())
    }

    /// The processes of this table that `next` no longer contains, except those that were draining: they leave
    /// as planned and may still finish their responses.
    pub fn lost_in<'a>(&'a self, next: &Self) -> impl Iterator<Item = &'a Arc<Backend>> {
        let kept: HashSet<*const Backend> = next.backends().map(Arc::as_ptr).collect();
        let members = self.services.iter().flat_map(|service| &service.members);
        members
            .filter(|member| !member.draining)
            .map(|member| &member.backend)
            .filter(move |backend| !kept.contains(&Arc::as_ptr(backend)))
    }

    /// Processes that get no new requests.
    pub fn draining(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let members = self.services.iter().flat_map(|service| &service.members);
        members
            .filter(|member| member.draining)
            .map(|member| &member.backend)
    }

    /// Keeps requests that have chosen by an earlier table from draining processes.
    pub fn mark_draining(&self) {
        for member in self.services.iter().flat_map(|service| &service.members) {
            member.backend.set_draining(member.draining);
        }
    }

    /// The service of this name.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.name == *name)
    }

    fn add(&mut self, host: &str, place: usize) {
        let places = self.hosts.entry(host.as_bytes().into()).or_default();
        let all = &self.services;
        let service = &all[place];
        let rank = places.partition_point(|it| all[*it].prefix.len() >= service.prefix.len());
        let mut before = places[..rank].iter().map(|place| &all[*place]);
        if let Some(first) = before.find(|other| other.prefix == service.prefix) {
            warn!(service = %service.name, first = %first.name, "two services share a host and path prefix");
        }
        places.insert(rank, place);
    }
}

impl Service {
    /// Its processes, including draining ones.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether some process may get requests.
    pub fn has_endpoint(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|member| !member.draining && !member.backend.is_lost())
    }

    /// The same.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.members.iter().map(|member| &member.backend)
    }

    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix)
            .is_some_and(|rest| self.prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }

    fn compile(route: ServiceRoute, old: Option<&Self>, threads: usize) -> Self {
        let prefix = route.path_prefix.unwrap_or_default();
        let known = old.map(Self::by_address).unwrap_or_default();
        let endpoints = route.endpoints.into_iter();
        let members = endpoints.map(|endpoint| {
            let carried = known.get(&(endpoint.process.as_str(), endpoint.address));
            let carried = carried.map(|backend| Arc::clone(backend));
            Member::compile(endpoint, carried, threads)
        });
        let new_stats = || Arc::new(ServiceStats::new(threads));
        Self {
            members: members.collect(),
            name: route.service,
            stats: old.map_or_else(new_stats, |old| old.stats.clone()),
            prefix: normalize(&prefix).trim_end_matches('/').to_owned(),
            release: old.map(|old| old.release.clone()).unwrap_or_default(),
        }
    }

    fn by_address(&self) -> HashMap<(&str, SocketAddr), &Arc<Backend>> {
        self.backends()
            .map(|backend| ((backend.process.as_str(), backend.address), backend))
            .collect()
    }
}

impl Choice {
    /// Continues the rotation of `previous` among the processes of `old` with those of `new`. A service without history
    /// begins with its `turn`-th process.
    pub fn carried(previous: Option<(&Self, &Service)>, new: &Service, turn: usize) -> Self {
        let Some((previous, old)) = previous else {
            let mut choice = Self::default();
            for _ in 0..turn % new.members.len().max(1) {
                choice.next(new, |member| !member.draining);
            }
            return choice;
        };
        let credits = previous.rotation.credits().iter().copied();
        let credits = credits.chain(std::iter::repeat(0));
        let old: HashMap<_, _> = old.backends().map(Arc::as_ptr).zip(credits).collect();
        let credit = |backend| old.get(&Arc::as_ptr(backend)).copied().unwrap_or(0);
        Self {
            rotation: Rotation::with_credits(new.backends().map(credit).collect()),
        }
    }

    /// The position of the next process in rotation; `None` if none is left. `tried` have failed this request already, and
    /// other nodes come first: a lost node has lost all of its processes.
    pub fn choose(
        &mut self,
        service: &Service,
        now: Uptime,
        tried: &[Arc<Backend>],
    ) -> Option<usize> {
        let open = |member: &Member| {
            !member.draining && !tried.iter().any(|one| Arc::ptr_eq(one, &member.backend))
        };
        let healthy = |member: &Member| open(member) && !member.backend.health.is_ejected(now);
        let elsewhere = |member: &Member| !tried.iter().any(|one| one.node == member.backend.node);
        let mut chosen = None;
        if !tried.is_empty() {
            chosen = self.next(service, |member| healthy(member) && elsewhere(member));
        }
        if chosen.is_none() {
            chosen = self.next(service, healthy);
        }
        chosen.or_else(|| self.uneject(service, open))
    }

    fn next(&mut self, service: &Service, usable: impl Fn(&Member) -> bool) -> Option<usize> {
        let members = service.members.iter();
        let weights = members.map(|member| usable(member).then_some(member.weight));
        self.rotation.next(weights)
    }

    /// Every candidate is ejected: trying them is better than refusing the request.
    fn uneject(&mut self, service: &Service, open: impl Fn(&Member) -> bool) -> Option<usize> {
        let members = service.members.iter().filter(|member| open(member));
        members.for_each(|member| member.backend.health.uneject());
        self.next(service, open)
    }
}

impl Member {
    fn compile(endpoint: Endpoint, known: Option<Arc<Backend>>, threads: usize) -> Self {
        let Endpoint {
            process,
            node,
            address,
            ..
        } = endpoint;
        let new = || Arc::new(Backend::new(process, node, address, threads));
        let backend = known.unwrap_or_else(new);
        Self {
            backend,
            weight: endpoint.weight.clamp(1, 100),
            draining: endpoint.draining,
        }
    }
}

#[cfg(test)]
mod tests;
