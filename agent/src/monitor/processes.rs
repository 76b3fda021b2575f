//! Metrics of a process, from its cgroup.

use std::path::Path;

use tucano_api::{agent::ProcessMetrics, units::Bytes};
use tucano_oci_runtime::cgroup::{Cgroup, Stats};

/// Metrics of the container with this home directory; `None` while it does not run.
pub(super) fn metrics(home: &Path) -> Option<ProcessMetrics> {
    let stats = Cgroup::of(home).ok()??.stats().ok()?;
    (stats != Stats::default()).then(|| from_stats(&stats))
}

/// Why a process at its limit of processes and threads fails in ways that it may not report itself; `None` below the limit.
pub(super) fn pids_reason(metrics: &ProcessMetrics) -> Option<String> {
    let limit = metrics.pids_limit;
    (limit > 0 && metrics.pids_current >= limit).then(|| {
        format!(
            "it has reached its limit of {limit} processes and threads (`pids`), zombies included; {} forks were refused",
            metrics.pids_refused
        )
    })
}

fn from_stats(stats: &Stats) -> ProcessMetrics {
    ProcessMetrics {
        cpu_usage_us: stats.cpu_usage_us,
        throttled_periods: stats.throttled_periods,
        throttled_us: stats.throttled_us,
        memory_current: Bytes(stats.memory_current),
        memory_reclaimable: Bytes(stats.memory_reclaimable),
        memory_peak: Bytes(stats.memory_peak),
        memory_limit: Bytes(stats.memory_limit),
        oom_kills: stats.oom_kills,
        pids_current: stats.pids_current,
        pids_limit: stats.pids_limit,
        pids_refused: stats.pids_refused,
        io_read_bytes: stats.io_read_bytes,
        io_write_bytes: stats.io_write_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_has_no_metrics() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(metrics(home.path()), None);
    }

    #[test]
    fn a_reached_pids_limit_is_a_reason() {
        let mut metrics = ProcessMetrics {
            pids_current: 63,
            pids_limit: 64,
            pids_refused: 7,
            ..ProcessMetrics::default()
        };
        assert_eq!(pids_reason(&metrics), None);
        metrics.pids_current = 64;
        let reason = pids_reason(&metrics).unwrap();
        assert!(
            reason.contains("limit of 64") && reason.contains("7 forks"),
            "{reason}"
        );
        assert_eq!(pids_reason(&ProcessMetrics::default()), None);
    }

    #[test]
    fn cgroup_counters_map_to_metrics() {
        let stats = Stats {
            cpu_usage_us: 1,
            memory_peak: 2,
            oom_kills: 3,
            pids_refused: 4,
            io_write_bytes: 5,
            ..Stats::default()
        };
        let metrics = from_stats(&stats);
        assert_eq!(
            (metrics.cpu_usage_us, metrics.memory_peak, metrics.oom_kills),
            (1, Bytes(2), 3)
        );
        assert_eq!((metrics.pids_refused, metrics.io_write_bytes), (4, 5));
    }
}
