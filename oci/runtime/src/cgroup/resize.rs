//! Changes the limits of a sandbox whose processes run.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, Error, Stats, limits};
use crate::profile;

/// The limits of a sandbox that can be changed while its processes run, as in [`profile::Sandbox`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory limit in bytes; swap is not available beyond it.
    pub memory_bytes: u64,
    /// CPU limit: 0.5 is half a CPU. Unlimited if absent.
    pub cpus: Option<f64>,
    /// Limit of processes and threads.
    pub pids: u32,
}

impl Cgroup {
    /// Sets these limits. A memory limit below what is in use is refused: on v2 the kernel would kill processes for it. Nothing
    /// is changed then. Safe to repeat after a failure.
    ///
    /// # Errors
    /// More is in use, or the kernel refuses a limit.
    pub fn resize(&mut self, limits: Limits) -> Result<(), Error> {
        let stats = self.stats()?;
        self.check_use(&stats, limits)?;
        let resources = self.resources(&stats, limits)?;
        self.update(&resources)
    }

    fn check_use(&self, stats: &Stats, limits: Limits) -> Result<(), Error> {
        let used = stats.memory_used();
        let is_lower = stats.memory_limit == 0 || limits.memory_bytes < stats.memory_limit;
        if !is_lower || used <= limits.memory_bytes {
            return Ok(());
        }
        Err(Error::Limit {
            what: "the memory limit",
            path: limits::required(self, "memory")?.to_owned(),
            reason: format!(
                "{used} bytes are in use, more than the {} asked for",
                limits.memory_bytes
            ),
        })
    }

    /// What differs from the present limits.
    fn resources(&self, stats: &Stats, wanted: Limits) -> Result<LinuxResources, Error> {
        let mut changed = profile::resources(wanted.memory_bytes, wanted.cpus, wanted.pids);
        if wanted.cpus.is_none() && self.has_cpu_quota() {
            changed["cpu"] = serde_json::json!({ "quota": -1 });
        }
        if stats.pids_limit == u64::from(wanted.pids) {
            changed["pids"] = serde_json::Value::Null;
        }
        serde_json::from_value(changed).map_err(|error| Error::Limit {
            what: "the limits",
            path: self.directory("memory").unwrap_or(Path::new("")).to_owned(),
            reason: error.to_string(),
        })
    }

    fn has_cpu_quota(&self) -> bool {
        let read = |name| {
            let directory = self.directory("cpu")?;
            std::fs::read_to_string(directory.join(name)).ok()
        };
        let (name, none) = match self.is_unified() {
            true => ("cpu.max", "max"),
            false => ("cpu.cfs_quota_us", "-1"),
        };
        read(name).is_some_and(|text| text.split_whitespace().next() != Some(none))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A cgroup of v2 as files.
    fn unified(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        let cgroup = Cgroup {
            directories: vec![(String::new(), root.path().to_owned())],
        };
        (root, cgroup)
    }

    fn limits(mib: u64) -> Limits {
        Limits {
            memory_bytes: mib * MIB,
            cpus: None,
            pids: 100,
        }
    }

    #[test]
    fn memory_that_the_kernel_can_reclaim_does_not_count_as_used() {
        let (root, mut cgroup) = unified(&[
            ("memory.current", "104857600"),
            (
                "memory.stat",
                "anon 10485760\ninactive_file 41943040\nactive_file 41943040\n",
            ),
            ("memory.max", "134217728"),
            ("memory.swap.max", "0"),
            ("pids.max", "100"),
            ("cpu.max", "max 100000"),
        ]);
        cgroup.resize(limits(64)).unwrap();
        let written = fs::read_to_string(root.path().join("memory.max")).unwrap();
        assert_eq!(written, (64 * MIB).to_string());
        let cpu = fs::read_to_string(root.path().join("cpu.max")).unwrap();
        assert_eq!(cpu, "max 100000", "what stays is not written");
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_refused_and_nothing_is_written() {
        let (root, mut cgroup) = unified(&[
            ("memory.current", "104857600"),
            (
                "memory.stat",
                "anon 104857600\ninactive_file 0\nactive_file 0\n",
            ),
            ("memory.max", "134217728"),
            ("memory.swap.max", "0"),
            ("pids.max", "100"),
        ]);
        let refused = cgroup.resize(limits(64)).unwrap_err().to_string();
        assert!(refused.contains("104857600 bytes are in use"), "{refused}");
        let kept = fs::read_to_string(root.path().join("memory.max")).unwrap();
        assert_eq!(kept, "134217728");
        // A larger one helps, although more is in use than it allows.
        cgroup.resize(limits(256)).unwrap();
    }

    #[test]
    fn a_cpu_limit_is_lifted() {
        let (root, mut cgroup) = unified(&[
            ("memory.current", "0"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("pids.max", "100"),
            ("cpu.max", "50000 100000"),
        ]);
        cgroup.resize(limits(64)).unwrap();
        let cpu = fs::read_to_string(root.path().join("cpu.max")).unwrap();
        assert_eq!(cpu, "max 100000");
    }
}
