//! A model of a balancer: it follows the routes, has requests in flight, and reports which draining processes have none.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{BalancerId, ProcessId},
    routes::ServiceRoute,
    units::{Span, Timestamp},
};

use crate::network::Rng;

const REPORT_INTERVAL: Span = Span::secs(5);

/// Which table: the number of the controller's start, and the table's number since then.
pub type Version = (u64, u64);

/// A balancer.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Its identity, another one after each start.
    pub id: BalancerId,
    /// Whether it reaches the controller.
    pub connected: bool,
    /// Whether it is of an earlier version, which does not confirm.
    pub is_old: bool,
    /// The longest request.
    pub longest: Span,
    /// The routes in force.
    pub routes: Vec<ServiceRoute>,
    /// Their version.
    pub version: Version,
    /// Requests in flight: the process, and when its response ends.
    pub requests: Vec<(ProcessId, Timestamp)>,
    /// When it last reached the controller, and which start of it.
    pub heard: Option<(u64, Timestamp)>,
    report_at: Timestamp,
    last_reported: BTreeSet<ProcessId>,
}

impl Balancer {
    /// A balancer that has just started.
    pub fn new(name: &str) -> Self {
        Self {
            id: name.parse().unwrap(),
            connected: true,
            is_old: false,
            longest: Span::secs(2),
            routes: Vec::new(),
            version: (0, 0),
            requests: Vec::new(),
            heard: None,
            report_at: Timestamp(0),
            last_reported: BTreeSet::new(),
        }
    }

    /// Kills it and starts another one in its place, without its requests.
    pub fn restart(&mut self, name: &str) {
        let fresh = Self::new(name);
        *self = Self {
            connected: self.connected,
            is_old: self.is_old,
            longest: self.longest,
            ..fresh
        };
    }

    /// Puts new routes in force.
    pub fn take(&mut self, version: Version, routes: &[ServiceRoute]) {
        if self.version != version {
            self.version = version;
            self.routes = routes.to_vec();
            self.report_at = Timestamp(0);
        }
    }

    /// Ends requests and begins new ones.
    pub fn serve(&mut self, now: Timestamp, rng: &mut Rng) {
        self.requests.retain(|(_, end)| *end > now);
        let serving: Vec<_> = self.serving().cloned().collect();
        for process in serving {
            if rng.below(4) == 0 {
                let length = Span::millis(rng.below(self.longest.as_millis() + 1));
                self.requests.push((process, now.after(length)));
            }
        }
    }

    /// The processes that it confirms, if a report is due.
    pub fn report(&mut self, now: Timestamp) -> Option<BTreeSet<ProcessId>> {
        let endpoints = self.routes.iter().flat_map(|route| &route.endpoints);
        let draining = endpoints.filter(|endpoint| endpoint.draining);
        let idle = draining.map(|endpoint| endpoint.process.clone());
        let idle: BTreeSet<ProcessId> = idle.filter(|process| !self.is_using(process)).collect();
        if self.is_old || self.report_at > now && idle == self.last_reported {
            return None;
        }
        self.report_at = now.after(REPORT_INTERVAL);
        self.last_reported.clone_from(&idle);
        Some(idle)
    }

    /// Whether a request is in flight to the process, or can be sent to it.
    pub fn uses(&self, process: &ProcessId) -> bool {
        self.is_using(process) || self.serving().any(|it| it == process)
    }

    fn is_using(&self, process: &ProcessId) -> bool {
        self.requests.iter().any(|(it, _)| it == process)
    }

    fn serving(&self) -> impl Iterator<Item = &ProcessId> {
        let endpoints = self.routes.iter().flat_map(|route| &route.endpoints);
        let serving = endpoints.filter(|endpoint| !endpoint.draining);
        serving.map(|endpoint| &endpoint.process)
    }
}
