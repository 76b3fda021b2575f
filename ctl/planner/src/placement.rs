//! Where processes are placed: on the eligible worker that has the fewest of the service, and among equals on the next
//! one in a rotation that the whole cluster shares.

use std::collections::BTreeMap;

use tucano_api::{
    ids::{NodeName, ServiceName},
    reasons::{PendingReason, WorkerCpus, WorkerMemory},
    service::ServiceConfig,
    units::Bytes,
};

use crate::{
    devices::{self, Holders},
    lifecycle,
    rules::{self, Rules},
    state::{Node, Process, Resources, State},
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
    /// Processes of older, incompatible revisions that are not draining, and those that may not be where they are any more.
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
    let (Some(service), Some(rules)) = (state.services.get(name), Rules::of(state, name)) else {
        return inventory;
    };
    for process in state.processes(&service.processes) {
        let is_kept = rules.has_place_beside(inventory.spread[process.node])
            && rules.keeps(state, process.node)
            && (process.is_healthy() || devices::are_there(state, process));
        inventory.count(process, is_kept && service.is_current(process));
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
    let current = service.current().clone();
    let needed = Resources::of(&current.config);
    let mut room = Room {
        counts: inventory.spread.clone(),
        expendable: expendable(state, inventory),
        planned: vec![Resources::default(); state.nodes.len()],
        waiting: vec![0; state.nodes.len()],
    };
    let mut placed = Placed::default();
    // Where other services are does not change meanwhile.
    let rules = Rules::new(state, &current.config).with_image(&current);
    while placed.started + placed.waiting < wanted {
        if let Some(node) = choose(state, &rules, &room.counts) {
            room.counts[node] += 1;
            placed.started += 1;
            lifecycle::start(state, name, node, None, None);
        } else if let Some(node) = choose_by_room(state, &rules, &room) {
            placed.made_room |= room.make(state, node, needed, &current.config);
            placed.waiting += 1;
        } else {
            break;
        }
    }
    placed
}

/// The eligible worker in the zone with the lowest count, and of those the one with the lowest count, the next in rotation among
/// equals.
pub(crate) fn choose(state: &State, rules: &Rules<'_>, counts: &[u32]) -> Option<usize> {
    choose_where(state, rules, counts, |_| true)
}

/// The same among some of the workers.
pub(crate) fn choose_where(
    state: &State,
    rules: &Rules<'_>,
    counts: &[u32],
    is_eligible: impl Fn(&usize) -> bool,
) -> Option<usize> {
    let needed = Resources::of(rules.config);
    let free = |index: &usize| {
        needed.fits_in(state.nodes[*index].free())
            && devices::fit(state, *index, rules.config, Holders::All, 1)
    };
    let sums = rules.zones.sums(counts);
    rotation(state, rules, counts)
        .filter(free)
        .filter(is_eligible)
        .min_by_key(|index| (sums[rules.zones.of(*index)], counts[*index]))
}

/// The same by what is free once the stopping and the expendable processes are gone.
fn choose_by_room(state: &State, rules: &Rules<'_>, room: &Room) -> Option<usize> {
    let needed = Resources::of(rules.config);
    let free = |index: &usize| {
        needed.fits_in(room.available(state, *index))
            && room.has_devices(state, *index, rules.config)
    };
    let sums = rules.zones.sums(&room.counts);
    let nodes = rotation(state, rules, &room.counts).filter(free);
    nodes.min_by_key(|index| (sums[rules.zones.of(*index)], room.counts[*index]))
}

/// The workers that one more process can be placed on, beginning with the one after the last that was placed on.
fn rotation<'a>(
    state: &'a State,
    rules: &'a Rules<'_>,
    counts: &'a [u32],
) -> impl Iterator<Item = usize> + use<'a> {
    let all = state.nodes.len();
    let last = state.counters.last_placed_on.as_ref();
    let first = last
        .and_then(|name| state.node_index.get(name))
        .map_or(0, |last| last + 1);
    (0..all)
        .map(move |distance| (first + distance) % all)
        .filter(|index| state.nodes[*index].can_run(rules.config))
        .filter(|index| rules.has_place_beside(counts[*index]) && rules.admits(state, *index))
}

/// What becomes free when processes stop.
struct Room {
    counts: Vec<u32>,
    expendable: Expendable,
    /// What the processes which are waiting take, by node.
    planned: Vec<Resources>,
    /// How many those are.
    waiting: Vec<usize>,
}

impl Room {
    fn available(&self, state: &State, index: usize) -> Resources {
        let numbers = self.expendable.get(&index).into_iter().flatten();
        let reserved = numbers.filter_map(|number| Some(state.processes.get(number)?.reserved));
        let freed = reserved.fold(state.nodes[index].unclaimed(), Resources::plus);
        freed.minus(self.planned[index])
    }

    fn has_devices(&self, state: &State, index: usize, config: &ServiceConfig) -> bool {
        let gone = self.expendable.get(&index).map_or(&[][..], Vec::as_slice);
        let holders = Holders::Staying(gone);
        devices::fit(state, index, config, holders, self.waiting[index] + 1)
    }

