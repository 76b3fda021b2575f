//! Devices that are each one process's at a time: who holds them, and which ones a process gets.
//!
//! They are reserved as memory is: until the process is gone by its agent's report. Which devices a process has is decided when it
//! is placed, and stays: so two processes never share one, whatever starts first. A process whose device has vanished is left alone
//! while it is healthy: a description that is being renewed is away for a moment.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{DeviceKind, DeviceName},
    reasons::WorkerDevices,
    service::{AssignedDevice, DeviceRequest, NodeDevices, ServiceConfig},
    state::DevicesOfKind,
};

use crate::state::{Node, Process, State};

/// Devices that are not to be had.
type Held = BTreeSet<(DeviceKind, DeviceName)>;

/// Whose devices are not to be had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holders<'a> {
    /// Those of everything that exists, or may exist.
    All,
    /// Those of the processes that are desired, without these: once what is stopping is gone.
    Staying(&'a [u64]),
}

/// The devices of one more process on a node; `None` if they are not to be had.
pub(crate) fn allot(
    state: &State,
    index: usize,
    config: &ServiceConfig,
    holders: Holders<'_>,
) -> Option<Vec<AssignedDevice>> {
    if !config.has_own_devices() {
        return Some(Vec::new());
    }
    let node = &state.nodes[index];
    let mut held = held(state, node, holders);
    keep_for_slots(state, node, config, &mut held);
    choose(devices_of(node)?, config, &mut held)
}

/// Whether so many more processes on a node can have their devices.
pub(crate) fn fit(
    state: &State,
    index: usize,
    config: &ServiceConfig,
    holders: Holders<'_>,
    processes: usize,
) -> bool {
    if !config.has_own_devices() {
        return true;
    }
    let node = &state.nodes[index];
    let Some(devices) = devices_of(node) else {
        return false;
    };
    let mut held = held(state, node, holders);
    keep_for_slots(state, node, config, &mut held);
    (0..processes).all(|_| choose(devices, config, &mut held).is_some())
}

/// Whether a node has the devices of one process, free or not.
pub(crate) fn has_all(node: &Node, config: &ServiceConfig) -> bool {
    let choose = |devices| choose(devices, config, &mut Held::new()).is_some();
    !config.has_own_devices() || devices_of(node).is_some_and(choose)
}

/// Whether the devices of a process are there, as far as its node has reported.
pub(crate) fn are_there(state: &State, process: &Process) -> bool {
    let Some(devices) = devices_of(&state.nodes[process.node]) else {
        return true;
    };
    process.record.devices.iter().all(|device| {
        let names = devices.get(&device.kind);
        let units = names.and_then(|names| names.get(&device.name));
        units.is_some_and(|units| units.is_subset(&device.units))
    })
}

/// A node has reported others than before: what has some there may have to move.
pub(crate) fn changed(state: &mut State, index: usize) {
    let numbers = &state.nodes[index].processes;
    let all = state
        .processes(numbers)
        .filter(|it| !it.record.devices.is_empty());
    let services: Vec<_> = all.map(|it| it.record.service.clone()).collect();
    state.changes.reconcile.extend(services);
}

/// How many devices of each kind a node has, and how many are free.
pub(crate) fn of_kinds(state: &State, node: &Node) -> BTreeMap<DeviceKind, DevicesOfKind> {
    let Some(devices) = devices_of(node).filter(|it| !it.is_empty()) else {
        return BTreeMap::new();
    };
    let held = held(state, node, Holders::All);
    let kinds = devices.keys().map(|kind| {
        let count = |free: bool| {
            let units = units(devices, kind).filter(|it| !free || !is_held(&held, kind, it));
            u32::try_from(units.count()).unwrap_or(u32::MAX)
        };
        let (all, free) = (count(false), count(true));
        (kind.clone(), DevicesOfKind { all, free })
    });
    kinds.collect()
}

/// What a node lacks of the devices of one more process: the first kind.
pub(crate) fn shortage(
    state: &State,
    node: &Node,
    config: &ServiceConfig,
) -> Option<WorkerDevices> {
    let kinds = of_kinds(state, node);
    let mut held = held(state, node, Holders::All);
    let nothing = NodeDevices::new();
    let devices = devices_of(node).unwrap_or(&nothing);
    let lacking = in_order(config).find(|it| take(devices, it, &mut held).is_none());
    // Of what is kept for slots, all kinds are short.
    let kind = lacking.or(in_order(config).next())?.kind()?.clone();
    let DevicesOfKind { all, free } = kinds.get(&kind).copied().unwrap_or_default();
    Some(WorkerDevices {
        node: node.record.name.clone(),
        kind,
        free,
        all,
    })
}

