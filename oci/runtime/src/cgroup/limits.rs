//! Limits of a cgroup, set through cgroups-rs's controllers on directories that exist already.

use std::path::Path;

use cgroups_rs::fs::{
    MaxValue,
    cpu::CpuController,
    devices::{DevicePermissions, DeviceType, DevicesController},
    memory::MemController,
    pid::PidController,
};
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::{Cgroup, Error};

/// Devices that every container may use: `(major, minor)`; none of them reaches the host.
/// null, zero, full, random, urandom, tty, ptmx, and all of devpts.
const DEVICES: [(i64, i64); 8] = [
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 2),
    (136, ANY),
];

/// What the kernel takes as a wildcard. (Left out, cgroups-rs would make it 0.)
const ANY: i64 = -1;

/// Sets the limits that are given. On v1, devices are denied but for the default ones; v2 has no file for that, and there
/// a container is kept from devices by lacking CAP_MKNOD and by `nodev` mounts.
pub(super) fn set(cgroup: &Cgroup, resources: Option<&LinuxResources>) -> Result<(), Error> {
    if let Some(memory) = resources.and_then(|all| all.memory().as_ref()) {
        set_memory(cgroup, memory)?;
    }
    if let Some(cpu) = resources.and_then(|all| all.cpu().as_ref()) {
        set_cpu(cgroup, cpu)?;
    }
    if let Some(pids) = resources.and_then(|all| all.pids().as_ref()) {
        set_pids(cgroup, pids.limit())?;
    }
    if !cgroup.is_unified() {
        let rules = resources.and_then(|all| all.devices().as_deref());
        set_devices(cgroup, rules.unwrap_or_default())?;
    }
    Ok(())
}

fn set_memory(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<(), Error> {
    let directory = required(cgroup, "memory")?;
    let v2 = cgroup.is_unified();
    let controller = MemController::new(directory.to_owned(), directory.to_owned(), v2);
    let refused = refusal("the memory limit", directory);
    if let Some(limit) = memory.limit() {
        controller.set_limit(limit).map_err(&refused)?;
    }
    if let Some(reservation) = memory.reservation() {
        controller.set_soft_limit(reservation).map_err(&refused)?;
    }
    let (name, swap) = match (v2, memory.swap(), memory.limit()) {
        (false, swap, _) => ("memory.memsw.limit_in_bytes", swap),
        // The specification counts memory and swap together, as v1 does; v2 counts swap alone.
        (true, Some(both), Some(limit)) if both >= limit => ("memory.swap.max", Some(both - limit)),
        (true, swap, _) => ("memory.swap.max", swap.filter(|both| *both < 0)),
    };
    match swap {
        // A kernel that does not account for swap cannot limit it.
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
    if cpu.quota().is_some() || cpu.period().is_some() {
        // The period first: a quota is checked against it.
        let (quota, period) = (cpu.quota(), cpu.period());
        controller
            .set_cfs_quota_and_period(None, period)
            .and_then(|()| controller.set_cfs_quota_and_period(quota, period))
            .map_err(&refused)?;
    }
    Ok(())
}

/// v1's shares (2..=262144, usually 1024) on v2's scale (1..=10000, usually 100).
fn weight(shares: u64) -> u64 {
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

fn set_devices(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let Some(directory) = cgroup.directory("devices") else {
        return Ok(());
    };
    let refused = refusal("the device rules", directory);
    let controller = DevicesController::new(directory.to_owned(), directory.to_owned());
    controller
        .deny_device(DeviceType::All, ANY, ANY, &EVERYTHING)
        .map_err(&refused)?;
    for (major, minor) in DEVICES {
        controller
            .allow_device(DeviceType::Char, major, minor, &EVERYTHING)
            .map_err(&refused)?;
    }
    for rule in rules.iter().filter(|rule| !denies_everything(rule)) {
        set_device(&controller, rule).map_err(&refused)?;
    }
    Ok(())
}

const EVERYTHING: [DevicePermissions; 3] = [
    DevicePermissions::Read,
    DevicePermissions::Write,
    DevicePermissions::MkNod,
];

/// The rule that everybody's list begins with, which we begin with in any case.
fn denies_everything(rule: &LinuxDeviceCgroup) -> bool {
    !rule.allow() && rule.typ().unwrap_or(LinuxDeviceType::A) == LinuxDeviceType::A
}

fn set_device(
    controller: &DevicesController,
    rule: &LinuxDeviceCgroup,
) -> Result<(), cgroups_rs::fs::error::Error> {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::B => DeviceType::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceType::Char,
        _ => DeviceType::All,
    };
    let (major, minor) = (rule.major().unwrap_or(ANY), rule.minor().unwrap_or(ANY));
    let access = rule.access().as_deref().unwrap_or("rwm");
    let access: Vec<_> = access
        .chars()
        .filter_map(|letter| match letter {
            'r' => Some(DevicePermissions::Read),
            'w' => Some(DevicePermissions::Write),
            'm' => Some(DevicePermissions::MkNod),
            _ => None,
        })
        .collect();
    if rule.allow() {
        controller.allow_device(kind, major, minor, &access)
    } else {
        controller.deny_device(kind, major, minor, &access)
    }
}

fn required<'a>(cgroup: &'a Cgroup, controller: &'static str) -> Result<&'a Path, Error> {
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
