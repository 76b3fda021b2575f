//! The names' feed: what each node knows of the services that its processes need, in versions by service.
//!
//! A follower first gets all of it, then what has changed since its version. A change of a service concerns the nodes that need
//! it, and no other one: neither is woken, nor looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tucano_api::{
    ids::{NodeName, ServiceName},
    names::{NamedService, Names},
};
use tucano_planner::NamesUpdate;

/// Services that a node does not need any more and that are remembered, so that its follower is told.
const MAX_REMEMBERED: usize = 1024;

/// The feed.
#[derive(Debug)]
pub struct NamesFeed {
    start: String,
    feed: Mutex<Feed>,
    /// Whether anything was published: before, no follower may lose what it has.
    published: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Feed {
    /// Number of the last publication.
    number: u64,
    services: BTreeMap<ServiceName, Arc<NamedService>>,
    needed_by: BTreeMap<ServiceName, BTreeSet<NodeName>>,
    nodes: BTreeMap<NodeName, NodeFeed>,
}

#[derive(Debug, Default)]
struct NodeFeed {
    needs: BTreeSet<ServiceName>,
    /// The publication that last concerned a service, for those that are needed and some that were.
    changed: BTreeMap<ServiceName, u64>,
    /// The same in the order of publications.
    order: BTreeSet<(u64, ServiceName)>,
    /// Followers of an earlier publication get everything.
    since: u64,
    newest: watch::Sender<u64>,
}

impl NamesFeed {
    /// Nothing yet. `start` differs for each start of the controller.
    pub fn new(start: String) -> Self {
        Self {
            start,
            feed: Mutex::default(),
            published: watch::Sender::new(false),
        }
    }

    /// Publishes what has changed.
    pub fn publish(&self, update: NamesUpdate) {
        self.feed().publish(update);
        self.published.send_replace(true);
    }

    /// Waits for another version than `after` of what a node is to know; `None` after `max_wait`.
    pub async fn next(
        &self,
        node: &NodeName,
        after: Option<&str>,
        max_wait: Duration,
    ) -> Option<Names> {
        let known = after.and_then(|version| self.number_of(version));
        let wait = async {
            let mut published = self.published.subscribe();
            published.wait_for(|is| *is).await.ok()?;
            let mut newest = self.feed().follow(node);
            let differs = |number: &u64| known != Some(*number);
            newest.wait_for(differs).await.ok()?;
            Some(self.feed().since(node, known, &self.start))
        };
        tokio::time::timeout(max_wait, wait).await.ok().flatten()
    }

    /// The number in a version of this start; `None` for an earlier start's.
    fn number_of(&self, version: &str) -> Option<u64> {
        let (start, number) = version.rsplit_once('-')?;
        number.parse().ok().filter(|_| start == self.start)
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn publish(&mut self, update: NamesUpdate) {
        self.number += 1;
        let mut touched = BTreeSet::new();
        for (service, entry) in update.services {
            match entry {
                Some(entry) => self.services.insert(service.clone(), entry),
                None => self.services.remove(&service),
            };
            for node in self.needed_by.get(&service).into_iter().flatten() {
                touched.insert((node.clone(), service.clone()));
            }
        }
        for (node, needs) in update.needs {
            let of_node = self.nodes.entry(node.clone()).or_default();
            let before = std::mem::replace(&mut of_node.needs, needs);
            for service in before.symmetric_difference(&of_node.needs) {
                touched.insert((node.clone(), service.clone()));
                let needed_by = self.needed_by.entry(service.clone()).or_default();
                match before.contains(service) {
                    true => needed_by.remove(&node),
                    false => needed_by.insert(node.clone()),
                };
            }
        }
        self.needed_by.retain(|_, nodes| !nodes.is_empty());
        for (node, service) in &touched {
            if let Some(of_node) = self.nodes.get_mut(node) {
                of_node.touch(service, self.number);
            }
        }
        let nodes: BTreeSet<NodeName> = touched.into_iter().map(|(node, _)| node).collect();
        for node in nodes {
            if let Some(of_node) = self.nodes.get_mut(&node) {
                of_node.forget();
                of_node.newest.send_replace(self.number);
            }
        }
    }

    fn follow(&mut self, node: &NodeName) -> watch::Receiver<u64> {
        self.nodes
            .entry(node.clone())
            .or_default()
            .newest
            .subscribe()
    }

    /// What has changed for a node since a publication, or all of it.
    fn since(&self, node: &NodeName, known: Option<u64>, start: &str) -> Names {
        let empty = NodeFeed::default();
        let of_node = self.nodes.get(node).unwrap_or(&empty);
        let newest = *of_node.newest.borrow();
        let known = known.filter(|known| (of_node.since..=newest).contains(known));
        let concerned: Vec<&ServiceName> = match known {
            None => of_node.needs.iter().collect(),
            Some(known) => of_node.after(known).collect(),
        };
        let mut names = Names {
            version: format!("{start}-{newest}"),
            whole: known.is_none(),
            ..Names::default()
        };
        for service in concerned {
            let entry = self.services.get(service);
            match entry.filter(|_| of_node.needs.contains(service)) {
                Some(entry) => names.services.push(entry.as_ref().clone()),
                None => names.gone.push(service.clone()),
            }
        }
        names
    }
}

impl NodeFeed {
    fn touch(&mut self, service: &ServiceName, number: u64) {
        if let Some(before) = self.changed.insert(service.clone(), number) {
            self.order.remove(&(before, service.clone()));
        }
        self.order.insert((number, service.clone()));
    }

    fn after(&self, number: u64) -> impl Iterator<Item = &ServiceName> {
        let later = self.order.iter().rev();
        let later = later.take_while(move |(at, _)| *at > number);
        later.map(|(_, service)| service)
    }

    /// Forgets the oldest of the services that are not needed any more, where there are too many.
    fn forget(&mut self) {
        let remembered = self.changed.len().saturating_sub(self.needs.len());
        let excess = remembered.saturating_sub(MAX_REMEMBERED);
        if excess == 0 {
            return;
        }
        let unneeded = self.order.iter().filter(|(_, it)| !self.needs.contains(it));
        let forgotten: Vec<_> = unneeded.take(excess).cloned().collect();
        for entry in forgotten {
            self.since = self.since.max(entry.0);
            self.changed.remove(&entry.1);
            self.order.remove(&entry);
        }
    }
}

#[cfg(test)]
mod tests;
