//! Where processes are placed: on the eligible worker that has the fewest of the service, and among equals on the next
//! one in a rotation that the whole cluster shares.

use std::collections::BTreeMap;

use tucano_api::{
    ids::ServiceName,
    reasons::{PendingReason, WorkerMemory},
    units::Bytes,
};

use crate::{
    lifecycle,
    state::{Node, Process, State},
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

/// What came of placing processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Placed {
    /// Processes that were started.
    pub(crate) started: usize,
    /// Processes that can be started as soon as others, which are stopping, are gone.
    pub(crate) waiting: usize,
    /// Whether processes were stopped for them.
    pub(crate) made_room: bool,
}

/// Places up to `wanted` more processes of a service, and stops old unhealthy ones where their memory is needed.
pub(crate) fn place(
    state: &mut State,
    name: &ServiceName,
    inventory: &Inventory,
    wanted: usize,
) -> Placed {
    let Some(service) = state.services.get(name).filter(|_| wanted > 0) else {
        return Placed::default();
    };
    let memory = service.current().config.memory.0;
    let mut room = Room {
        counts: inventory.spread.clone(),
        expendable: expendable(state, inventory),
        planned: vec![0; state.nodes.len()],
    };
    let mut placed = Placed::default();
    while placed.started + placed.waiting < wanted {
        if let Some(node) = choose(state, &room.counts, memory) {
            room.counts[node] += 1;
            placed.started += 1;
            lifecycle::start(state, name, node, None);
        } else if let Some(node) = choose_by_room(state, &room, memory) {
            placed.made_room |= room.make(state, node, memory);
            placed.waiting += 1;
        } else {
            break;
        }
    }
    placed
}

/// The eligible worker with the lowest count, the next in rotation among equals.
pub(crate) fn choose(state: &State, counts: &[u32], memory: u64) -> Option<usize> {
    let free = |index: &usize| state.nodes[*index].free() >= memory;
    rotation(state)
        .filter(free)
        .min_by_key(|index| counts[*index])
}

/// The same by the memory that is free once the stopping and the expendable processes are gone.
fn choose_by_room(state: &State, room: &Room, memory: u64) -> Option<usize> {
    let free = |index: &usize| room.available(state, *index) >= memory;
    let nodes = rotation(state).filter(free);
    nodes.min_by_key(|index| room.counts[*index])
}

/// The workers that can be placed on, beginning with the one after the last that was placed on.
fn rotation(state: &State) -> impl Iterator<Item = usize> + '_ {
    let all = state.nodes.len();
    let last = state.counters.last_placed_on.as_ref();
    let first = last
        .and_then(|name| state.node_index.get(name))
        .map_or(0, |last| last + 1);
    (0..all)
        .map(move |distance| (first + distance) % all)
        .filter(|index| state.nodes[*index].is_usable())
}

/// Memory that becomes free when processes stop.
struct Room {
    counts: Vec<u32>,
    expendable: Expendable,
    /// Bytes that the processes which are waiting take, by node.
    planned: Vec<u64>,
}

impl Room {
    fn available(&self, state: &State, index: usize) -> u64 {
        let numbers = self.expendable.get(&index).into_iter().flatten();
        let memory = numbers.filter_map(|number| Some(state.processes.get(number)?.memory));
        let freed = memory.fold(state.nodes[index].unclaimed(), u64::saturating_add);
        freed.saturating_sub(self.planned[index])
    }

    /// Stops as many expendable processes of a node as one more process needs. Whether any.
    fn make(&mut self, state: &mut State, index: usize, memory: u64) -> bool {
        let mut stopped = false;
        self.counts[index] += 1;
        self.planned[index] = self.planned[index].saturating_add(memory);
        while state.nodes[index].unclaimed() < self.planned[index]
            && let Some(number) = self.expendable.get_mut(&index).and_then(Vec::pop)
        {
            lifecycle::remove(state, number);
            stopped = true;
        }
        stopped
    }
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

/// Why no worker takes a process that needs `memory` bytes.
pub(crate) fn why_not(nodes: &[Node], memory: u64) -> PendingReason {
    if nodes.is_empty() {
        return PendingReason::NoWorkers;
    }
    if !nodes.iter().any(Node::is_alive) {
        return PendingReason::NoneAlive;
    }
    let usable = nodes.iter().filter(|node| node.is_usable());
    let workers: Vec<WorkerMemory> = usable
        .map(|node| WorkerMemory {
            node: node.record.name.clone(),
            free: Bytes(node.free()),
            reservable: Bytes(node.reservable()),
        })
        .collect();
    if workers.is_empty() {
        return PendingReason::AllOnHold;
    }
    PendingReason::NoMemory {
        needed: Bytes(memory),
        workers,
    }
}
