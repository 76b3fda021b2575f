//! Which processes go first where there are too many.

use std::collections::BinaryHeap;

use crate::cluster::Cluster;

impl Cluster {
    /// Chooses `wanted` of `candidates` (ordered by age) to go: first those that are not healthy, then from the
    /// workers with the most of them, the newest first.
    pub(crate) fn victims(&self, candidates: &[u64], wanted: usize) -> Vec<u64> {
        if wanted == 0 {
            return Vec::new();
        }
        let mut counts = self.spread(candidates);
        let is_healthy = |number: &u64| self.processes.get(number).is_some_and(|p| p.is_healthy());
        let (healthy, unhealthy): (Vec<u64>, Vec<u64>) =
            candidates.iter().partition(|number| is_healthy(number));
        let mut victims = self.newest_on_fullest(&unhealthy, &mut counts, wanted);
        let more = wanted - victims.len();
        victims.extend(self.newest_on_fullest(&healthy, &mut counts, more));
        victims
    }

    /// How many of these processes are on each node.
    fn spread(&self, numbers: &[u64]) -> Vec<u32> {
        let mut counts = vec![0; self.nodes.len()];
        let placed = numbers
            .iter()
            .filter_map(|number| self.processes.get(number));
        for process in placed {
            counts[process.node] += 1;
        }
        counts
    }

    /// Takes up to `wanted` of `candidates`, each from the node that has the highest count by then.
    fn newest_on_fullest(&self, candidates: &[u64], counts: &mut [u32], wanted: usize) -> Vec<u64> {
        let mut by_node = vec![Vec::new(); counts.len()];
        for number in candidates {
            if let Some(process) = self.processes.get(number) {
                by_node[process.node].push(*number);
            }
        }
        let entry = |node: usize, counts: &[u32], by_node: &[Vec<u64>]| {
            let newest = by_node[node].last()?;
            Some((counts[node], *newest, node))
        };
        let mut fullest: BinaryHeap<_> = (0..counts.len())
            .filter_map(|node| entry(node, counts, &by_node))
            .collect();
        let mut chosen = Vec::new();
        while chosen.len() < wanted {
            let Some((_, number, node)) = fullest.pop() else {
                break;
            };
            chosen.push(number);
            by_node[node].pop();
            counts[node] -= 1;
            fullest.extend(entry(node, counts, &by_node));
        }
        chosen
    }
}
