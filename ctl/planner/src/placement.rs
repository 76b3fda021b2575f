//! Where processes are placed: on the eligible worker that has the fewest of the service, and among those on
//! the next one in a rotation that the whole cluster shares.

use std::collections::BTreeMap;

use tucano_api::ids::ServiceName;

use crate::{cluster::Cluster, processes::Process};

/// Numbers of processes that may be stopped without harm, by the index of their node.
pub(crate) type Useless = BTreeMap<usize, Vec<u64>>;

/// What there is of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census {
    /// Processes that count towards its concurrency: of the current revision (or one that is compatible), not
    /// draining, and not on the way to take another's place.
    pub(crate) current: Vec<u64>,
    /// How many of those are healthy.
    pub(crate) healthy_current: usize,
    /// Processes that are to take another's place once they are healthy.
    pub(crate) moves: Vec<u64>,
    /// Processes of older, incompatible revisions that are not draining.
    pub(crate) old: Vec<u64>,
    /// How many of those are healthy.
    pub(crate) healthy_old: usize,
    /// Whether some process is draining.
    pub(crate) draining: bool,
    /// How many of `current` and `moves` are on each node.
    pub(crate) spread: Vec<u32>,
}

impl Census {
    /// Current processes that are not healthy (yet).
    pub(crate) fn on_the_way(&self) -> usize {
        self.current.len() - self.healthy_current
    }

    fn count(&mut self, number: u64, process: &Process, current: bool) {
        let healthy = usize::from(process.is_healthy());
        if process.is_draining() {
            self.draining = true;
        } else if !current {
            self.old.push(number);
            self.healthy_old += healthy;
        } else {
            self.spread[process.node] += 1;
            if process.record.replaces.is_some() {
                self.moves.push(number);
            } else {
                self.current.push(number);
                self.healthy_current += healthy;
            }
        }
    }
}

impl Cluster {
    /// Counts what there is of a service, each list ordered by age.
    pub(crate) fn census(&self, name: &ServiceName) -> Census {
        let mut census = Census {
            spread: vec![0; self.nodes.len()],
            ..Census::default()
        };
        let Some(service) = self.services.get(name) else {
            return census;
        };
        for number in &service.processes {
            if let Some(process) = self.processes.get(number) {
                census.count(*number, process, service.is_current(process));
            }
        }
        census
    }

    /// Places up to `wanted` more processes of a service. Old ones that serve nobody give way where they are in
    /// the way. Returns how many found a place.
    pub(crate) fn place(&mut self, name: &ServiceName, census: &Census, wanted: usize) -> usize {
        let Some(service) = self.services.get(name).filter(|_| wanted > 0) else {
            return 0;
        };
        let memory = service.current().config.memory.0;
        let mut counts = census.spread.clone();
        let mut useless = self.useless(census);
        for placed in 0..wanted {
            let Some(node) = self.choose(&counts, memory, &useless) else {
                return placed;
            };
            while self.nodes[node].free() < memory
                && let Some(number) = useless.get_mut(&node).and_then(Vec::pop)
            {
                self.forget(number);
            }
            counts[node] += 1;
            self.start(name, node, None);
        }
        wanted
    }

    /// The eligible worker with the lowest count, the next in rotation among equals. Memory that `useless`
    /// processes reserve counts as free.
    pub(crate) fn choose(&self, counts: &[u32], memory: u64, useless: &Useless) -> Option<usize> {
        let all = self.nodes.len();
        let last = self.counters.last_placed_on.as_ref();
        let first = last
            .and_then(|name| self.node_index.get(name))
            .map_or(0, |last| last + 1);
        (0..all)
            .map(|distance| (first + distance) % all)
            .filter(|index| self.is_eligible(*index, memory, useless))
            .min_by_key(|index| counts[*index])
    }

    fn is_eligible(&self, index: usize, memory: u64, useless: &Useless) -> bool {
        let node = &self.nodes[index];
        let numbers = useless.get(&index).into_iter().flatten();
        let given_up = numbers.filter_map(|number| Some(self.processes.get(number)?.memory));
        let reserved = given_up.fold(node.reserved, u64::saturating_sub);
        node.is_alive() && node.reservable().saturating_sub(reserved) >= memory
    }

    /// Old processes that are not healthy, by node.
    fn useless(&self, census: &Census) -> Useless {
        let mut useless = Useless::new();
        for number in &census.old {
            if let Some(process) = self.processes.get(number).filter(|p| !p.is_healthy()) {
                useless.entry(process.node).or_default().push(*number);
            }
        }
        useless
    }
}
