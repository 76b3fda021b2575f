//! Options of `update`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

/// Resource limits, as in `linux.resources`. Memory is in bytes, or has a unit b, k, m, g or t; -1 means unlimited.
#[derive(Debug, Default, PartialEq, Args)]
pub struct Limits {
    /// File with `linux.resources` as JSON (`-`: stdin). The other options override it.
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000.
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds.
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU quota in each period in microseconds; -1 means unlimited.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU burst in microseconds.
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// CPU shares; 1024 is the default.
    #[arg(long, alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// Period of the real-time quota in microseconds.
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Real-time quota in each period in microseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1: run only when the CPU is otherwise idle.
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// CPUs to use, such as 0-2,5.
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use.
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit.
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory reservation (soft limit).
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap together.
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Limit of processes and threads.
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

impl Limits {
    /// The limits that were named, by section and field of the specification.
    pub fn fields(&self) -> Vec<(&'static str, &'static str, Value)> {
        let fields = [
            ("blockIO", "weight", self.blkio_weight.map(Value::from)),
            ("cpu", "period", self.cpu_period.map(Value::from)),
            ("cpu", "quota", self.cpu_quota.map(Value::from)),
            ("cpu", "burst", self.cpu_burst.map(Value::from)),
            ("cpu", "shares", self.cpu_share.map(Value::from)),
            ("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from)),
            (
                "cpu",
                "realtimeRuntime",
                self.cpu_rt_runtime.map(Value::from),
            ),
            ("cpu", "idle", self.cpu_idle.map(Value::from)),
            ("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from)),
            ("cpu", "mems", self.cpuset_mems.clone().map(Value::from)),
            ("memory", "limit", self.memory.map(Value::from)),
            (
                "memory",
                "reservation",
                self.memory_reservation.map(Value::from),
            ),
            ("memory", "swap", self.memory_swap.map(Value::from)),
            ("pids", "limit", self.pids_limit.map(Value::from)),
        ];
        fields
            .into_iter()
            .filter_map(|(section, name, value)| Some((section, name, value?)))
            .collect()
    }
}

/// `512`, `64k`, `1.5g`, `10MB`; `-1`.
fn bytes(text: &str) -> Result<i64, String> {
    const UNITS: [(char, u32); 5] = [('b', 0), ('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.trim().to_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let plain = plain.strip_suffix('i').unwrap_or(plain);
    let unit = UNITS.iter().find(|(letter, _)| plain.ends_with(*letter));
    let (number, shift) = match unit {
        Some((letter, shift)) => (plain.trim_end_matches(*letter), *shift),
        None => (plain, 0),
    };
    let value = number
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|number| *number >= 0.0);
    let value = value.map(|number| number * f64::from(shift).exp2());
    value
        .filter(|bytes| *bytes <= i64::MAX as f64)
        .map(|bytes| bytes as i64)
        .ok_or_else(|| format!("{text:?} is not an amount of memory, such as 512, 64k or 1.5g"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_have_units() {
        for (text, expected) in [
            ("512", 512),
            ("-1", -1),
            ("64k", 64 << 10),
            ("1.5g", 3 << 29),
            ("10MB", 10 << 20),
            ("2GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "x", "-2", "1q", "nan", "1e300"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
