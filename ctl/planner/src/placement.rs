//! Where processes are placed: on the eligible worker that has the fewest of the service, and among equals on the next
//! one in a rotation that the whole cluster shares.

use std::collections::BTreeMap;

use tucano_api::{
    ids::{NodeName, ServiceName},
    reasons::{PendingReason, WorkerMemory},
    service::ServiceConfig,
    units::Bytes,
};

use crate::{
    lifecycle,
    state::{Node, Process, State},
    volumes,
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
    let config = service.current().config.clone();
    let memory = config.memory.0;
    let mut room = Room {
        counts: inventory.spread.clone(),
        expendable: expendable(state, inventory),
        planned: vec![0; state.nodes.len()],
    };
    let mut placed = Placed::default();
    while placed.started + placed.waiting < wanted {
        if let Some(node) = choose(state, &room.counts, &config) {
            room.counts[node] += 1;
            placed.started += 1;
            lifecycle::start(state, name, node, None, None);
        } else if let Some(node) = choose_by_room(state, &room, &config) {
            placed.made_room |= room.make(state, node, memory);
            placed.waiting += 1;
        } else {
            break;
        }
    }
    placed
}

/// The eligible worker with the lowest count, the next in rotation among equals.
pub(crate) fn choose(state: &State, counts: &[u32], config: &ServiceConfig) -> Option<usize> {
    choose_where(state, counts, config, |_| true)
}

/// The same among some of the workers.
pub(crate) fn choose_where(
    state: &State,
    counts: &[u32],
    config: &ServiceConfig,
    is_eligible: impl Fn(&usize) -> bool,
) -> Option<usize> {
    let free = |index: &usize| state.nodes[*index].free() >= config.memory.0;
    rotation(state, config)
        .filter(free)
        .filter(is_eligible)
        .min_by_key(|index| counts[*index])
}

/// The same by the memory that is free once the stopping and the expendable processes are gone.
fn choose_by_room(state: &State, room: &Room, config: &ServiceConfig) -> Option<usize> {
    let free = |index: &usize| room.available(state, *index) >= config.memory.0;
    let nodes = rotation(state, config).filter(free);
    nodes.min_by_key(|index| room.counts[*index])
}

/// The workers that a configuration can be placed on, beginning with the one after the last that was placed on.
fn rotation<'a>(
    state: &'a State,
    config: &'a ServiceConfig,
) -> impl Iterator<Item = usize> + use<'a> {
    let all = state.nodes.len();
    let last = state.counters.last_placed_on.as_ref();
    let first = last
        .and_then(|name| state.node_index.get(name))
        .map_or(0, |last| last + 1);
    (0..all)
        .map(move |distance| (first + distance) % all)
        .filter(|index| state.nodes[*index].can_run(config))
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

/// Why none of these workers takes a process of this configuration, with so many bytes more of volumes.
pub(crate) fn why_not(
    state: &State,
    nodes: &[Node],
    config: &ServiceConfig,
    volume_bytes: u64,
) -> PendingReason {
    if nodes.is_empty() {
        return PendingReason::NoWorkers;
    }
    if !nodes.iter().any(Node::is_alive) {
        return PendingReason::NoneAlive;
    }
    let usable: Vec<&Node> = nodes.iter().filter(|node| node.is_usable()).collect();
    if usable.is_empty() {
        return PendingReason::AllOnHold;
    }
    let known: Vec<&Node> = kept(&usable, |node| node.knows_keys(config));
    if known.is_empty() {
        return unknown_keys(&usable, config);
    }
    let listed: Vec<&Node> = kept(&known, |node| node.has_host_paths(config));
    if listed.is_empty() {
        return PendingReason::NoHostPath {
            paths: config.host_paths().map(str::to_owned).collect(),
            nodes: names(&known),
        };
    }
    let has_room = |node: &Node| match volumes::room(state, node) {
        _ if config.volume.is_empty() => true,
        Some(room) => volume_bytes == 0 || volume_bytes <= room,
        None => false,
    };
    let roomy: Vec<&Node> = kept(&listed, has_room);
    if roomy.is_empty() {
        return no_volume_room(state, &listed, volume_bytes);
    }
    PendingReason::NoMemory {
        needed: config.memory,
        workers: roomy
            .into_iter()
            .map(|node| WorkerMemory {
                node: node.record.name.clone(),
                free: Bytes(node.free()),
                reservable: Bytes(node.reservable()),
            })
            .collect(),
    }
}

fn no_volume_room(state: &State, nodes: &[&Node], needed: u64) -> PendingReason {
    let worker = |node: &&Node| {
        Some(WorkerMemory {
            node: node.record.name.clone(),
            free: Bytes(volumes::room(state, node)?),
            reservable: volumes::place(node)?.capacity,
        })
    };
    PendingReason::NoVolumeRoom {
        needed: Bytes(needed),
        workers: nodes.iter().filter_map(worker).collect(),
    }
}

fn unknown_keys(nodes: &[&Node], config: &ServiceConfig) -> PendingReason {
    let is_unknown = |key: &&str| {
        let mut reports = nodes.iter().filter_map(|node| node.report.as_ref());
        reports.any(|report| !report.keys.iter().any(|known| known == key))
    };
    PendingReason::UnknownKeys {
        keys: config
            .agent_keys()
            .filter(is_unknown)
            .map(str::to_owned)
            .collect(),
        nodes: names(nodes),
    }
}

fn kept<'a>(nodes: &[&'a Node], keep: impl Fn(&Node) -> bool) -> Vec<&'a Node> {
    let nodes = nodes.iter().copied();
    nodes.filter(|node| keep(node)).collect()
}

fn names(nodes: &[&Node]) -> Vec<NodeName> {
    nodes.iter().map(|node| node.record.name.clone()).collect()
}
