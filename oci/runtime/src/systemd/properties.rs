//! Converts limits to systemd's properties (systemd.resource-control(5)), so that systemd's tools show them and the
//! scope enforces them. Limits without a property apply to the container's own cgroup only.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::wire::Value;
use crate::cgroup::weight;

/// systemd's value for unlimited.
const INFINITY: u64 = u64::MAX;

/// The kernel's default quota period.
const PERIOD_US: u64 = 100_000;

/// systemd rounds quotas to hundredths of a CPU.
const QUOTA_STEP_US: u64 = 10_000;

/// Maximum CPU or memory node number: that of the kernel.
const NUMBER_LIMIT: usize = 8192;

type Properties = Vec<(&'static str, Value)>;

/// The properties of these limits.
pub(super) fn of(limits: Option<&LinuxResources>, unified: bool) -> Properties {
    let Some(limits) = limits else {
        return Vec::new();
    };
    let mut all = Vec::new();
    if let Some(memory) = limits.memory() {
        all.extend(of_memory(memory, unified));
    }
    if let Some(cpu) = limits.cpu() {
        all.extend(of_cpu(cpu, unified));
    }
    if let Some(pids) = limits.pids().as_ref().filter(|pids| pids.limit() != 0) {
        all.push(("TasksMax", limit(pids.limit())));
    }
    for (file, value) in limits.unified().iter().flatten() {
        all.extend(of_file(file, value));
    }
    all
}

fn limit(value: i64) -> Value {
    Value::Number(u64::try_from(value).unwrap_or(INFINITY))
}

/// Callers write zero for a limit that they do not set.
fn of_memory(memory: &LinuxMemory, unified: bool) -> Properties {
    let given = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    let most = given(memory.limit());
    if !unified {
        return Vec::from_iter(most.map(|most| ("MemoryLimit", limit(most))));
    }
    // The specification counts memory and swap together, systemd swap alone.
    let swap = given(memory.swap()).and_then(|both| match most {
        _ if both < 0 => Some(both),
        Some(most) if most > 0 && both >= most => Some(both - most),
        _ => None,
    });
    let low = given(memory.reservation());
    [
        ("MemoryMax", most),
        ("MemoryLow", low),
        ("MemorySwapMax", swap),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, limit(value?))))
    .collect()
}

fn of_cpu(cpu: &LinuxCpu, unified: bool) -> Properties {
    let mut all = Vec::new();
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        all.push(if unified {
            ("CPUWeight", Value::Number(weight(shares)))
        } else {
            ("CPUShares", Value::Number(shares))
        });
    }
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        all.push(("CPUQuotaPerSecUSec", quota_of(quota, period)));
    }
    if unified {
        let lists = [
            ("AllowedCPUs", cpu.cpus()),
            ("AllowedMemoryNodes", cpu.mems()),
        ];
        let bits = |list: &Option<String>| bits(list.as_deref()?);
        all.extend(
            lists
                .into_iter()
                .filter_map(|(name, list)| Some((name, bits(list)?))),
        );
    }
    all
}

/// Rounded up; the container's own cgroup has the exact quota.
fn quota_of(quota: i64, period: Option<u64>) -> Value {
    let Ok(quota) = u64::try_from(quota) else {
        return Value::Number(INFINITY);
    };
    let per_second = quota.saturating_mul(1_000_000) / period.unwrap_or(PERIOD_US);
    Value::Number(per_second.next_multiple_of(QUOTA_STEP_US))
}

/// Converts a list such as `0-2,5` to a bit mask, lowest byte first. Invalid lists are reported when they are written
/// to the container's own cgroup.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for range in list.split(',').filter(|range| !range.trim().is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= NUMBER_LIMIT {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0u8);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    (!bytes.is_empty()).then_some(Value::Bytes(bytes))
}

/// Entries of the `unified` map.
fn of_file(file: &str, value: &str) -> Option<(&'static str, Value)> {
    let name = match file {
        "cpu.weight" => "CPUWeight",
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpuset.cpus" => return Some(("AllowedCPUs", bits(value)?)),
        "cpuset.mems" => return Some(("AllowedMemoryNodes", bits(value)?)),
        _ => return None,
    };
    match value.trim() {
        "max" => Some((name, Value::Number(INFINITY))),
        number => Some((name, Value::Number(number.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests;
