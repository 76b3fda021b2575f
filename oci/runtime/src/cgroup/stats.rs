//! Counters of a cgroup, read from its files: cgroups-rs returns 0 for many of them on v2.

use std::{fs, path::Path};

use super::{Cgroup, Error};

/// v1 limits from here on mean unlimited (the kernel rounds the largest number down to pages).
const UNLIMITED_BYTES: u64 = 1 << 62;

/// Counters of a cgroup. A counter that the kernel does not have, and a limit that is not set, is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time in microseconds.
    pub cpu_usage_us: u64,
    /// Periods in which the cgroup was throttled.
    pub throttled_periods: u64,
    /// Time for which the cgroup was throttled, in microseconds.
    pub throttled_us: u64,
    /// Memory usage in bytes.
    pub memory_current: u64,
    /// Bytes of it that the kernel can reclaim: the page cache.
    pub memory_reclaimable: u64,
    /// Peak memory usage in bytes.
    pub memory_peak: u64,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Number of OOM kills.
    pub oom_kills: u64,
    /// Number of processes and threads.
    pub pids_current: u64,
    /// Limit of processes and threads.
    pub pids_limit: u64,
    /// Number of forks that failed because of that limit.
    pub pids_refused: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
}

impl Stats {
    /// Bytes in use that the kernel cannot reclaim.
    pub fn memory_used(&self) -> u64 {
        self.memory_current.saturating_sub(self.memory_reclaimable)
    }
}

/// Reads the counters. Fails only if the cgroup does not exist.
pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, Error> {
    let pids = Files(cgroup.directory("pids"));
    if let Some(directory) = pids.0 {
        fs::metadata(directory).map_err(|source| Error::Read {
            path: directory.to_owned(),
            source,
        })?;
    }
    let mut stats = if cgroup.is_unified() {
        unified(&pids)
    } else {
        per_controller(cgroup)
    };
    stats.pids_current = pids.number("pids.current");
    stats.pids_limit = pids.number("pids.max");
    stats.pids_refused = pids.entry("pids.events", "max");
    Ok(stats)
}

fn unified(files: &Files) -> Stats {
    let io = files.text("io.stat");
    Stats {
        cpu_usage_us: files.entry("cpu.stat", "usage_usec"),
        throttled_periods: files.entry("cpu.stat", "nr_throttled"),
        throttled_us: files.entry("cpu.stat", "throttled_usec"),
        memory_current: files.number("memory.current"),
        memory_reclaimable: files.sum("memory.stat", &["inactive_file", "active_file"]),
        memory_peak: files.number("memory.peak"),
        memory_limit: files.number("memory.max"),
        oom_kills: files.entry("memory.events", "oom_kill"),
        io_read_bytes: sum_of_fields(&io, "rbytes="),
        io_write_bytes: sum_of_fields(&io, "wbytes="),
        ..Stats::default()
    }
}

fn per_controller(cgroup: &Cgroup) -> Stats {
    let of = |controller| Files(cgroup.directory(controller));
    let (cpu, memory) = (of("cpu"), of("memory"));
    let io = of("blkio").text("blkio.throttle.io_service_bytes");
    let limit = memory.number("memory.limit_in_bytes");
    Stats {
        cpu_usage_us: of("cpuacct").number("cpuacct.usage") / 1000,
        throttled_periods: cpu.entry("cpu.stat", "nr_throttled"),
        throttled_us: cpu.entry("cpu.stat", "throttled_time") / 1000,
        memory_current: memory.number("memory.usage_in_bytes"),
        memory_reclaimable: memory
            .sum("memory.stat", &["total_inactive_file", "total_active_file"]),
        memory_peak: memory.number("memory.max_usage_in_bytes"),
        memory_limit: if limit < UNLIMITED_BYTES { limit } else { 0 },
        oom_kills: memory.entry("memory.oom_control", "oom_kill"),
        io_read_bytes: sum_of_operations(&io, "Read"),
        io_write_bytes: sum_of_operations(&io, "Write"),
        ..Stats::default()
    }
}

struct Files<'a>(Option<&'a Path>);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        self.0
            .and_then(|directory| fs::read_to_string(directory.join(name)).ok())
            .unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).trim().parse().unwrap_or_default()
    }

    /// The number of a `key number` line.
    fn entry(&self, name: &str, key: &str) -> u64 {
        entry(&self.text(name), key)
    }

    /// The sum of the numbers of several `key number` lines.
    fn sum(&self, name: &str, keys: &[&str]) -> u64 {
        let text = self.text(name);
        keys.iter().map(|key| entry(&text, key)).sum()
    }
}

fn entry(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or_default()
}

/// v2: `8:0 rbytes=1 wbytes=2 …` for each device.
fn sum_of_fields(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

/// v1: `8:0 Read 1` for each device and operation.
fn sum_of_operations(text: &str, operation: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            (words.next() == Some(operation)).then(|| words.next()?.parse::<u64>().ok())?
        })
        .sum()
}

#[cfg(test)]
mod tests;
