//! The compiled route table: immutable, looked up by host and path, replaced as a whole.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tracing::warn;
use tucano_api::{
    ids::ServiceName,
    routes::{Endpoint, RouteTable, ServiceRoute},
};

use crate::{
    choose::Rotation,
    metrics::ServiceStats,
    path::normalize,
    upstream::{Backend, health::Uptime},
    waiting::Release,
};

/// All compiled routes.
#[derive(Debug, Default)]
pub struct Table {
    version: Option<String>,
    /// Services by host, longest path prefix first.
    hosts: HashMap<String, Vec<Arc<Service>>>,
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
    rotation: Rotation,
    /// Releases requests that have waited for a process.
    pub release: Arc<Release>,
}

#[derive(Debug)]
struct Member {
    backend: Arc<Backend>,
    weight: u32,
    draining: bool,
}

impl Table {
    /// Compiles `routes`. The state of processes that `previous` contains too (pools, ejections, rotation)
    /// is carried over.
    pub fn compile(routes: RouteTable, previous: &Self) -> Self {
        let mut table = Self {
            version: Some(routes.version),
            ..Self::default()
        };
        for mut route in routes.services {
            let hosts = std::mem::take(&mut route.hosts);
            let old = previous.service(&route.service);
            let service = Arc::new(Service::compile(route, old));
            table.services.push(service.clone());
            for host in hosts {
                table.add(host.to_ascii_lowercase(), &service);
            }
        }
        table
    }

    /// Version of the controller's table; `None` before the first one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The service of `host` (lower case, without port) and `path`, whichever way that is written.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Service>> {
        let services = self.hosts.get(host)?;
        let path = normalize(path);
        services.iter().find(|service| service.covers(&path))
    }

    /// All services, ordered by name.
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

    /// Opens the pools of processes that get new requests and closes those of draining ones.
    pub fn update_pools(&self) {
        for member in self.services.iter().flat_map(|service| &service.members) {
            match member.draining {
                true => member.backend.pool.close(),
                false => member.backend.pool.open(),
            }
        }
    }

    fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.name == *name)
            .map(Arc::as_ref)
    }

    fn add(&mut self, host: String, service: &Arc<Service>) {
        let services = self.hosts.entry(host).or_default();
        let place = services.partition_point(|other| other.prefix.len() >= service.prefix.len());
        let before = &services[..place];
        if let Some(first) = before.iter().find(|other| other.prefix == service.prefix) {
            warn!(service = %service.name, first = %first.name, "two services share a host and path prefix");
        }
        services.insert(place, service.clone());
    }
}

impl Service {
    /// The next process in rotation; `None` if none is left. `tried` have failed this request already, and
    /// other nodes come first: a lost node has lost all of its processes.
    pub fn choose(&self, now: Uptime, tried: &[Arc<Backend>]) -> Option<Arc<Backend>> {
        let open = |member: &Member| {
            !member.draining && !tried.iter().any(|one| Arc::ptr_eq(one, &member.backend))
        };
        let healthy = |member: &Member| open(member) && !member.backend.health.is_ejected(now);
        let elsewhere = |member: &Member| !tried.iter().any(|one| one.node == member.backend.node);
        let mut chosen = None;
        if !tried.is_empty() {
            chosen = self.next_member(|member| healthy(member) && elsewhere(member));
        }
        chosen
            .or_else(|| self.next_member(healthy))
            .or_else(|| self.uneject(open))
    }

    /// Whether some process may get requests.
    pub fn has_endpoint(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|member| !member.draining && !member.backend.is_lost())
    }

    fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.members.iter().map(|member| &member.backend)
    }

    fn next_member(&self, usable: impl Fn(&Member) -> bool) -> Option<Arc<Backend>> {
        let weights = self
            .members
            .iter()
            .map(|member| usable(member).then_some(member.weight));
        let index = self.rotation.next(weights)?;
        Some(self.members[index].backend.clone())
    }

    /// Every candidate is ejected: trying them is better than refusing the request.
    fn uneject(&self, open: impl Fn(&Member) -> bool) -> Option<Arc<Backend>> {
        let members = self.members.iter().filter(|member| open(member));
        members.for_each(|member| member.backend.health.uneject());
        self.next_member(open)
    }

    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.prefix)
            .is_some_and(|rest| self.prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }

    fn compile(route: ServiceRoute, old: Option<&Self>) -> Self {
        let prefix = route.path_prefix.unwrap_or_default();
        let known: HashMap<_, _> = old.map(Self::carried).unwrap_or_default();
        let mut members = Vec::with_capacity(route.endpoints.len());
        let mut credits = Vec::with_capacity(route.endpoints.len());
        for endpoint in route.endpoints {
            let carried = known.get(&(endpoint.process.as_str(), endpoint.address));
            let (backend, credit) = carried.copied().unzip();
            let backend = backend.cloned();
            credits.push(credit.unwrap_or(0));
            members.push(Member::compile(endpoint, backend));
        }
        Self {
            name: route.service,
            stats: old.map(|old| old.stats.clone()).unwrap_or_default(),
            prefix: normalize(&prefix).trim_end_matches('/').to_owned(),
            members,
            rotation: Rotation::with_credits(credits),
            release: old.map(|old| old.release.clone()).unwrap_or_default(),
        }
    }

    fn carried(&self) -> HashMap<(&str, std::net::SocketAddr), (&Arc<Backend>, i64)> {
        let credits = self.rotation.credits();
        let credits = credits.into_iter().chain(std::iter::repeat(0));
        self.backends()
            .zip(credits)
            .map(|(backend, credit)| {
                let key = (backend.process.as_str(), backend.address);
                (key, (backend, credit))
            })
            .collect()
    }
}

impl Member {
    fn compile(endpoint: Endpoint, known: Option<Arc<Backend>>) -> Self {
        let Endpoint {
            process,
            node,
            address,
            ..
        } = endpoint;
        let new = || Arc::new(Backend::new(process, node, address));
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
