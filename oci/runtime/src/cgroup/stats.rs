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
mod tests {
    use super::*;

    fn cgroup_of(files: &[(&str, &str)], controllers: &[&str]) -> (tempfile::TempDir, Stats) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let directories = controllers
            .iter()
            .map(|name| ((*name).to_owned(), directory.path().to_owned()))
            .collect();
        let stats = read(&Cgroup { directories }).unwrap();
        (directory, stats)
    }

    #[test]
    fn v2_is_read() {
        let files = [
            (
                "cpu.stat",
                "usage_usec 7\nuser_usec 5\nnr_throttled 2\nthrottled_usec 90\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 4\noom_kill 3\noom_group_kill 9\n"),
            ("pids.current", "2\n"),
            ("pids.max", "64\n"),
            ("pids.events", "max 5\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=1 rios=2\n8:16 rbytes=5 wbytes=2\n",
            ),
        ];
        let (_directory, stats) = cgroup_of(&files, &[""]);
        let expected = Stats {
            cpu_usage_us: 7,
            throttled_periods: 2,
            throttled_us: 90,
            memory_current: 4096,
            memory_peak: 8192,
            memory_limit: 0,
            oom_kills: 3,
            pids_current: 2,
            pids_limit: 64,
            pids_refused: 5,
            io_read_bytes: 15,
            io_write_bytes: 3,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn v1_is_read() {
        let files = [
            ("cpuacct.usage", "7000\n"),
            (
                "cpu.stat",
                "nr_periods 9\nnr_throttled 2\nthrottled_time 90000\n",
            ),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.max_usage_in_bytes", "8192\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("pids.events", "max 5\n"),
            (
                "blkio.throttle.io_service_bytes",
                "8:0 Read 10\n8:0 Write 1\n8:16 Read 5\nTotal 16\n",
            ),
        ];
        let all = ["blkio", "memory", "cpu", "cpuacct", "pids", "freezer"];
        let (_directory, stats) = cgroup_of(&files, &all);
        let expected = Stats {
            cpu_usage_us: 7,
            throttled_periods: 2,
            throttled_us: 90,
            memory_current: 4096,
            memory_peak: 8192,
            memory_limit: 0,
            oom_kills: 3,
            pids_current: 2,
            pids_limit: 0,
            pids_refused: 5,
            io_read_bytes: 15,
            io_write_bytes: 1,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error() {
        let gone = Cgroup {
            directories: vec![(String::new(), "/nowhere".into())],
        };
        assert!(matches!(read(&gone), Err(Error::Read { .. })));
    }
}
