//! `update`: changes the resource limits of a container.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Spec};
use serde_json::{Map, Value};

use super::{
    Error,
    store::{Record, Status, Store},
};
use crate::{bundle, channel::Step};

/// Maximum size of a file of limits.
const TEXT_LIMIT_BYTES: u64 = 1 << 20;

/// Limits to change; others stay.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// File with `linux.resources` as JSON, `-` for stdin. `fields` override it.
    pub file: Option<PathBuf>,
    /// Fields by section and name of the specification.
    pub fields: Vec<(&'static str, &'static str, Value)>,
}

/// Changes the limits of a container and records them.
pub fn update(store: &Store, id: &str, wanted: &Update) -> Result<(), Error> {
    let mut container = store.find(id)?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let mut limits = limits(wanted)?;
    let before = resources(&container.record.spec);
    complete_memory(&mut limits, before.as_ref());
    let mut all = before.clone().unwrap_or_default();
    merge(&mut all, limits.clone());
    if let Some(memory) = limits.memory() {
        container.record.cgroup.check_memory(memory)?;
    }
    update_scope(&container.record, Some(&all))?;
    let changed = container.record.cgroup.update(&limits);
    if changed.is_ok() {
        if !container.record.cgroup.is_unified() {
            // On v1 a parent's limit cannot be less than its child's, so systemd's limits are set again.
            update_scope(&container.record, Some(&all))?;
        }
        if let Some(linux) = container.record.spec.linux_mut() {
            linux.set_resources(Some(all));
        }
    } else {
        // Report the original failure, not one of the rollback.
        drop(update_scope(&container.record, before.as_ref()));
        drop(container.record.cgroup.update(&before.unwrap_or_default()));
    }
    // Recorded even after a failure: the cgroup may be under new controllers, which `delete` must know.
    container.write()?;
    Ok(changed?)
}

fn resources(spec: &Spec) -> Option<LinuxResources> {
    spec.linux().as_ref()?.resources().clone()
}

/// Sets the limits of the systemd scope as well.
fn update_scope(record: &Record, limits: Option<&LinuxResources>) -> Result<(), Error> {
    if let Some(scope) = &record.scope {
        scope.update(limits, record.cgroup.is_unified())?;
    }
    Ok(())
}

fn limits(wanted: &Update) -> Result<LinuxResources, Error> {
    let mut all = match &wanted.file {
        Some(path) => object(path)?,
        None => Map::new(),
    };
    for (section, name, value) in &wanted.fields {
        let section = all
            .entry(*section)
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(fields) = section.as_object_mut() {
            fields.insert((*name).to_owned(), value.clone());
        }
    }
    Ok(serde_json::from_value(Value::Object(all)).step("the limits")?)
}

fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        let stdin = std::io::stdin().lock();
        stdin
            .take(TEXT_LIMIT_BYTES)
            .read_to_end(&mut text)
            .step("stdin")?;
        text
    } else {
        crate::state_dir::read_bounded(path).map_err(|source| bundle::Error::Read {
            path: path.to_owned(),
            source,
        })?
    };
    let parsed = serde_json::from_slice(&text).map_err(|source| bundle::Error::Config {
        path: path.to_owned(),
        source,
    })?;
    Ok(parsed)
}

/// Limits of memory and of memory and swap together depend on each other: with unlimited memory there is no limit of both,
/// and a limit of both means nothing without one of memory, which stays.
fn complete_memory(limits: &mut LinuxResources, before: Option<&LinuxResources>) {
    let known = before.and_then(|before| before.memory().as_ref());
    let known = known.and_then(LinuxMemory::limit);
    if let Some(memory) = limits.memory_mut() {
        match (memory.limit(), memory.swap()) {
            (Some(..0), None) => drop(memory.set_swap(Some(-1))),
            (None, Some(1..)) => drop(memory.set_limit(known)),
            _ => {}
        }
    }
}

/// Overrides limits by those that are present in `with`.
fn merge(limits: &mut LinuxResources, with: LinuxResources) {
    if let Some(cpu) = with.cpu() {
        merge_cpu(limits.cpu_mut().get_or_insert_default(), cpu);
    }
    if let Some(memory) = with.memory() {
        merge_memory(limits.memory_mut().get_or_insert_default(), memory);
    }
    if let Some(pids) = with.pids() {
        limits.set_pids(Some(LinuxPids::clone(pids)));
    }
    if with.block_io().is_some() {
        limits.set_block_io(with.block_io().clone());
    }
    if with.network().is_some() {
        limits.set_network(with.network().clone());
    }
    if with.rdma().is_some() {
        limits.set_rdma(with.rdma().clone());
    }
    if with.hugepage_limits().is_some() {
        limits.set_hugepage_limits(with.hugepage_limits().clone());
    }
    if let Some(unified) = with.unified() {
        let all = limits.unified_mut().get_or_insert_default();
        all.extend(unified.clone());
    }
}

fn merge_cpu(limits: &mut LinuxCpu, with: &LinuxCpu) {
    let mut merged = LinuxCpu::default();
    merged
        .set_shares(with.shares().or(limits.shares()))
        .set_quota(with.quota().or(limits.quota()))
        .set_period(with.period().or(limits.period()))
        .set_idle(with.idle().or(limits.idle()))
        .set_burst(with.burst().or(limits.burst()))
        .set_realtime_runtime(with.realtime_runtime().or(limits.realtime_runtime()))
        .set_realtime_period(with.realtime_period().or(limits.realtime_period()))
        .set_cpus(with.cpus().clone().or(limits.cpus().clone()))
        .set_mems(with.mems().clone().or(limits.mems().clone()));
    *limits = merged;
}

fn merge_memory(limits: &mut LinuxMemory, with: &LinuxMemory) {
    let limit = with.limit().or(limits.limit());
    let swap = with.swap().or(limits.swap());
    let reservation = with.reservation().or(limits.reservation());
    limits
        .set_limit(limit)
        .set_swap(swap)
        .set_reservation(reservation);
}

#[cfg(test)]
mod tests;