fn devices_of(node: &Node) -> Option<&NodeDevices> {
    node.report.as_ref().map(|report| &report.devices)
}

fn held(state: &State, node: &Node, holders: Holders<'_>) -> Held {
    let without = match holders {
        Holders::All => &[],
        Holders::Staying(without) => without,
    };
    let numbers = node.processes.iter().chain(&node.runs);
    let numbers: Vec<u64> = numbers
        .filter(|it| !without.contains(it))
        .copied()
        .collect();
    let desired = state.processes(&numbers);
    let desired = desired.flat_map(|process| {
        // An agent may still have it with others, such as after an adoption.
        let reported = process.report.iter().flat_map(|report| &report.devices);
        process.record.devices.iter().chain(reported)
    });
    let leaving = node.undesired.iter().chain(&node.unconfirmed);
    let leaving = leaving.filter(|_| matches!(holders, Holders::All));
    let leaving = leaving.flat_map(|it| &it.devices);
    let held = desired.chain(leaving).flat_map(AssignedDevice::held);
    held.map(|(kind, unit)| (kind.clone(), unit.clone()))
        .collect()
}

/// What slots whose volumes are here wait for is not for others. Slots themselves do not wait for each other.
fn keep_for_slots(state: &State, node: &Node, config: &ServiceConfig, held: &mut Held) {
    let Some(devices) = devices_of(node).filter(|_| config.volume.is_empty()) else {
        return;
    };
    for (name, _) in node.claims.keys() {
        let service = state.services.get(name).filter(|_| *name != config.name);
        if let Some(service) = service {
            choose(devices, &service.current().config, held);
        }
    }
}

/// Certain devices first: of the others any will do.
fn in_order(config: &ServiceConfig) -> impl Iterator<Item = &DeviceRequest> {
    let is_named = |it: &&DeviceRequest| matches!(it, DeviceRequest::Named { .. });
    let is_any = |it: &&DeviceRequest| matches!(it, DeviceRequest::Any { .. });
    let all = &config.devices;
    all.iter().filter(is_named).chain(all.iter().filter(is_any))
}

/// The devices of a process, which are held from then on; `None` if some are not to be had.
fn choose(
    devices: &NodeDevices,
    config: &ServiceConfig,
    held: &mut Held,
) -> Option<Vec<AssignedDevice>> {
    let mut chosen = Vec::new();
    for request in in_order(config) {
        chosen.extend(take(devices, request, held)?);
    }
    Some(chosen)
}

fn take(
    devices: &NodeDevices,
    request: &DeviceRequest,
    held: &mut Held,
) -> Option<Vec<AssignedDevice>> {
    let taken: Vec<AssignedDevice> = match request {
        DeviceRequest::Node(_) => Vec::new(),
        DeviceRequest::Named { kind, name } => {
            let units = devices.get(kind)?.get(name)?.clone();
            if units.iter().any(|unit| is_held(held, kind, unit)) {
                return None;
            }
            vec![assigned(devices, kind, name, &units)]
        }
        DeviceRequest::Any { kind, count } => {
            let free = units(devices, kind).filter(|unit| !is_held(held, kind, unit));
            let free = free.take(*count as usize);
            let free = free.map(|unit| assigned(devices, kind, unit, &[unit.clone()].into()));
            let free: Vec<_> = free.collect();
            if free.len() < *count as usize {
                return None;
            }
            free
        }
    };
    let units = taken.iter().flat_map(AssignedDevice::held);
    held.extend(units.map(|(kind, unit)| (kind.clone(), unit.clone())));
    Some(taken)
}

/// A device with all names of those that it stands for.
fn assigned(
    devices: &NodeDevices,
    kind: &DeviceKind,
    name: &DeviceName,
    units: &BTreeSet<DeviceName>,
) -> AssignedDevice {
    let names = devices.get(kind).into_iter().flatten();
    let of_one = names.filter(|(_, it)| it.len() == 1 && it.is_subset(units));
    AssignedDevice {
        kind: kind.clone(),
        name: name.clone(),
        units: of_one.map(|(name, _)| name.clone()).collect(),
    }
}

/// The devices of a kind: names that stand for themselves alone.
fn units<'a>(devices: &'a NodeDevices, kind: &DeviceKind) -> impl Iterator<Item = &'a DeviceName> {
    let names = devices.get(kind).into_iter().flatten();
    let units = names.filter(|(name, units)| units.len() == 1 && units.contains(*name));
    units.map(|(name, _)| name)
}

fn is_held(held: &Held, kind: &DeviceKind, unit: &DeviceName) -> bool {
    held.contains(&(kind.clone(), unit.clone()))
}
