//! Limits and counters of containers, on v1 and v2.

use std::{
    fs,
    os::{linux::fs::MetadataExt, unix::process::ExitStatusExt},
    path::Path,
    process::Command,
};

use rustix::fs::{major, minor};
use serde_json::{Value, json};
use tucano_oci_runtime::{
    cgroup::Stats,
    lifecycle::{self, Store},
};
use tucano_testkit::{needs, wait_for, wait_until};

use crate::harness::{Case, NEEDS, TIMEOUT};

const MIB: u64 = 1 << 20;

impl Case {
    fn stats(&self) -> Stats {
        lifecycle::stats(&Store::at(self.path("state")), self.id()).unwrap()
    }

    fn resource(&mut self, name: &str, value: Value) {
        self.config["linux"]["resources"][name] = value;
    }
}

/// A container with CAP_MKNOD and these device rules.
fn with_devices(rules: Value, script: &str) -> Case {
    let mut case = Case::new(script);
    let capabilities = json!(["CAP_MKNOD"]);
    for set in ["bounding", "effective", "permitted"] {
        case.config["process"]["capabilities"][set] = capabilities.clone();
    }
    case.config["linux"]["seccomp"] = Value::Null;
    case.resource("devices", rules);
    case
}

/// A device number without a driver: opening it fails with ENXIO if the rules permit it.
#[test]
fn devices_are_used_as_the_rules_say() {
    if !needs(&NEEDS) {
        return;
    }
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 60, "minor": 7, "access": "rm"},
        {"allow": true, "type": "c", "major": 60, "minor": 8, "access": "r"},
        {"allow": true, "type": "c", "major": 60, "minor": 8, "access": "wm"},
        {"allow": true, "type": "c", "major": 60, "minor": 9, "access": "m"},
    ]);
    let script = "
        for minor in 6 7 8 9; do
            busybox mknod /dev/$minor c 60 $minor 2>/dev/null && echo $minor made
            for how in '<' '>' '<>'; do
                case $(sh -c \": $how/dev/$minor\" 2>&1) in
                    *'such device'*) echo \"$minor $how allowed\";;
                    *permitted*) echo \"$minor $how denied\";;
                esac
            done
        done
        echo x >/dev/null && echo null written";
    let output = with_devices(rules, script).run();
    let text = String::from_utf8_lossy(&output.stdout);
    // Nodes of all devices can be made, as with other runtimes.
    let expected = [
        "6 made",
        "6 < denied",
        "6 > denied",
        "6 <> denied",
        "7 made",
        "7 < allowed",
        "7 > denied",
        "7 <> denied",
        "8 made",
        "8 < allowed",
        "8 > allowed",
        "8 <> allowed",
        "9 made",
        "9 < denied",
        "9 > denied",
        "9 <> denied",
        "null written",
    ];
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, expected, "{output:?}");
}

#[test]
fn devices_without_a_rule_are_denied() {
    if !needs(&NEEDS) {
        return;
    }
    for rules in [json!([]), Value::Null] {
        let script = "busybox mknod /dev/x c 60 7; cat /dev/x; echo $?; echo x >/dev/null; echo $?";
        let output = with_devices(rules, script).run();
        assert_eq!(output.stdout, b"1\n0\n", "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("not permitted"), "{errors}");
    }
}

#[test]
fn invalid_device_rules_leave_nothing_behind() {
    if !needs(&NEEDS) {
        return;
    }
    let case = with_devices(json!([{"allow": true, "access": "rx"}]), "echo up");
    let (created, error) = case.create();
    assert!(!created && error.contains("device rules"), "{error}");
    assert!(case.is_gone());
}

#[test]
fn a_busy_container_is_throttled_and_its_time_counted() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo up; while :; do :; done");
    case.resource("cpu", json!({"quota": 10_000, "period": 100_000}));
    case.start();
    let stats = wait_for("throttling", TIMEOUT, || {
        let stats = case.stats();
        (stats.throttled_periods >= 5 && stats.cpu_usage_us >= 300_000).then_some(stats)
    });
    assert!(stats.throttled_us > 0, "{stats:?}");
    let pid = case.state()["pid"].as_i64().unwrap();
    let own_us = cpu_time_us(pid);
    let later = case.stats();
    // Process times have tick resolution, and the process ran before it joined the cgroup.
    let slack_us = 200_000;
    assert!(later.cpu_usage_us + slack_us > own_us, "{own_us} {later:?}");
    assert!(stats.cpu_usage_us < own_us + slack_us, "{own_us} {stats:?}");
}

