//! Moving processes when the workers have long been uneven: one more is started on the emptiest worker, and
//! when it is healthy, one on the fullest drains. One at a time, and only while all is well.

use tucano_api::{
    ids::{ProcessId, ServiceName},
    units::Timestamp,
};

use crate::{
    cluster::Cluster,
    placement::{Census, Useless},
};

impl Cluster {
    /// Goes on with processes that were placed to take over from another.
    pub(crate) fn conclude_moves(&mut self, name: &ServiceName, census: Census) {
        let concurrency = self.concurrency(name);
        let mut count = census.current.len();
        for number in census.moves {
            let Some(process) = self.processes.get(&number) else {
                continue;
            };
            let healthy = process.is_healthy();
            let replaced = process
                .record
                .replaces
                .as_ref()
                .map_or(0, ProcessId::number);
            let is_there = census.current.binary_search(&replaced).is_ok();
            if !is_there || count < concurrency {
                // What it was to replace is gone, or is needed: it is one like the others.
                self.settle(number);
                count += 1;
            } else if count > concurrency {
                self.retire(number);
            } else if healthy {
                self.settle(number);
                self.retire(replaced);
            }
        }
    }

    /// Starts to move a process if the service is uneven, whole and undisturbed.
    pub(crate) fn even_out(&mut self, name: &ServiceName, census: &Census) {
        let concurrency = self.concurrency(name);
        let uneven = self.is_uneven(&census.spread);
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        service.uneven = uneven;
        let whole = census.current.len() == concurrency && census.on_the_way() == 0;
        let undisturbed = census.old.is_empty() && census.moves.is_empty();
        if !(uneven && whole && undisturbed && self.may_rebalance) {
            return;
        }
        let memory = service.current().config.memory.0;
        if let Some((target, replaced)) = self.best_move(census, memory) {
            self.start(name, target, Some(replaced));
        }
    }

    /// Lets processes be moved once the set of alive workers has been stable for long enough.
    pub(crate) fn open_rebalance(&mut self) {
        if self.may_rebalance || self.rebalance_opens() > self.now {
            return;
        }
        self.may_rebalance = true;
        let uneven = self.services.iter().filter(|(_, service)| service.uneven);
        let names: Vec<ServiceName> = uneven.map(|(name, _)| name.clone()).collect();
        self.changes.reconcile.extend(names);
    }

    pub(crate) fn next_rebalance(&self) -> Option<Timestamp> {
        let waiting = !self.may_rebalance && self.services.values().any(|service| service.uneven);
        waiting.then(|| self.rebalance_opens())
    }

    fn rebalance_opens(&self) -> Timestamp {
        self.alive_unchanged_since
            .after(self.settings.rebalance_after)
    }

    /// The worker to start one more on, and the process that it is to replace.
    fn best_move(&self, census: &Census, memory: u64) -> Option<(usize, ProcessId)> {
        let counts = &census.spread;
        let target = self.choose(counts, memory, &Useless::new())?;
        let alive = (0..self.nodes.len()).filter(|index| self.nodes[*index].is_alive());
        let source = alive.max_by_key(|index| counts[*index])?;
        if counts[source] <= counts[target] + 1 {
            return None;
        }
        let on_source = census
            .current
            .iter()
            .rev()
            .filter_map(|number| self.processes.get(number));
        let newest = on_source
            .into_iter()
            .find(|process| process.node == source)?;
        Some((target, newest.record.id.clone()))
    }

    fn is_uneven(&self, counts: &[u32]) -> bool {
        let alive = || (0..self.nodes.len()).filter(|index| self.nodes[*index].is_alive());
        let most = alive().map(|index| counts[index]).max().unwrap_or(0);
        let fewest = alive().map(|index| counts[index]).min().unwrap_or(0);
        most > fewest + 1
    }

    /// Makes a process that was to replace another one like the others.
    fn settle(&mut self, number: u64) {
        if let Some(process) = self.processes.get_mut(&number) {
            process.record.replaces = None;
            self.changes.processes.insert(process.record.id.clone());
        }
    }
}
