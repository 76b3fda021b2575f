//! Detects missing cgroup controllers.

use std::{fs, path::Path};

use procfs::process::Process;

/// Name of each controller on v2 and on v1, and the consequence of its absence.
const WANTED: [(&str, &str, &str); 4] = [
    ("cpu", "cpu", "services cannot have a limit `cpus`"),
    ("io", "blkio", "disk I/O of processes is not measured"),
    ("memory", "memory", "services cannot start"),
    ("pids", "pids", "services cannot start"),
];

/// One sentence per missing controller; none if the kernel provides no list.
pub(crate) fn missing() -> Vec<String> {
    if let Some(unified) = unified() {
        return sentences(|(name, _, _)| unified.split_whitespace().any(|word| word == *name));
    }
    let all = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if all.is_empty() {
        return Vec::new();
    }
    sentences(|(_, name, _)| is_enabled(&all, name))
}

/// Whether cgroup v2 is the only hierarchy.
pub(crate) fn is_unified() -> bool {
    unified().is_some()
}

/// The controllers of the agent's own cgroup, if cgroup v2 is the only hierarchy.
fn unified() -> Option<String> {
    let own = Process::myself().ok()?.cgroups().ok()?;
    let own = own.into_iter().find(|entry| entry.hierarchy == 0)?;
    let below = own.pathname.trim_start_matches('/').to_owned();
    let directory = Path::new("/sys/fs/cgroup").join(below);
    fs::read_to_string(directory.join("cgroup.controllers")).ok()
}

/// /proc/cgroups has a line `name hierarchy cgroups enabled` for each (cgroups(7)).
fn is_enabled(all: &str, name: &str) -> bool {
    all.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.first() == Some(&name) && words.last() == Some(&"1")
    })
}

fn sentences(has: impl Fn(&(&str, &str, &str)) -> bool) -> Vec<String> {
    let missing = WANTED.iter().filter(|wanted| !has(wanted));
    missing
        .map(|(name, _, consequence)| {
            format!("the cgroup controller {name} is missing: {consequence}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
        cpu\t2\t9\t1\nblkio\t3\t9\t0\nmemory\t4\t9\t1\npids\t5\t9\t1\n";

    #[test]
    fn a_disabled_controller_is_missing() {
        assert!(is_enabled(V1, "cpu") && !is_enabled(V1, "blkio"));
        assert!(!is_enabled(V1, "cpuset"));
    }

    #[test]
    fn missing_controllers_are_named_as_on_v2() {
        let missing = sentences(|(_, name, _)| is_enabled(V1, name));
        assert_eq!(missing.len(), 1);
        assert!(
            missing[0].contains("controller io is missing"),
            "{missing:?}"
        );
        assert_eq!(sentences(|_| true), Vec::<String>::new());
    }
}
