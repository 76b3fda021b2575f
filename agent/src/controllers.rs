//! Which of the kernel's cgroup controllers this node lacks.

use std::{fs, path::Path};

use procfs::process::Process;

/// Name of each on v2 and on v1, and what is lost without it.
const WANTED: [(&str, &str, &str); 4] = [
    ("cpu", "cpu", "services cannot have a limit `cpus`"),
    (
        "io",
        "blkio",
        "what processes read and write is not counted",
    ),
    ("memory", "memory", "services cannot start"),
    ("pids", "pids", "services cannot start"),
];

/// A sentence for each that is missing; none where the kernel does not tell.
pub(crate) fn lacking() -> Vec<String> {
    if let Some(unified) = unified() {
        return sentences(|(name, _, _)| unified.split_whitespace().any(|word| word == *name));
    }
    let all = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if all.is_empty() {
        return Vec::new();
    }
    sentences(|(_, name, _)| is_enabled(&all, name))
}

/// Whether the only hierarchy is v2's.
pub(crate) fn is_unified() -> bool {
    unified().is_some()
}

/// The controllers of the agent's own cgroup, where the only hierarchy is v2's.
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
        .map(|(name, _, lost)| format!("the cgroup controller {name} is missing here: {lost}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
        cpu\t2\t9\t1\nblkio\t3\t9\t0\nmemory\t4\t9\t1\npids\t5\t9\t1\n";

    #[test]
    fn a_controller_that_is_disabled_is_missing() {
        assert!(is_enabled(V1, "cpu") && !is_enabled(V1, "blkio"));
        assert!(!is_enabled(V1, "cpuset"));
    }

    #[test]
    fn only_what_is_missing_is_told_by_its_present_name() {
        let told = sentences(|(_, name, _)| is_enabled(V1, name));
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("controller io is missing"), "{told:?}");
        assert_eq!(sentences(|_| true), Vec::<String>::new());
    }
}
