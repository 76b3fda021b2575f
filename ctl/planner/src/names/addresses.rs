//! Which address each service has, and each slot of a service with volumes. An address never changes; one that was freed is
//! given to another service only after every other one was used.

use std::{collections::BTreeSet, net::Ipv4Addr};

use tucano_api::{
    ids::ServiceName,
    names::{ServiceAddress, ServiceSubnet},
    service::ServiceConfig,
};

use crate::{
    model::{ProcessRecord, ServiceRecord},
    state::State,
};

/// Gives addresses to the services that lack some.
pub(crate) fn assign(state: &mut State) {
    let names = std::mem::take(&mut state.changes.unaddressed);
    if names.is_empty() {
        return;
    }
    let mut used = in_use(state);
    for name in names {
        assign_to(state, &name, &mut used);
    }
}

/// How many addresses a configuration takes beyond those that its service has.
pub(crate) fn missing(state: &State, config: &ServiceConfig) -> usize {
    let service = state.services.get(&config.name);
    let has = |slot: &u32| {
        service.is_some_and(|service| service.record.slot_addresses.contains_key(slot))
    };
    let slots = slots(config).filter(|slot| !has(slot)).count();
    let own = service.is_none_or(|service| service.record.address.is_none());
    slots + usize::from(own)
}

/// How many addresses are free.
pub(crate) fn free(state: &State) -> usize {
    let size = state.settings.service_subnet.size() as usize;
    size.saturating_sub(in_use(state).len())
}

/// The addresses that a process's agent remembers for the next controller.
pub(crate) fn of_process(state: &State, process: &ProcessRecord) -> Option<ServiceAddress> {
    let record = &state.services.get(&process.service)?.record;
    let slot = process.slot;
    Some(ServiceAddress {
        service: record.address?,
        slot: slot.and_then(|slot| record.slot_addresses.get(&slot).copied()),
    })
}

/// Takes over the addresses that an agent remembers, where nobody else has them.
pub(crate) fn adopt(
    state: &mut State,
    name: &ServiceName,
    slot: Option<u32>,
    remembered: ServiceAddress,
) {
    let subnet = state.settings.service_subnet;
    let used = in_use(state);
    let is_free = |ip: Ipv4Addr| subnet.contains(ip) && !used.contains(&ip);
    let Some(service) = state.services.get_mut(name) else {
        return;
    };
    let record = &mut service.record;
    if record.address.is_none() && is_free(remembered.service) {
        record.address = Some(remembered.service);
    }
    if let (Some(slot), Some(ip)) = (slot, remembered.slot)
        && !record.slot_addresses.contains_key(&slot)
        && is_free(ip)
        && record.address != Some(ip)
    {
        record.slot_addresses.insert(slot, ip);
    }
    state.changes.services.insert(name.clone());
}

/// The network of services has changed: those whose addresses are not in it get others.
pub(crate) fn renumber(state: &mut State) {
    let subnet = state.settings.service_subnet;
    for (name, service) in &mut state.services {
        let record = &mut service.record;
        if record.address.is_some_and(|ip| !subnet.contains(ip)) {
            record.address = None;
        }
        record.slot_addresses.retain(|_, ip| subnet.contains(*ip));
        if lacks(record) {
            state.changes.unaddressed.insert(name.clone());
        }
    }
}

fn lacks(record: &ServiceRecord) -> bool {
    let Some(current) = record.revisions.last() else {
        return false;
    };
    let mut slots = slots(&current.config);
    record.address.is_none() || slots.any(|slot| !record.slot_addresses.contains_key(&slot))
}

fn slots(config: &ServiceConfig) -> impl Iterator<Item = u32> + use<> {
    let count = match config.volume.is_empty() {
        true => 0,
        false => config.concurrency,
    };
    1..=count
}

fn in_use(state: &State) -> BTreeSet<Ipv4Addr> {
    let records = state.services.values().map(|service| &service.record);
    records
        .flat_map(|record| record.address.into_iter().chain(slots_of(record)))
        .collect()
}

fn slots_of(record: &ServiceRecord) -> impl Iterator<Item = Ipv4Addr> {
    record.slot_addresses.values().copied()
}

/// Its processes' agents are told, for the next controller.
fn assign_to(state: &mut State, name: &ServiceName, used: &mut BTreeSet<Ipv4Addr>) {
    let subnet = state.settings.service_subnet;
    let Some(service) = state.services.get_mut(name) else {
        return;
    };
    if !lacks(&service.record) {
        return;
    }
    let cursor = &mut state.counters.last_address;
    let slots = slots(&service.current().config);
    let record = &mut service.record;
    if record.address.is_none() {
        record.address = next(subnet, cursor, used);
    }
    for slot in slots {
        if record.slot_addresses.contains_key(&slot) {
            continue;
        }
        let Some(ip) = next(subnet, cursor, used) else {
            break;
        };
        record.slot_addresses.insert(slot, ip);
    }
    let processes: Vec<u64> = service.processes.iter().copied().collect();
    for process in state
        .processes(&processes)
        .map(|it| it.record.node.clone())
        .collect::<Vec<_>>()
    {
        state.changes.reassign.insert(process);
    }
    state.changes.counters = true;
    state.changes.services.insert(name.clone());
    state.changes.renamed.insert(name.clone());
}

/// The next free address after the cursor; `None` if all are used.
fn next(
    subnet: ServiceSubnet,
    cursor: &mut Option<Ipv4Addr>,
    used: &mut BTreeSet<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    if used.len() >= subnet.size() as usize {
        return None;
    }
    let mut candidate = subnet.next(*cursor);
    for _ in 0..subnet.size() {
        if used.insert(candidate) {
            *cursor = Some(candidate);
            return Some(candidate);
        }
        candidate = subnet.next(Some(candidate));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_again_after_all_others_only() {
        let subnet: ServiceSubnet = "10.9.0.0/28".parse().unwrap();
        let (mut cursor, mut used) = (None, BTreeSet::new());
        let mut take = |used: &mut BTreeSet<Ipv4Addr>| next(subnet, &mut cursor, used);
        let first = take(&mut used).unwrap();
        used.remove(&first);
        for _ in 0..13 {
            let next = take(&mut used).unwrap();
            assert_ne!(next, first);
        }
        assert_eq!(take(&mut used), Some(first));
        assert_eq!(take(&mut used), None);
        let freed: Ipv4Addr = [10, 9, 0, 7].into();
        used.remove(&freed);
        assert_eq!(take(&mut used), Some(freed));
    }
}
