//! Containers whose program runs below an init.

use std::{fs, path::PathBuf};

use tucano_oci_runtime::supervisor::{self, Running};
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, field, program};

fn case(arguments: &[&str]) -> Case {
    let mut case = Case::new(arguments);
    case.init = true;
    case
}

/// `/proc/<pid>/status` of each process of a container, by pid inside.
fn inside(case: &Case) -> Vec<(String, String)> {
    let pids = case.cgroup().processes();
    let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let all = pids.into_iter().filter_map(status);
    let pid = |status: &str| {
        field(status, "NSpid")
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned()
    };
    let mut all: Vec<_> = all.map(|status| (pid(&status), status)).collect();
    all.sort();
    all
}

fn start(case: &Case, until: &str) -> Running {
    let running = case.start();
    wait_until(until, TIMEOUT, || case.stdout().contains(until));
    running
}

#[test]
fn the_exit_of_the_program_is_recorded_as_without_an_init() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    for (arguments, code, signal) in [
        (&["exit", "0"][..], Some(0), None),
        (&["exit", "7"], Some(7), None),
        (&["exit", "137"], Some(137), None),
        (&["die", "9"], None, Some(9)),
        (&["die", "6"], None, Some(6)),
    ] {
        let (exit, _) = case(arguments).run();
        assert_eq!((exit.code, exit.signal), (code, signal), "{arguments:?}");
    }
}

#[test]
fn a_program_that_is_missing_is_reported() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = case(&[]);
    case.sandbox.args = vec!["/missing".to_owned()];
    let error = case.try_start().unwrap_err().to_string();
    assert!(error.contains("no such program"), "{error}");
}

#[test]
fn orphans_that_have_ended_are_reaped() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    // More orphans than processes are allowed.
    let mut case = case(&["orphans", "100"]);
    case.sandbox.pids = 16;
    let _running = start(&case, "100 orphans");
    wait_until("the last orphan's end", TIMEOUT, || {
        inside(&case).len() == 2
    });
    let all = inside(&case);
    assert!(
        all.iter()
            .all(|(_, status)| !field(status, "State").starts_with('Z')),
        "{all:?}"
    );
    assert_eq!(case.exec(&["/inmate", "exit", "5"]).unwrap(), 5);
}

#[test]
fn without_an_init_nothing_changes() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let _running = start(&case, "up");
    let pids: Vec<_> = inside(&case).into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(pids, ["1"]);
}

#[test]
fn signals_reach_the_program() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    // Without an init, a first process without a handler would ignore SIGTERM.
    for user in [None, Some("web")] {
        for number in [15, 10, 40] {
            let mut case = case(&["wait-after", "up"]);
            case.user = user.map(str::to_owned);
            let _running = start(&case, "up");
            tucano_oci_runtime::attach_client::signal(&case.home(), number).unwrap();
            let exit = case.wait_for_exit();
            assert_eq!((exit.code, exit.signal), (None, Some(number)), "{user:?}");
        }
    }
}

#[test]
fn a_program_that_changed_its_user_gets_signals() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = case(&["become-and-wait", "33"]);
    case.sandbox.user_namespace = Some(1_000_000_000);
    case.sandbox.capabilities = vec!["SETUID".into(), "SETGID".into()];
    if !supervisor::user_namespaces_work(&program(), case.directory.path()) {
        case.sandbox.user_namespace = None;
    }
    let _running = start(&case, "changed");
    tucano_oci_runtime::attach_client::signal(&case.home(), 15).unwrap();
    assert_eq!(case.wait_for_exit().signal, Some(15));
}

#[test]
fn an_init_has_no_more_than_it_needs() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = case(&["wait-after", "up"]);
    case.sandbox.capabilities = vec!["CHOWN".into(), "SETUID".into()];
    let running = start(&case, "up");
    let all = inside(&case);
    let [(_, init), (_, program)] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(field(init, "Name"), "init");
    // KILL, to signal a program that has changed its user.
    let kill = format!("{:016x}", 1 << 5);
    let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| field(init, name).to_owned());
    let none = "0".repeat(16);
    assert_eq!(sets, [none.clone(), kill.clone(), kill, none]);
    for name in ["CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Gid"] {
        assert_eq!(field(init, name), field(program, name), "{name}");
    }
    let directory = PathBuf::from(format!("/proc/{}", running.pid));
    assert_eq!(fs::read_dir(directory.join("fd")).unwrap().count(), 1);
    // The program cannot look into it.
    for path in [
        "/proc/1/exe",
        "/proc/1/root",
        "/proc/1/environ",
        "/proc/1/maps",
    ] {
        assert_ne!(case.exec(&["/inmate", "open", path]).unwrap(), 0, "{path}");
    }
    let arguments = fs::read_to_string(directory.join("cmdline")).unwrap();
    assert_eq!(arguments.trim_end_matches('\0'), "init");
}
