//! The balancers of a simulation, and the rules of drains:
//!
//! - A process is never drained while a balancer that the controller can know of sends it requests, or has one in flight.
//! - A process never drains for longer than its drain time.

use std::collections::BTreeSet;

use tucano_api::{
    ids::ProcessId,
    routes::ServiceRoute,
    units::{Span, Timestamp},
};
use tucano_planner::{Cluster, Event, followers::KNOWN_FOR};

use crate::{Sim, balancer::Balancer};

/// Drain time of a process by its service's configuration; `None` where the controller's setting holds.
fn own_drain(cluster: &Cluster, process: &tucano_planner::ProcessRecord) -> Option<Span> {
    cluster.service(&process.service)?.configured.config.drain
}

/// No process drains for longer than it may.
pub(crate) fn check_deadlines(now: Timestamp, cluster: &Cluster) {
    for process in cluster.snapshot().processes {
        let Some(since) = process.draining_since else {
            continue;
        };
        let drain = own_drain(cluster, &process).unwrap_or(cluster.settings().drain);
        assert!(since.after(drain) > now, "{process:?} still drains");
    }
}

impl Sim {
    /// Adds balancers that have just started.
    pub fn add_balancers(&mut self, count: usize) {
        for _ in 0..count {
            let name = format!("balancer-{}", self.balancers.len());
            self.balancers.push(Balancer::new(&name));
        }
    }

    /// Kills a balancer and starts another one in its place.
    pub fn restart_balancer(&mut self, which: usize) {
        let name = format!("balancer-{which}-{}", self.now.0);
        self.balancers[which].restart(&name);
    }

    pub(crate) fn publish(&mut self, routes: Vec<ServiceRoute>) {
        let (start, number) = self.published_version;
        let number = if start == self.starts { number + 1 } else { 1 };
        self.published_version = (self.starts, number);
        self.followers.published(number, &routes);
        self.published = Some(routes);
    }

    pub(crate) fn run_balancers(&mut self) {
        for which in 0..self.balancers.len() {
            self.balancers[which].serve(self.now, &mut self.requests);
            if self.balancers[which].connected && self.cluster.is_some() {
                self.poll(which);
            }
        }
        if self.balancers.is_empty() || self.cluster.is_none() {
            return;
        }
        let processes = self.followers.drained(self.now);
        if !processes.is_empty() {
            self.event(Event::Drained { processes });
        }
    }

    /// A balancer asks for the routes, and reports.
    fn poll(&mut self, which: usize) {
        let balancer = &mut self.balancers[which];
        balancer.heard = Some((self.starts, self.now));
        let id = (!balancer.is_old).then_some(&balancer.id);
        self.followers.asked(self.now, id);
        // Some tables arrive late.
        let is_late = self.requests.below(3) == 0;
        let routes = self.published.as_ref().filter(|_| !is_late);
        if let Some(routes) = routes.filter(|_| self.published_version.0 == self.starts) {
            balancer.take(self.published_version, routes);
        }
        if let Some(drained) = balancer.report(self.now) {
            let (start, number) = balancer.version;
            let table = if start == self.starts { number } else { 0 };
            self.followers
                .confirmed(self.now, &balancer.id, table, drained);
        }
    }

    /// No balancer that has reached this controller lately uses processes that are said to be drained.
    pub(crate) fn check_drained(&self, cluster: &Cluster, processes: &[ProcessId]) {
        let records = cluster.snapshot().processes.into_iter();
        let draining = records.filter(|record| record.draining_since.is_some());
        let draining: BTreeSet<ProcessId> = draining.map(|record| record.id).collect();
        let known = self.balancers.iter().filter(|balancer| {
            let heard = balancer.heard.filter(|(start, _)| *start == self.starts);
            heard.is_some_and(|(_, at)| at.after(KNOWN_FOR) > self.now)
        });
        for balancer in known {
            let used = |process: &&ProcessId| draining.contains(process) && balancer.uses(process);
            let used = processes.iter().find(used);
            assert_eq!(used, None, "a drained process is used: {balancer:#?}");
        }
    }
}
