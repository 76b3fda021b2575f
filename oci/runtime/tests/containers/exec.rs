//! Commands run in a running container.

use std::time::Duration;

use tucano_oci_runtime::supervisor::{self, Error};
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, field, program};

fn started() -> Case {
    let case = Case::new(&["wait-after", "up"]);
    drop(case.start());
    wait_until("its output", TIMEOUT, || case.stdout().contains("up"));
    case
}

#[test]
fn its_exit_code_comes_back() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = started();
    for code in [0, 7] {
        assert_eq!(
            case.exec(&["/inmate", "exit", &code.to_string()]).unwrap(),
            code
        );
    }
    assert_eq!(case.exec(&["inmate", "die", "9"]).unwrap(), 128 + 9);
    let error = case.exec(&["/missing"]).unwrap_err();
    assert!(error.to_string().contains("no such program"), "{error}");
}

#[test]
fn it_is_as_restricted_as_the_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = started();
    let output = std::process::Command::new(program())
        .arg("exec-in")
        .arg(case.home())
        .args(["--", "/inmate", "cat", "/proc/self/status"])
        .output()
        .unwrap();
    let status = String::from_utf8(output.stdout).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "Seccomp"), "2");
    let output = std::process::Command::new(program())
        .arg("exec-in")
        .arg(case.home())
        .args(["--", "/inmate", "cat", "/proc/self/cgroup"])
        .output()
        .unwrap();
    let cgroups = String::from_utf8(output.stdout).unwrap();
    // v1, or v2.
    let own = |line: &str| line.ends_with("pids:/") || line == "0::/";
    assert!(cgroups.lines().any(own), "{cgroups}");
    let output = std::process::Command::new(program())
        .arg("exec-in")
        .arg(case.home())
        .args(["--", "/inmate", "fds"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "0 1 2 3");
}

#[test]
fn it_ends_in_time() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = started();
    let command = ["/inmate", "wait"].map(String::from);
    let timeout = Duration::from_millis(100);
    let error = supervisor::exec(&program(), &case.home(), &command, timeout).unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    wait_until("its process to be gone", TIMEOUT, || {
        case.cgroup().stats().unwrap().pids_current == 1
    });
}

#[test]
fn exec_needs_a_running_container() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["exit", "0"]);
    assert!(case.exec(&["/inmate", "exit", "0"]).is_err());
    case.run();
    let error = case.exec(&["/inmate", "exit", "0"]).unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");
}
