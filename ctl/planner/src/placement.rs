//! Where processes are placed: on the eligible worker that has the fewest of the service, and among equals on the next
//! one in a rotation that the whole cluster shares.

use std::collections::BTreeMap;

use tucano_api::ids::ServiceName;

use crate::{
    lifecycle,
    state::{Process, State},
};

/// Numbers of processes that may be stopped without harm, by the index of their node.
pub(crate) type Expendable = BTreeMap<usize, Vec<u64>>;

/// The processes of a service, by their part in its rollout.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    /// Processes that count towards its concurrency: of the current revision (or a compatible one), not draining, and
    /// not started to replace another one.
    pub(crate) current: Vec<u64>,
    /// How many of those are healthy.
    pub(crate) healthy_current: usize,
    /// Processes that replace another one as soon as they are healthy.
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

impl Inventory {
    /// Current processes that are not healthy yet.
    pub(crate) fn starting(&self) -> usize {
        self.current.len() - self.healthy_current
    }

    fn count(&mut self, process: &Process, current: bool) {
        let number = process.record.id.number();
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

/// Lists the processes of a service, each list ordered by age.
pub(crate) fn inventory(state: &State, name: &ServiceName) -> Inventory {
    let mut inventory = Inventory {
        spread: vec![0; state.nodes.len()],
        ..Inventory::default()
    };
    let Some(service) = state.services.get(name) else {
        return inventory;
    };
    for process in state.processes(&service.processes) {
        inventory.count(process, service.is_current(process));
    }
    inventory
}

/// Places up to `wanted` more processes of a service, and removes old unhealthy ones where their memory is needed.
/// Returns how many were placed.
pub(crate) fn place(
    state: &mut State,
    name: &ServiceName,
    inventory: &Inventory,
    wanted: usize,
) -> usize {
    let Some(service) = state.services.get(name).filter(|_| wanted > 0) else {
        return 0;
    };
    let memory = service.current().config.memory.0;
    let mut counts = inventory.spread.clone();
    let mut expendable = expendable(state, inventory);
    for placed in 0..wanted {
        let Some(node) = choose(state, &counts, memory, &expendable) else {
            return placed;
        };
        while state.nodes[node].free() < memory
            && let Some(number) = expendable.get_mut(&node).and_then(Vec::pop)
        {
            lifecycle::remove(state, number);
        }
        counts[node] += 1;
        lifecycle::start(state, name, node, None);
    }
    wanted
}

/// The eligible worker with the lowest count, the next in rotation among equals. Memory that `expendable` processes
/// reserve counts as free.
pub(crate) fn choose(
    state: &State,
    counts: &[u32],
    memory: u64,
    expendable: &Expendable,
) -> Option<usize> {
    let all = state.nodes.len();
    let last = state.counters.last_placed_on.as_ref();
    let first = last
        .and_then(|name| state.node_index.get(name))
        .map_or(0, |last| last + 1);
    (0..all)
        .map(|distance| (first + distance) % all)
        .filter(|index| is_eligible(state, *index, memory, expendable))
        .min_by_key(|index| counts[*index])
}

fn is_eligible(state: &State, index: usize, memory: u64, expendable: &Expendable) -> bool {
    let node = &state.nodes[index];
    let numbers = expendable.get(&index).into_iter().flatten();
    let freed = numbers.filter_map(|number| Some(state.processes.get(number)?.memory));
    let reserved = freed.fold(node.reserved, u64::saturating_sub);
    node.is_usable() && node.reservable().saturating_sub(reserved) >= memory
}

/// Old processes that are not healthy, by node.
fn expendable(state: &State, inventory: &Inventory) -> Expendable {
    let mut expendable = Expendable::new();
    for number in &inventory.old {
        if let Some(process) = state.processes.get(number).filter(|p| !p.is_healthy()) {
            expendable.entry(process.node).or_default().push(*number);
        }
    }
    expendable
}