    /// Stops as many expendable processes of a node as one more process needs. Whether any.
    fn make(
        &mut self,
        state: &mut State,
        index: usize,
        needed: Resources,
        config: &ServiceConfig,
    ) -> bool {
        let mut stopped = false;
        self.counts[index] += 1;
        self.waiting[index] += 1;
        let waiting = self.waiting[index];
        let staying = Holders::Staying(&[]);
        self.planned[index] = self.planned[index].plus(needed);
        while (!self.planned[index].fits_in(state.nodes[index].unclaimed())
            || !devices::fit(state, index, config, staying, waiting))
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

/// Why none of these workers takes a process, with so many bytes more of volumes: the first rule that leaves none of them.
pub(crate) fn why_not(
    state: &State,
    rules: &Rules<'_>,
    nodes: &[usize],
    volume_bytes: u64,
) -> PendingReason {
    let config = rules.config;
    let all: Vec<&Node> = nodes.iter().map(|index| &state.nodes[*index]).collect();
    if all.is_empty() {
        return PendingReason::NoWorkers;
    }
    if !all.iter().any(|node| node.is_alive()) {
        return PendingReason::NoneAlive;
    }
    let usable = kept(&all, |node| node.is_usable());
    if usable.is_empty() {
        return PendingReason::AllOnHold;
    }
    let labelled = kept(&usable, |node| rules.has_labels(node));
    if labelled.is_empty() {
        return rules::no_labels(config, usable.into_iter());
    }
    let known = kept(&labelled, |node| node.knows_keys(config));
    if known.is_empty() {
        return unknown_keys(&labelled, config);
    }
    let listed = kept(&known, |node| node.has_host_paths(config));
    if listed.is_empty() {
        return PendingReason::NoHostPath {
            paths: config.host_paths().map(str::to_owned).collect(),
            nodes: names(&known),
        };
    }
    let with_nodes = kept(&listed, |node| node.has_device_nodes(config));
    if with_nodes.is_empty() {
        return PendingReason::NoDeviceNode {
            paths: config.device_nodes().map(str::to_owned).collect(),
            nodes: names(&listed),
        };
    }
    let listed = with_nodes;
    let able = kept(&listed, |node| rules.has_image(node));
    if let Some(revision) = rules.revision.filter(|_| able.is_empty()) {
        return rules::no_architecture(&revision.platforms, listed.into_iter());
    }
    let near = match rules.neighbourhood(state, &able) {
        Ok(near) => near,
        Err(reason) => return reason,
    };
    let has_room = |node: &Node| match volumes::room(state, node) {
        _ if config.volume.is_empty() => true,
        Some(room) => volume_bytes == 0 || volume_bytes <= room,
        None => false,
    };
    let roomy = kept(&near, has_room);
    if roomy.is_empty() {
        return no_volume_room(state, &near, volume_bytes);
    }
    let index = |node: &Node| state.node_index.get(&node.record.name).copied();
    let fits = |index| devices::fit(state, index, config, Holders::All, 1);
    let equipped = kept(&roomy, |node| index(node).is_some_and(fits));
    if equipped.is_empty() {
        return no_devices(state, config, &roomy);
    }
    no_resources(config, &equipped)
}

fn no_devices(state: &State, config: &ServiceConfig, nodes: &[&Node]) -> PendingReason {
    let own = config.devices.iter().filter(|it| it.kind().is_some());
    let nodes = nodes.iter();
    PendingReason::NoDevices {
        wanted: own.map(ToString::to_string).collect(),
        workers: nodes
            .filter_map(|node| devices::shortage(state, node, config))
            .collect(),
    }
}

/// Of memory and CPUs the one that no worker has enough of.
fn no_resources(config: &ServiceConfig, nodes: &[&Node]) -> PendingReason {
    let needed = Resources::of(config);
    if nodes.iter().all(|node| node.free().memory < needed.memory) || needed.millicpus == 0 {
        return PendingReason::NoMemory {
            needed: config.memory,
            workers: nodes.iter().map(|node| memory_of(node)).collect(),
        };
    }
    if nodes
        .iter()
        .all(|node| node.free().millicpus < needed.millicpus)
    {
        return PendingReason::NoCpus {
            needed_millicpus: needed.millicpus,
            workers: nodes.iter().map(|node| cpus_of(node)).collect(),
        };
    }
    PendingReason::NoMemoryOrCpus {
        memory: config.memory,
        millicpus: needed.millicpus,
        nodes: names(nodes),
    }
}

fn memory_of(node: &Node) -> WorkerMemory {
    WorkerMemory {
        node: node.record.name.clone(),
        free: Bytes(node.free().memory),
        reservable: Bytes(node.reservable().memory),
    }
}

fn cpus_of(node: &Node) -> WorkerCpus {
    WorkerCpus {
        node: node.record.name.clone(),
        free_millicpus: node.free().millicpus,
        all_millicpus: node.reservable().millicpus,
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
