//! Why a worker cannot have volumes that are moved or restored to it, as messages for the user.

use tucano_api::{
    ids::{NodeName, VolumeId},
    service::ServiceConfig,
};

use super::{absence, room};
use crate::{
    devices::{self, Holders},
    messages::bytes,
    placement,
    rules::Rules,
    state::{Node, Resources, State},
};

/// A worker that is there.
///
/// # Errors
/// It is not in the topology, or it is not there.
pub(super) fn worker<'a>(state: &'a State, name: &NodeName) -> Result<&'a Node, String> {
    let Some(index) = state.node_index.get(name) else {
        return Err(format!("there is no worker {name} in the topology"));
    };
    match absent(state, name) {
        Some(obstacle) => Err(obstacle),
        None => Ok(&state.nodes[*index]),
    }
}

/// Why a worker is not there.
pub(super) fn absent(state: &State, name: &NodeName) -> Option<String> {
    let (cause, since) = absence(state, name)?;
    let (since, advice) = (cause.since(since), cause.advice());
    Some(format!("{name} {since}: {advice} first"))
}

/// Another volume of a name is on the worker.
pub(super) fn occupied(id: &VolumeId, name: &NodeName) -> String {
    format!(
        "another volume {id} is on {name}: remove it with `tucano volume rm {id} --on {name}` first"
    )
}

/// Why a worker cannot run a service.
pub(super) fn cannot_run(state: &State, node: &Node, config: &ServiceConfig) -> Option<String> {
    let name = &node.record.name;
    if !node.can_run(config) {
        return Some(format!(
            "{name} cannot run service {}: its agent does not know all keys of the configuration, or does not list its host paths",
            config.name
        ));
    }
    let rules = Rules::of(state, &config.name)?;
    let index = *state.node_index.get(name)?;
    (!rules.admits(state, index)).then(|| {
        let reason = placement::why_not(state, &rules, &[index], 0);
        format!("service {} cannot be on {name}: {reason}", config.name)
    })
}

/// Why a worker has too little left to reserve for a process.
pub(super) fn no_memory(node: &Node, config: &ServiceConfig) -> Option<String> {
    let (free, needed) = (node.unclaimed(), Resources::of(config));
    let (to, service) = (&node.record.name, &config.name);
    if free.memory < needed.memory {
        return Some(format!(
            "{to} has {} of memory left to reserve, and a process of service {service} takes {}",
            bytes(free.memory),
            bytes(needed.memory)
        ));
    }
    (free.millicpus < needed.millicpus).then(|| {
        format!("{to} has too few CPUs left to reserve for a process of service {service}")
    })
}

/// Why a process would not have its devices on a worker.
pub(super) fn no_devices(state: &State, node: &Node, config: &ServiceConfig) -> Option<String> {
    let index = *state.node_index.get(&node.record.name)?;
    let staying = Holders::Staying(&[]);
    (!devices::fit(state, index, config, staying, 1)).then(|| {
        let lacking = devices::shortage(state, node, config);
        let lacking = lacking.map_or_else(String::new, |it| format!(" ({it})"));
        let (to, service) = (&node.record.name, &config.name);
        format!("{to} has not the devices free that a process of service {service} has{lacking}")
    })
}

/// Why a worker has no room for volumes, which a few words name.
pub(super) fn no_room(state: &State, node: &Node, needed: u64, which: &str) -> Option<String> {
    let free = room(state, node).unwrap_or(0);
    (needed > free).then(|| {
        format!(
            "{} has room for {} of volumes, and {which} take {}",
            node.record.name,
            bytes(free),
            bytes(needed)
        )
    })
}
