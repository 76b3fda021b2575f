//! Supervisors that wait for their containers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
use tucano_oci_runtime::supervisor::{self, Error, Standby};
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, program};

/// A program that no other test runs. By `cp`, for another test's child would hold it open for writing.
fn copied(case: &Case, name: &str) -> PathBuf {
    let copy = case.directory.path().join(name);
    let mut copying = std::process::Command::new("cp");
    copying.arg(program()).arg(&copy);
    assert!(copying.status().unwrap().success());
    copy
}

/// Pids and titles of the supervisors that run this program.
fn supervisors(program: &Path) -> Vec<(Pid, String)> {
    let begin = format!("{}\0supervise\0", program.display());
    let all = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let whose = command.strip_prefix(&begin)?.trim_end_matches(['\0', ' ']);
            Some((pid, whose.to_owned()))
        });
    all.collect()
}

/// Session of a process; 0 if its leader is in another pid namespace.
fn session(pid: Pid) -> i32 {
    let pid = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    nix::unistd::getsid(Some(pid)).unwrap().as_raw()
}

#[test]
fn a_standby_supervises_the_requested_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let program = copied(&case, "tucano_oci");
    let ready = Standby::new(&program).unwrap();
    assert!(ready.is_current());
    let waiting = supervisors(&program);
    let [(pid, whose)] = waiting.as_slice() else {
        panic!("{waiting:?}");
    };
    assert_eq!(whose, "");
    wait_until("a session of its own", TIMEOUT, || {
        session(*pid) == pid.as_raw_nonzero().get()
    });
    let running = ready.start(&case.launch()).unwrap();
    let home = case.home().display().to_string();
    assert_eq!(supervisors(&program), [(*pid, home)]);
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    let open: Vec<_> = open.map(|entry| entry.unwrap().path()).collect();
    let leads = |fd: &PathBuf| fs::read_link(fd).unwrap_or_default();
    let sockets = open.iter().filter(|fd| leads(fd).starts_with("socket:"));
    // Only the attach socket: the caller's connection is closed after the report.
    wait_until("what is kept to be all", TIMEOUT, || {
        sockets.clone().count() <= 1
    });
    supervisor::signal(&running, 9).unwrap();
    assert_eq!(case.wait_for_exit().signal, Some(9));
    wait_until("its end", TIMEOUT, || supervisors(&program).is_empty());
}

#[test]
fn a_standby_exits_with_its_caller() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let running = case.start();
    let program = copied(&case, "tucano_oci");
    let (unused, refused) = (
        Standby::new(&program).unwrap(),
        Standby::new(&program).unwrap(),
    );
    assert_eq!(supervisors(&program).len(), 2);
    let error = refused.start(&case.launch()).unwrap_err();
    assert!(matches!(error, Error::Running(_)), "{error}");
    drop(unused);
    wait_until("the end of both", TIMEOUT, || {
        supervisors(&program).is_empty()
    });
    supervisor::signal(&running, 9).unwrap();
    case.wait_for_exit();
}

#[test]
fn a_killed_or_outdated_standby_is_not_current() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let program = copied(&case, "tucano_oci");
    let killed = Standby::new(&program).unwrap();
    let [(pid, _)] = supervisors(&program)[..] else {
        panic!("there is one");
    };
    let replaced = Standby::new(&program).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    wait_until("its end to be known", TIMEOUT, || !killed.is_current());
    assert!(replaced.is_current());
    fs::rename(copied(&case, "next"), &program).unwrap();
    assert!(!replaced.is_current());
    // Using it nevertheless either works or fails.
    let error = killed.start(&case.launch()).unwrap_err();
    assert!(
        matches!(error, Error::Program { .. } | Error::Silent { .. }),
        "{error}"
    );
    let running = replaced.start(&case.launch()).unwrap();
    supervisor::signal(&running, 9).unwrap();
    case.wait_for_exit();
}
