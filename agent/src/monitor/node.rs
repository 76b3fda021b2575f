//! Metrics of the node: processors, memory, disk, load, pressure.

use std::path::PathBuf;

use procfs::{Current, CurrentSI, FromBufRead};
use tucano_api::{
    agent::{NodeMetrics, Pressure},
    units::Bytes,
};

use crate::settings::Settings;

/// Samples the node's metrics.
#[derive(Debug)]
pub(super) struct NodeMonitor {
    data_dir: PathBuf,
    memory_reserved: Bytes,
    memory_reservable: Option<Bytes>,
    last_cpu: Option<CpuTicks>,
}

/// Ticks of all CPUs since boot.
#[derive(Debug, Clone, Copy)]
struct CpuTicks {
    used: u64,
    all: u64,
}

impl NodeMonitor {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            data_dir: settings.data_dir.clone(),
            memory_reserved: settings.memory_reserved,
            memory_reservable: settings.memory_reservable,
            last_cpu: None,
        }
    }

    /// The current metrics, and a note for each that is unavailable.
    pub(super) fn sample(&mut self) -> (NodeMetrics, Vec<String>) {
        let mut notes = Vec::new();
        let mut metrics = NodeMetrics {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            ..NodeMetrics::default()
        };
        self.sample_cpu(&mut metrics, &mut notes);
        self.sample_memory(&mut metrics, &mut notes);
        self.sample_disk(&mut metrics, &mut notes);
        metrics.pressure = pressure();
        (metrics, notes)
    }

    fn sample_cpu(&mut self, metrics: &mut NodeMetrics, notes: &mut Vec<String>) {
        match procfs::KernelStats::current() {
            Ok(stats) => {
                let ticks = CpuTicks::of(&stats.total);
                metrics.cpu_used = self.last_cpu.map_or(0.0, |last| ticks.share_since(last));
                self.last_cpu = Some(ticks);
            }
            Err(error) => notes.push(format!("CPU usage is unavailable: {error}")),
        }
        match procfs::LoadAverage::current() {
            Ok(load) => metrics.load = [load.one, load.five, load.fifteen].map(f64::from),
            Err(error) => notes.push(format!("the load average is unavailable: {error}")),
        }
    }

    fn sample_memory(&self, metrics: &mut NodeMetrics, notes: &mut Vec<String>) {
        match procfs::Meminfo::current() {
            Ok(memory) => {
                metrics.memory_total = Bytes(memory.mem_total);
                metrics.memory_available = Bytes(memory.mem_available.unwrap_or(memory.mem_free));
            }
            Err(error) => notes.push(format!("memory usage is unavailable: {error}")),
        }
        let unreserved = metrics
            .memory_total
            .0
            .saturating_sub(self.memory_reserved.0);
        metrics.memory_reservable = self.memory_reservable.unwrap_or(Bytes(unreserved));
    }

    fn sample_disk(&self, metrics: &mut NodeMetrics, notes: &mut Vec<String>) {
        match rustix::fs::statvfs(&self.data_dir) {
            Ok(disk) => {
                metrics.disk_total = Bytes(disk.f_blocks.saturating_mul(disk.f_frsize));
                metrics.disk_available = Bytes(disk.f_bavail.saturating_mul(disk.f_frsize));
            }
            Err(errno) => {
                let path = self.data_dir.display();
                notes.push(format!("disk usage of {path} is unavailable: {errno}"));
            }
        }
    }
}

impl CpuTicks {
    fn of(time: &procfs::CpuTime) -> Self {
        let extra = [time.irq, time.softirq, time.steal].map(Option::unwrap_or_default);
        // `guest` is part of `user`, and `guest_nice` of `nice`.
        let used = time.user + time.nice + time.system + extra.iter().sum::<u64>();
        Self {
            used,
            all: used + time.idle + time.iowait.unwrap_or_default(),
        }
    }

    fn share_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let used = self.used.saturating_sub(earlier.used).min(all);
        if all == 0 {
            0.0
        } else {
            used as f64 / all as f64
        }
    }
}

/// Percentage of the last 10 s in which at least one task was stalled.
fn pressure() -> Option<Pressure> {
    fn read<T: FromBufRead>(resource: &str) -> Option<T> {
        let file = std::fs::File::open(format!("/proc/pressure/{resource}")).ok()?;
        T::from_buf_read(std::io::BufReader::new(file)).ok()
    }
    let cpu: procfs::CpuPressure = read("cpu")?;
    let memory: procfs::MemoryPressure = read("memory")?;
    let io: procfs::IoPressure = read("io")?;
    Some(Pressure {
        cpu: cpu.some.avg10.into(),
        memory: memory.some.avg10.into(),
        io: io.some.avg10.into(),
    })
}

#[cfg(test)]
mod tests;
