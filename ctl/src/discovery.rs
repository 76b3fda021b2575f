//! Service → endpoints: the table that balancers follow, and what they report back.
//!
//! Until the planner publishes for the first time there is no table: a controller that has just started and has no
//! reports yet must not remove the balancer's routes.
//!
//! - [`names`]: the services that processes find by name, for the agents.

pub mod names;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tucano_api::{
    balancer::{BalancerMetrics, BalancerReport},
    ids::{BalancerId, ProcessId},
    routes::{RouteTable, ServiceRoute},
};
use tucano_planner::Followers;

use crate::state_loop::clock::Clock;

/// Holds the newest table, and what is known of the balancers that follow it.
#[derive(Debug)]
pub struct Discovery {
    clock: Clock,
    balancers: Mutex<Balancers>,
    start: String,
    table: watch::Sender<Option<Arc<RouteTable>>>,
    count: std::sync::atomic::AtomicU64,
    /// Number of the newest table that a follower has acknowledged; 0 before the first.
    followed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Balancers {
    followers: Followers,
    /// The counters that each of them last reported.
    metrics: BTreeMap<BalancerId, BalancerMetrics>,
}

impl Discovery {
    /// No table yet. `start` differs for each start of the controller.
    pub fn new(start: String) -> Self {
        let clock = Clock::start();
        let balancers = Balancers {
            followers: Followers::new(clock.now()),
            metrics: BTreeMap::new(),
        };
        Self {
            clock,
            balancers: Mutex::new(balancers),
            start,
            table: watch::Sender::new(None),
            count: std::sync::atomic::AtomicU64::new(0),
            followed: watch::Sender::new(0),
        }
    }

    /// Replaces the table. An equal table keeps its version.
    pub fn publish(&self, services: Vec<ServiceRoute>) {
        use std::sync::atomic::Ordering::Relaxed;
        self.table.send_if_modified(|table| {
            if table.as_ref().is_some_and(|last| last.services == services) {
                return false;
            }
            let number = self.count.fetch_add(1, Relaxed) + 1;
            let version = format!("{}-{number}", self.start);
            self.balancers().followers.published(number, &services);
            *table = Some(Arc::new(RouteTable { version, services }));
            true
        });
    }

    /// Waits for a table of another version than `after`; `None` after `max_wait`. A request with `after` but without
    /// `balancer` comes from a balancer of an earlier version, which confirms no drains.
    pub async fn next(
        &self,
        balancer: Option<&BalancerId>,
        after: Option<&str>,
        max_wait: Duration,
    ) -> Option<Arc<RouteTable>> {
        self.note_follower(after);
        if balancer.is_some() || after.is_some() {
            let now = self.clock.now();
            self.balancers().followers.asked(now, balancer);
        }
        let mut table = self.table.subscribe();
        let differs = |table: &Option<Arc<RouteTable>>| {
            table
                .as_ref()
                .is_some_and(|table| Some(table.version.as_str()) != after)
        };
        match tokio::time::timeout(max_wait, table.wait_for(differs)).await {
            Ok(Ok(table)) => table.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Takes a balancer's report. Returns the draining processes that every balancer has confirmed.
    pub fn report(&self, report: BalancerReport) -> Vec<ProcessId> {
        let now = self.clock.now();
        let mut balancers = self.balancers();
        let id = report.balancer;
        if report.leaving {
            balancers.followers.left(&id);
            balancers.metrics.remove(&id);
        } else {
            let table = report.table.and_then(|version| self.number_of(&version));
            let drained = report.drained.into_iter().collect();
            balancers
                .followers
                .confirmed(now, &id, table.unwrap_or(0), drained);
            if balancers.followers.contains(now, &id) {
                balancers.metrics.insert(id, report.metrics);
            }
        }
        balancers.followers.drained(now)
    }

    /// The counters that each known balancer last reported.
    pub fn metrics(&self) -> Vec<(BalancerId, BalancerMetrics)> {
        let now = self.clock.now();
        let mut balancers = self.balancers();
        let Balancers { followers, metrics } = &mut *balancers;
        metrics.retain(|id, _| followers.contains(now, id));
        let metrics = metrics.iter();
        metrics
            .map(|(id, counters)| (id.clone(), counters.clone()))
            .collect()
    }

    fn balancers(&self) -> MutexGuard<'_, Balancers> {
        self.balancers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a balancer has the current table, at most `max_wait`; returns at once if none follows, nor waits for its
    /// first table.
    pub async fn until_followed(&self, max_wait: Duration) {
        let newest = self
            .current()
            .and_then(|table| self.number_of(&table.version));
        let (Some(newest), mut followed) = (newest, self.followed.subscribe()) else {
            return;
        };
        let is_followed = self.balancers().followers.is_any_known(self.clock.now());
        if *followed.borrow() == 0 && !is_followed {
            return;
        }
        let has_it = |followed: &u64| *followed >= newest;
        if tokio::time::timeout(max_wait, followed.wait_for(has_it))
            .await
            .is_err()
        {
            tracing::warn!("the balancer has not fetched the newest routes");
        }
    }

    /// A follower that asks for the successor of a table has that table.
    fn note_follower(&self, after: Option<&str>) {
        let Some(number) = after.and_then(|version| self.number_of(version)) else {
            return;
        };
        self.followed.send_if_modified(|followed| {
            let is_newer = number > *followed;
            *followed = number.max(*followed);
            is_newer
        });
    }

    /// The number in a version of this start; `None` for an earlier start's.
    fn number_of(&self, version: &str) -> Option<u64> {
        let (start, number) = version.rsplit_once('-')?;
        number.parse().ok().filter(|_| start == self.start)
    }

    /// The current table.
    pub fn current(&self) -> Option<Arc<RouteTable>> {
        self.table.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