/// `utime` and `stime` of proc_pid_stat(5).
fn cpu_time_us(pid: i64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

#[test]
fn memory_and_processes_are_counted_up_and_down() {
    if !needs(&NEEDS) {
        return;
    }
    let script = "
        busybox dd if=/dev/zero of=/dev/shm/much bs=1M count=32 2>/dev/null
        for i in 1 2 3 4 5; do sleep 1000 & done
        echo up
        until [ -e /go ]; do sleep 0.1; done
        busybox rm /dev/shm/much; exec sleep 1000";
    let mut case = Case::new(script);
    case.resource("memory", json!({"limit": 128 * MIB}));
    case.resource("pids", json!({"limit": 40}));
    case.start();
    let full = case.stats();
    assert!(full.memory_current >= 32 * MIB, "{full:?}");
    assert_eq!((full.memory_limit, full.pids_limit), (128 * MIB, 40));
    // The shell, its child, and perhaps a helper.
    assert!((6..=7).contains(&full.pids_current), "{full:?}");
    fs::write(case.path("rootfs/go"), "").unwrap();
    let freed = wait_for("the memory to be freed", TIMEOUT, || {
        let stats = case.stats();
        (stats.memory_current + 24 * MIB < full.memory_current).then_some(stats)
    });
    assert!(freed.memory_peak >= 32 * MIB, "{freed:?}");
    assert_eq!((freed.oom_kills, freed.pids_refused), (0, 0), "{freed:?}");
}

#[test]
fn tmpcopyup_is_accounted_to_the_container() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo up; exec sleep 1000");
    case.resource("memory", json!({"limit": 128 * MIB}));
    fs::create_dir(case.path("rootfs/data")).unwrap();
    fs::write(case.path("rootfs/data/much"), vec![7; 32 << 20]).unwrap();
    let copied = json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup"]});
    // The first mount, so that nothing earlier makes the process join its cgroup.
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.insert(0, copied);
    case.start();
    let stats = case.stats();
    assert!(stats.memory_current >= 32 * MIB, "{stats:?}");
}

#[test]
fn block_io_is_counted() {
    if !needs(&NEEDS) || disk_of_cases().is_none() {
        return;
    }
    let script = "
        busybox dd if=/dev/zero of=/data bs=64k count=64 oflag=direct 2>&1
        echo 1 >/written; until [ -e /go ]; do sleep 0.1; done
        busybox dd if=/data of=/dev/null bs=64k count=64 iflag=direct
        echo 1 >/read; exec sleep 1000";
    let case = Case::new(script);
    case.start();
    wait_until("the writing", TIMEOUT, || {
        case.path("rootfs/written").exists()
    });
    let written = case.stats();
    assert!(written.io_write_bytes >= 4 * MIB, "{written:?}");
    fs::write(case.path("rootfs/go"), "").unwrap();
    wait_until("the reading", TIMEOUT, || case.path("rootfs/read").exists());
    let read = case.stats();
    assert!(
        read.io_read_bytes >= written.io_read_bytes + 4 * MIB,
        "{written:?} {read:?}"
    );
}

#[test]
fn a_container_with_limits_of_its_disk_is_slower_than_one_without() {
    if !needs(&NEEDS) {
        return;
    }
    let Some((major, minor)) = disk_of_cases() else {
        return;
    };
    let rate = json!([{"major": major, "minor": minor, "rate": 64 << 10}]);
    for (limit, how) in [
        (
            "throttleWriteBpsDevice",
            "if=/dev/zero of=/data oflag=direct conv=notrunc",
        ),
        (
            "throttleReadBpsDevice",
            "if=/data of=/dev/null iflag=direct",
        ),
    ] {
        let script =
            format!("echo up; busybox dd {how} bs=64k count=128 && echo 1 >/done; exec sleep 1000");
        let (mut slow, fast) = (Case::new(&script), Case::new(&script));
        slow.resource("blockIO", json!({ limit: rate }));
        for case in [&slow, &fast] {
            // On disk, so that a read must access it.
            let data = fs::File::create(case.path("rootfs/data")).unwrap();
            std::io::Write::write_all(&mut &data, &vec![1; 8 << 20]).unwrap();
            data.sync_all().unwrap();
            case.start();
        }
        wait_until("the fast one's end", TIMEOUT, || {
            fast.path("rootfs/done").exists()
        });
        let (slow_stats, fast_stats) = (slow.stats(), fast.stats());
        assert!(
            !slow.path("rootfs/done").exists(),
            "{limit}: {slow_stats:?}"
        );
        let moved = |stats: &Stats| stats.io_read_bytes + stats.io_write_bytes;
        assert!(moved(&fast_stats) >= 8 * MIB, "{limit}: {fast_stats:?}");
        assert!(moved(&slow_stats) < 8 * MIB, "{limit}: {slow_stats:?}");
    }
}

