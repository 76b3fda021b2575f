//! Which processes are removed first where there are too many.

use std::collections::BinaryHeap;

use crate::state::State;

/// Selects `wanted` of `candidates`, which are ordered by age: first those that are not healthy, then the newest on the
/// workers with the most of them.
pub(crate) fn select(state: &State, candidates: &[u64], wanted: usize) -> Vec<u64> {
    if wanted == 0 {
        return Vec::new();
    }
    let mut counts = spread(state, candidates);
    let is_healthy = |number: &u64| state.processes.get(number).is_some_and(|p| p.is_healthy());
    let (healthy, unhealthy): (Vec<u64>, Vec<u64>) =
        candidates.iter().partition(|number| is_healthy(number));
    let mut chosen = newest_on_fullest(state, &unhealthy, &mut counts, wanted);
    let more = wanted - chosen.len();
    chosen.extend(newest_on_fullest(state, &healthy, &mut counts, more));
    chosen
}

/// How many of these processes are on each node.
fn spread(state: &State, numbers: &[u64]) -> Vec<u32> {
    let mut counts = vec![0; state.nodes.len()];
    for process in state.processes(numbers) {
        counts[process.node] += 1;
    }
    counts
}

/// Takes up to `wanted` of `candidates`, each from the node with the highest count at that moment.
fn newest_on_fullest(
    state: &State,
    candidates: &[u64],
    counts: &mut [u32],
    wanted: usize,
) -> Vec<u64> {
    let mut by_node = vec![Vec::new(); counts.len()];
    for number in candidates {
        if let Some(process) = state.processes.get(number) {
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
