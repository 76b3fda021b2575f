//! `exec`: additional processes in a container.

use serde_json::json;
use tucano_testkit::{needs, wait_until};

use crate::harness::{Case, NEEDS, TIMEOUT};

#[test]
fn exec_joins_the_container_and_applies_its_options() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let script = "echo $A $(id -u):$(id -g) $PWD; cat /proc/1/cmdline | grep -c sleep; exit 5";
    let output = case.tucano(&[
        "exec",
        "-e",
        "A=b",
        "-u",
        "33:44",
        "--cwd",
        "/bin",
        case.id(),
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("b 33:44 /bin\n"));
    let missing = case.tucano(&["exec", case.id(), "/no/such"]);
    assert_eq!(missing.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("exec failed"));
}

#[test]
fn exec_has_the_containers_privileges() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let status = case.must(&["exec", case.id(), "cat", "/proc/self/status"]);
    for expected in ["CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(expected), "{expected} not in {status}");
    }
    let more = case.must(&[
        "exec",
        "--cap",
        "CAP_KILL",
        case.id(),
        "cat",
        "/proc/self/status",
    ]);
    assert!(more.contains("CapEff:\t0000000000000020"), "{more}");
    assert!(more.contains("CapInh:\t0000000000000000"), "{more}");
}

#[test]
fn a_process_file_is_run_detached() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let process = json!({
        "args": ["sh", "-c", "echo $WHO > /made; sleep 1000"], "cwd": "/", "env": ["WHO=me", "PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    });
    std::fs::write(case.path("process.json"), process.to_string()).unwrap();
    let (process, pid) = (case.path("process.json"), case.path("second"));
    // It inherits the starter's streams, whose closing must not be waited for.
    let status = case
        .program()
        .args(["exec", "--detach", "--process"])
        .arg(process)
        .arg("--pid-file")
        .arg(pid)
        .arg(case.id())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    wait_until("the file", TIMEOUT, || case.read("rootfs/made") == "me\n");
    let pids: Vec<i32> =
        serde_json::from_str(&case.must(&["ps", "-f", "json", case.id()])).unwrap();
    assert!(
        pids.contains(&case.read("second").parse().unwrap()),
        "{pids:?}"
    );
    case.must(&["kill", "--all", case.id(), "KILL"]);
    case.wait_for_status("stopped");
    assert!(
        case.must_fail(&["exec", case.id(), "true"])
            .contains("it is stopped")
    );
}

#[test]
fn variables_override_the_containers_and_an_empty_home_is_replaced() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo $A; echo $HOME; echo up; sleep 1000");
    case.config["process"]["env"] = json!(["PATH=/bin", "A=1", "HOME=", "A=2"]);
    case.start();
    tucano_testkit::wait_until("all output", TIMEOUT, || case.read("out").contains("up"));
    assert_eq!(case.read("out"), "2\n/root\nup\n");
    let said = case.must(&[
        "exec",
        "--env",
        "A=3",
        case.id(),
        "sh",
        "-c",
        "echo $A $HOME",
    ]);
    assert_eq!(said, "3 /root\n");
}

#[test]
fn a_command_runs_in_a_sub_cgroup_and_its_pidfd_is_sent() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let pids = case.cgroups();
    let own = pids
        .iter()
        .find(|path| path.join("pids.max").exists())
        .unwrap();
    std::fs::create_dir(own.join("sub")).unwrap();
    let socket = case.path("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let controller = if own.join("cgroup.controllers").exists() {
        ""
    } else {
        "pids:"
    };
    let sub = format!("{controller}sub");
    let socket = socket.to_str().unwrap();
    let (fd, said) = std::thread::scope(|scope| {
        let received = scope.spawn(|| crate::streams::received_with(&listener));
        let words = [
            "exec",
            "--cgroup",
            &sub,
            "--pidfd-socket",
            socket,
            case.id(),
            "cat",
            "/proc/self/cgroup",
        ];
        let said = case.must(&words);
        (received.join().unwrap().0, said)
    });
    assert!(said.lines().any(|line| line.ends_with("/sub")), "{said}");
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let link = std::fs::read_link(link).unwrap();
    assert!(link.to_str().unwrap().contains("pidfd"), "{link:?}");
    assert!(
        case.must_fail(&["exec", "--cgroup", "missing", case.id(), "true"])
            .contains("missing")
    );
    std::fs::remove_dir(own.join("sub")).unwrap();
}
