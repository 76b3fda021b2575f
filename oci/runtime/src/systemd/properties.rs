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
mod tests {
    use super::*;

    fn from(text: &str, unified: bool) -> Vec<String> {
        let limits: LinuxResources = serde_json::from_str(text).unwrap();
        let all = of(Some(&limits), unified);
        all.iter()
            .map(|(name, value)| match value {
                Value::Number(INFINITY) => format!("{name}=infinity"),
                Value::Number(number) => format!("{name}={number}"),
                Value::Bytes(bytes) => format!("{name}={bytes:?}"),
                other => format!("{name}={other:?}"),
            })
            .collect()
    }

    #[test]
    fn limits_are_converted_to_systemd_properties() {
        let text = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500},"pids":{"limit":7},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-2,9"}}"#;
        let v2 = [
            "MemoryMax=1000",
            "MemoryLow=500",
            "MemorySwapMax=500",
            "CPUWeight=39",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
            "AllowedCPUs=[7, 2]",
            "TasksMax=7",
        ];
        assert_eq!(from(text, true), v2);
        let v1 = [
            "MemoryLimit=1000",
            "CPUShares=1024",
            "CPUQuotaPeriodUSec=100000",
            "CPUQuotaPerSecUSec=500000",
            "TasksMax=7",
        ];
        assert_eq!(from(text, false), v1);
    }

    #[test]
    fn unlimited_is_infinity_and_absent_limits_are_omitted() {
        let text = r#"{"memory":{"limit":-1,"swap":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
        let told = [
            "MemoryMax=infinity",
            "MemorySwapMax=infinity",
            "CPUQuotaPerSecUSec=infinity",
            "TasksMax=infinity",
        ];
        assert_eq!(from(text, true), told);
        let zeros = r#"{"memory":{"limit":0,"swap":0},"cpu":{"quota":0,"shares":0,"cpus":""},"pids":{"limit":0}}"#;
        assert!(from(zeros, true).is_empty());
        assert!(of(None, true).is_empty());
        // A quota is never less than requested.
        assert_eq!(
            from(r#"{"cpu":{"quota":12345}}"#, true),
            ["CPUQuotaPerSecUSec=130000"]
        );
    }

    #[test]
    fn known_entries_of_the_unified_map_become_properties() {
        let text = r#"{"unified":{"memory.high":"4096"}}"#;
        assert_eq!(from(text, true), ["MemoryHigh=4096"]);
        let text = r#"{"unified":{"pids.max":"max"}}"#;
        assert_eq!(from(text, true), ["TasksMax=infinity"]);
        assert!(from(r#"{"unified":{"io.max":"8:0 rbps=1"}}"#, true).is_empty());
        assert!(from(r#"{"cpu":{"cpus":"0-99999999"}}"#, true).is_empty());
    }
}
