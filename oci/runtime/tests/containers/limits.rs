//! Limits are enforced and reported.

use std::{fs, path::PathBuf};

use tucano_oci_runtime::{
    launch::LogLimits,
    output_index::{self, Record, Source},
    supervisor::{self, Status},
};
use tucano_testkit::{ROOT, needs, tool, wait_for, wait_until};

use super::harness::{Case, TIMEOUT, program};

#[test]
fn its_cgroup_has_the_limits_and_counts() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["wait-after", "up"]);
    case.sandbox.cpus = Some(0.25);
    let running = case.start();
    wait_until("its output", TIMEOUT, || case.stdout().contains("up"));
    let cgroup = case.cgroup();
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.memory_limit, 64 << 20);
    assert_eq!(stats.pids_limit, 64);
    assert_eq!(stats.pids_current, 1);
    assert!(
        stats.memory_current > 0 && stats.cpu_usage_us > 0,
        "{stats:?}"
    );
    for (_, directory) in &cgroup.directories {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), running.pid.to_string(), "{directory:?}");
    }
}

#[test]
fn an_oom_kill_is_reported() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (exit, _) = Case::new(&["hog"]).run();
    assert_eq!((exit.signal, exit.oom_killed), (Some(9), true));
    let (exit, _) = Case::new(&["exit", "0"]).run();
    assert!(!exit.oom_killed);
}

#[test]
fn an_oom_kill_ends_the_whole_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["hog-child"]);
    case.start_to_end(&case.launch());
    let is_v2 = case
        .cgroup()
        .directories
        .iter()
        .any(|(name, _)| name.is_empty());
    let exit = case.wait_for_exit();
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.signal, is_v2.then_some(9), "{exit:?}");
    assert_eq!(
        case.stdout().contains("outlived"),
        !is_v2,
        "{}",
        case.stdout()
    );
}

#[test]
fn a_fork_bomb_meets_its_limit() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["fork-bomb"]);
    case.sandbox.pids = 12;
    let _running = case.start();
    wait_until("the refused fork", TIMEOUT, || {
        case.stdout().contains("then:")
    });
    assert!(
        case.stdout().starts_with("11 children"),
        "{}",
        case.stdout()
    );
    let stats = case.cgroup().stats().unwrap();
    assert_eq!(stats.pids_current, 12);
    assert!(stats.pids_refused > 0, "{stats:?}");
}

#[test]
fn output_is_bounded_and_the_newest_is_kept() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["spam", "1000000"]);
    case.logs = LogLimits {
        file_bytes: 100_000,
        files: 3,
    };
    let (exit, _) = case.run();
    assert_eq!(exit.code, Some(0));
    let logs: Vec<_> = ["stdout.log", "stdout.log.1", "stdout.log.2"]
        .iter()
        .map(|name| fs::metadata(case.home().join(name)).unwrap().len())
        .collect();
    assert!(logs.iter().all(|length| *length <= 100_000), "{logs:?}");
    assert_eq!(logs.iter().sum::<u64>(), 300_000);
    assert!(!case.home().join("stdout.log.3").exists());
}

#[test]
fn the_index_has_the_order_of_both_streams_across_restarts() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["alternate", "40"]);
    for start in 1..=2 {
        let (exit, _) = case.run();
        assert_eq!(exit.code, Some(0));
        let index = fs::read(case.home().join(output_index::NAME)).unwrap();
        let records: Vec<_> = index
            .as_chunks()
            .0
            .iter()
            .map(|record| Record::read(record).unwrap())
            .collect();
        assert!(
            records
                .iter()
                .all(|record| record.time_ms.abs_diff(exit.at_ms) < 600_000)
        );
        let piece = |record: &Record| {
            let name = match record.source {
                Source::Stdout => "stdout.log",
                Source::Stderr => "stderr.log",
            };
            let text = fs::read(case.home().join(name)).unwrap();
            let start = record.offset as usize;
            text[start..start + record.length as usize].to_vec()
        };
        let text: Vec<u8> = records.iter().flat_map(piece).collect();
        let once: String = (0..40).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), once.repeat(start));
    }
}

#[test]
fn a_supervisor_stays_small() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["spam", "3000000"]);
    let _first = case.run();
    let case = Case::new(&["wait-after", "up"]);
    drop(case.start());
    let record = fs::read_to_string(case.home().join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let supervisor = PathBuf::from(format!("/proc/{}", record["supervisor"]["pid"]));
    let status = fs::read_to_string(supervisor.join("status")).unwrap();
    let own_kib: u64 = super::harness::field(&status, "RssAnon")
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .unwrap();
    assert!(own_kib < 1024, "{status}");
    assert_eq!(super::harness::field(&status, "Threads"), "1");
    let open = wait_for("its descriptors", TIMEOUT, || {
        fs::read_dir(supervisor.join("fd"))
            .ok()
            .map(Iterator::count)
    });
    assert!(open < 12, "{open} descriptors");
}

#[test]
fn a_cgroup_in_use_is_not_taken_over() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let first = Case::new(&["wait-after", "up"]);
    let running = first.start();
    let mut second = Case::new(&["exit", "0"]);
    second.sandbox.cgroup = first.sandbox.cgroup.clone();
    let error = second.try_start().unwrap_err();
    assert!(error.to_string().contains("cgroup"), "{error}");
    drop(running);
    assert!(matches!(
        supervisor::find(&first.home()).unwrap(),
        Status::Running(_)
    ));
    assert_eq!(first.cgroup().stats().unwrap().pids_current, 1);
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_no_cgroup() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["exit", "0"]);
    let mut launch = case.launch();
    let mut spec = serde_json::to_value(&launch.spec).unwrap();
    spec["linux"]["resources"]["cpu"] = serde_json::json!({ "quota": 100, "period": 7 });
    launch.spec = serde_json::from_value(spec).unwrap();
    let error = supervisor::start(&program(), &launch).unwrap_err();
    assert!(
        error.to_string().contains("the share of the CPU"),
        "{error}"
    );
    case.start_to_end(&case.launch());
    case.wait_for_exit();
}
