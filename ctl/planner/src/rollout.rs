//! How many processes of which revision a service has.
//!
//! A new revision is started before the old one is stopped: new processes are added a few at a time, and
//! for each that is healthy an old one goes. Only where memory leaves no other way is an old one stopped first.

use std::collections::BTreeMap;

use tucano_api::{ids::ServiceName, state::Pending};

use crate::{cluster::Cluster, placement::Census, reasons};

impl Cluster {
    /// Takes away what a service has too much. All services do this before any grows, so that what becomes free
    /// is there for all.
    pub(crate) fn shrink(&mut self, name: &ServiceName) {
        let mut census = self.census(name);
        if !census.moves.is_empty() {
            self.conclude_moves(name, census);
            census = self.census(name);
        }
        self.retire_surplus(name, &census);
    }

    /// Places what a service lacks, and then moves what is unevenly spread.
    pub(crate) fn grow(&mut self, name: &ServiceName) {
        let mut census = self.census(name);
        if self.fill(name, &census) {
            census = self.census(name);
        }
        self.even_out(name, &census);
    }

    /// Current processes beyond the concurrency go, and old ones that are not needed to make up for current
    /// ones that are not healthy.
    fn retire_surplus(&mut self, name: &ServiceName, census: &Census) {
        let concurrency = self.concurrency(name);
        let extra = census.current.len().saturating_sub(concurrency);
        let needed = concurrency.saturating_sub(census.healthy_current);
        let superseded = census.old.len().saturating_sub(needed);
        let mut victims = self.victims(&census.current, extra);
        victims.extend(self.victims(&census.old, superseded));
        for number in victims {
            self.retire(number);
        }
    }

    /// Places what is missing, in as far as it fits and as it is its turn. Whether anything was changed.
    fn fill(&mut self, name: &ServiceName, census: &Census) -> bool {
        let concurrency = self.concurrency(name);
        let missing = concurrency.saturating_sub(census.current.len());
        let at_once = concurrency.div_ceil(2).max(1);
        let turn = if census.healthy_old == 0 {
            missing
        } else {
            missing.min(at_once.saturating_sub(census.on_the_way()))
        };
        let placed = self.place(name, census, turn);
        let Some(service) = self.services.get_mut(name) else {
            return false;
        };
        service.making_room &= placed == 0;
        service.pending = Vec::new();
        if placed < turn {
            let memory = service.current().config.memory.0;
            service.pending = pending(turn - placed, &reasons::no_place(&self.nodes, memory));
        }
        service
            .pending
            .extend(pending(missing - turn, &reasons::rolling(at_once)));
        if placed == 0 && turn > 0 {
            self.stop_first(name, census);
        }
        turn > 0
    }

    /// When nothing of the current revision has a place, nor is on its way, the old one gives up as little as
    /// makes room for one process.
    fn stop_first(&mut self, name: &ServiceName, census: &Census) {
        if census.on_the_way() > 0 || census.draining {
            return;
        }
        let Some(victims) = self.room_by_stopping(name, &census.old) else {
            return;
        };
        for number in victims {
            self.retire(number);
        }
        if let Some(service) = self.services.get_mut(name) {
            service.making_room = true;
        }
    }

    /// The fewest of `candidates`, all on one node, without which one process of the current revision would fit
    /// there. `None` if it would not fit anywhere, so that nothing is stopped in vain.
    fn room_by_stopping(&self, name: &ServiceName, candidates: &[u64]) -> Option<Vec<u64>> {
        let memory = self.services.get(name)?.current().config.memory.0;
        let mut by_node: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for number in candidates {
            by_node
                .entry(self.processes.get(number)?.node)
                .or_default()
                .push(*number);
        }
        by_node
            .into_iter()
            .filter_map(|(node, numbers)| self.enough_of(node, numbers, memory))
            .min_by_key(Vec::len)
    }

    /// The first of a node's processes that together free what is missing for `memory` bytes.
    fn enough_of(&self, node: usize, numbers: Vec<u64>, memory: u64) -> Option<Vec<u64>> {
        let node = &self.nodes[node];
        if !node.is_alive() || node.reservable() < memory {
            return None;
        }
        let mut reserved = node.reserved;
        let mut chosen = Vec::new();
        for number in numbers {
            reserved = reserved.saturating_sub(self.processes.get(&number)?.memory);
            chosen.push(number);
            if reserved <= node.reservable() - memory {
                return Some(chosen);
            }
        }
        None
    }

    pub(crate) fn concurrency(&self, name: &ServiceName) -> usize {
        self.services
            .get(name)
            .map_or(0, |service| service.concurrency())
    }
}

/// An entry for `count` processes, if there are any.
pub(crate) fn pending(count: usize, reason: &str) -> Vec<Pending> {
    let entry = Pending {
        count: u32::try_from(count).unwrap_or(u32::MAX),
        reason: reason.to_owned(),
    };
    if count == 0 { Vec::new() } else { vec![entry] }
}