/// The disk that the cases' directories are on. Where they are on none, such as on a tmpfs, there is nothing to count.
fn disk_of_cases() -> Option<(u32, u32)> {
    let device = fs::metadata(std::env::temp_dir()).unwrap().st_dev();
    let entry = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // The kernel counts and limits whole disks.
    let entry = match Path::new(&entry).join("partition").exists() {
        true => Path::new(&entry).join("../dev"),
        false => Path::new(&entry).join("dev"),
    };
    let disk = fs::read_to_string(entry).ok().and_then(|text| {
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    if disk.is_none() {
        let message = "SKIPPED: this test needs its temporary directory on a disk";
        assert!(
            std::env::var_os("TUCANO_TESTS_MUST_RUN").is_none(),
            "{message}"
        );
        eprintln!("{message}");
    }
    disk
}

#[test]
fn a_paused_container_uses_no_cpu() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; while :; do :; done");
    case.start();
    case.must(&["pause", case.id()]);
    let first = case.stats().cpu_usage_us;
    // Meanwhile anything that ran would have used something.
    assert_eq!(case.state()["status"], "paused");
    assert_eq!(case.stats().cpu_usage_us, first);
    case.must(&["resume", case.id()]);
    wait_until("it to go on", TIMEOUT, || case.stats().cpu_usage_us > first);
}

/// Such as one that the end of its first process does not reach.
#[test]
fn delete_kills_the_whole_cgroup() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let mut strangers: Vec<_> = (0..5)
        .map(|_| Command::new("sleep").arg("1000").spawn().unwrap())
        .collect();
    for stranger in &strangers {
        for cgroup in case.cgroups() {
            fs::write(cgroup.join("cgroup.procs"), stranger.id().to_string()).unwrap();
        }
    }
    let pids = lifecycle::processes(&Store::at(case.path("state")), case.id()).unwrap();
    assert_eq!(pids.len(), 6);
    case.must(&["delete", "--force", case.id()]);
    assert!(case.is_gone());
    for stranger in &mut strangers {
        assert_eq!(stranger.wait().unwrap().signal(), Some(9));
    }
}

/// By their v2 cgroup eBPF programs and service managers know processes, also where v1 has the controllers.
#[test]
fn on_a_hybrid_host_the_container_has_a_cgroup_of_v2_too() {
    let top = std::path::Path::new("/sys/fs/cgroup/unified");
    if !needs(&NEEDS) || !top.join("cgroup.procs").exists() {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let v2 = |pid: &str| {
        let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let line = memberships
            .lines()
            .find_map(|line| line.strip_prefix("0::"));
        line.unwrap().to_owned()
    };
    let pid = case.read("pid");
    assert!(v2(&pid).ends_with(case.id()), "{}", v2(&pid));
    let mut command = case.program();
    let mut exec = command
        .args(["exec", case.id(), "sh", "-c", "echo up; sleep 1000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 3];
    std::io::Read::read_exact(exec.stdout.as_mut().unwrap(), &mut said).unwrap();
    let inside = top.join(v2(&pid).trim_start_matches('/'));
    let members = std::fs::read_to_string(inside.join("cgroup.procs")).unwrap();
    assert!(members.lines().count() > 1, "{members}");
    case.must(&["delete", "--force", case.id()]);
    exec.wait().unwrap();
    assert!(!inside.exists() && case.is_gone());
}

#[test]
fn a_failed_start_leaves_no_cgroup_of_v2() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo up");
    case.config["linux"]["resources"]["pids"] = json!({ "limit": 10 });
    case.config["process"]["args"] = json!(["/none"]);
    assert!(!case.run().status.success());
    assert!(case.cgroups().is_empty(), "{:?}", case.cgroups());
}
