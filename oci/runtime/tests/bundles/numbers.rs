//! Limits set by create and update, in the files of cgroup v1 or v2, whichever the host has.

use std::{fs, io::Write, path::PathBuf, process::Stdio};

use serde_json::json;
use tucano_testkit::needs;

use crate::harness::{Case, NEEDS};

/// Reads a file of the container's cgroup by its name on v1 (below the controller's hierarchy) or v2.
fn value(case: &Case, controller: &str, v1: &str, v2: &str) -> String {
    let found = case.cgroups().into_iter().find_map(|place| {
        let name = if place.join("cgroup.controllers").exists() {
            v2
        } else {
            v1
        };
        let in_hierarchy = name == v2 || place.starts_with(format!("/sys/fs/cgroup/{controller}"));
        let file: PathBuf = place.join(name);
        (in_hierarchy && file.exists()).then(|| fs::read_to_string(file).unwrap())
    });
    found
        .unwrap_or_else(|| panic!("no {v1} in {:?}", case.cgroups()))
        .trim()
        .to_owned()
}

#[test]
fn limits_are_written_to_the_kernels_files() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("nproc; sleep 1000");
    case.config["linux"]["resources"] = json!({
        "cpu": {"cpus": "0", "mems": "0", "shares": 2048, "quota": 50_000, "period": 100_000, "burst": 10_000},
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "pids": {"limit": 33},
    });
    case.start();
    assert_eq!(case.read("out"), "1\n");
    assert_eq!(value(&case, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let burst = value(&case, "cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    assert_eq!(burst, "10000");
    let reservation = value(&case, "memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(reservation, (32 << 20).to_string());
    case.must(&["delete", "--force", case.id()]);
    assert!(case.is_gone());
}

#[test]
fn an_unsupported_limit_is_refused() {
    if !needs(&NEEDS) {
        return;
    }
    for (limits, named) in [
        (json!({"memory": {"kernel": 4096}}), "memory.kernel"),
        (json!({"cpu": {"cpus": "900-901"}}), "cpuset.cpus"),
        (
            json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}),
            "hugetlb",
        ),
        (json!({"unified": {"cgroup.procs": "1"}}), "unified"),
    ] {
        let mut case = Case::new("true");
        case.config["linux"]["resources"] = limits;
        let (created, said) = case.create();
        assert!(!created && said.contains(named), "{said}");
        assert!(case.is_gone());
    }
}

#[test]
fn update_changes_the_named_limits_only() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo up; sleep 1000");
    case.config["linux"]["resources"] =
        json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 33}});
    case.start();
    let id = case.id();
    case.must(&["update", "--pids-limit", "44", "--cpuset-cpus", "0", id]);
    assert_eq!(value(&case, "pids", "pids.max", "pids.max"), "44");
    assert_eq!(value(&case, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let memory = || value(&case, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), (64 << 20).to_string());
    // Existing and later processes are under the added controller.
    assert_eq!(case.must(&["exec", id, "nproc"]), "1\n");
    let mut update = case
        .program()
        .args(["update", "--resources", "-", "--memory", "128m", id])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let limits = json!({"memory": {"limit": 1}, "cpu": {"quota": 20_000, "period": 100_000}});
    update
        .stdin
        .take()
        .unwrap()
        .write_all(limits.to_string().as_bytes())
        .unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(memory(), (128 << 20).to_string());
    let quota = value(&case, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("20000"), "{quota}");
    // The period alone would be more than the quota allows; a burst can be taken back.
    case.must(&["update", "--cpu-quota", "3000", "--cpu-period", "10000", id]);
    let quota = value(&case, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("3000"), "{quota}");
    let burst = || value(&case, "cpu", "cpu.cfs_burst_us", "cpu.max.burst");
    case.must(&["update", "--cpu-burst", "1000", id]);
    assert_eq!(burst(), "1000");
    case.must(&["update", "--cpu-burst", "0", id]);
    assert_eq!(burst(), "0");
    // Unlimited memory is unlimited swap.
    case.must(&["update", "--memory", "64m", "--memory-swap", "64m", id]);
    case.must(&["update", "--memory", "-1", id]);
    assert_ne!(memory(), (64 << 20).to_string());
    case.must(&["update", "--memory", "128m", id]);
    // checkBeforeUpdate refuses a limit below the current usage.
    fs::write(
        case.path("limits.json"),
        json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string(),
    )
    .unwrap();
    let file = case.path("limits.json");
    let refused = case.must_fail(&["update", "-r", file.to_str().unwrap(), id]);
    assert!(refused.contains("in use"), "{refused}");
    assert_eq!(memory(), (128 << 20).to_string());
    // If one limit is refused, none is changed.
    case.must_fail(&["update", "--pids-limit", "9", "--cpuset-cpus", "4095", id]);
    assert_eq!(value(&case, "pids", "pids.max", "pids.max"), "44");
    case.must(&["kill", id, "KILL"]);
    case.wait_for_status("stopped");
    assert!(
        case.must_fail(&["update", "--pids-limit", "9", id])
            .contains("not running")
    );
    case.must(&["delete", id]);
    assert!(case.is_gone(), "{:?}", case.cgroups());
}
