//! Sets limits through the controllers of cgroups-rs, on directories that exist.

use std::path::Path;

use cgroups_rs::fs::{MaxValue, cpu::CpuController, memory::MemController, pid::PidController};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, Error, bandwidth, block_io, settings};

/// Sets every limit that is present, except for the device rules.
pub(super) fn set_all(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), Error> {
    if let Some(memory) = resources.memory() {
        set_memory(cgroup, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        settings::end_idle(cgroup, cpu)?;
        set_cpu(cgroup, cpu)?;
    }
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        set_pids(cgroup, pids.limit())?;
    }
    if let Some(io) = resources.block_io() {
        block_io::set(cgroup, io)?;
    }
    settings::apply(cgroup, resources)
}

fn set_memory(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<(), Error> {
    let directory = required(cgroup, "memory")?;
    let v2 = cgroup.is_unified();
    let controller = MemController::new(directory.to_owned(), directory.to_owned(), v2);
    let refused = refusal("the memory limit", directory);
    // Callers write zero for a limit that they do not set.
    let given = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    if let Some(limit) = given(memory.limit()) {
        controller.set_limit(limit).map_err(&refused)?;
    }
    if let Some(reservation) = given(memory.reservation()) {
        controller.set_soft_limit(reservation).map_err(&refused)?;
    }
    let (name, swap) = match (v2, given(memory.swap()), given(memory.limit())) {
        (false, swap, _) => ("memory.memsw.limit_in_bytes", swap),
        // The specification counts memory and swap together, like v1; v2 counts swap alone.
        (true, Some(both), Some(limit)) if both >= limit => ("memory.swap.max", Some(both - limit)),
        (true, swap, _) => ("memory.swap.max", swap.filter(|both| *both < 0)),
    };
    match swap {
        // A kernel without swap accounting cannot limit swap.
        Some(swap) if directory.join(name).exists() => {
            controller.set_memswap_limit(swap).map_err(&refused)
        }
        _ => Ok(()),
    }
}

fn set_cpu(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), Error> {
    let directory = required(cgroup, "cpu")?;
    let v2 = cgroup.is_unified();
    let controller = CpuController::new(directory.to_owned(), directory.to_owned(), v2);
    let refused = refusal("the share of the CPU", directory);
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        let weight = if v2 { weight(shares) } else { shares };
        controller.set_shares(weight).map_err(&refused)?;
    }
    bandwidth::set(directory, cpu, v2)
}

/// Converts v1 shares (2..=262144, default 1024) to a v2 weight (1..=10000, default 100).
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn set_pids(cgroup: &Cgroup, limit: i64) -> Result<(), Error> {
    let directory = required(cgroup, "pids")?;
    let v2 = cgroup.is_unified();
    let value = if limit > 0 {
        MaxValue::Value(limit)
    } else {
        MaxValue::Max
    };
    PidController::new(directory.to_owned(), directory.to_owned(), v2)
        .set_pid_max(value)
        .map_err(refusal("the limit of processes", directory))
}

pub(super) fn required<'a>(
    cgroup: &'a Cgroup,
    controller: &'static str,
) -> Result<&'a Path, Error> {
    cgroup
        .directory(controller)
        .ok_or_else(|| Error::NoHierarchy {
            detail: format!("there is no {controller} controller for the limit asked for"),
        })
}

fn refusal(
    what: &'static str,
    path: &Path,
) -> impl Fn(cgroups_rs::fs::error::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error::Limit {
        what,
        path: path.clone(),
        reason: causes(&error),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(weight(u64::MAX), 10_000);
    }
}
