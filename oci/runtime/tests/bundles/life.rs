//! The operations of the specification.

use std::{fs, process::Command};

use tucano_testkit::{ROOT, needs, tool, wait_until};

use crate::harness::{Case, NEEDS, TIMEOUT};

#[test]
fn run_returns_output_and_exit_code_and_cleans_up() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo hello; exit 7");
    let output = case.run();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert!(case.is_gone());
}

#[test]
fn create_start_exit_and_delete() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; trap 'exit 3' USR1; while :; do sleep 0.1; done");
    assert!(case.create().0);
    let state = case.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], case.id());
    assert_eq!(
        state["bundle"],
        case.path("").canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(state["pid"].to_string(), case.read("pid"));
    assert_eq!(case.read("out"), "");
    case.must(&["start", case.id()]);
    wait_until("the program", TIMEOUT, || case.read("out") == "up\n");
    assert_eq!(case.state()["status"], "running");
    assert!(
        case.must_fail(&["start", case.id()])
            .contains("it is running")
    );
    assert!(
        case.must_fail(&["delete", case.id()])
            .contains("it is running")
    );
    case.must(&["kill", case.id(), "USR1"]);
    case.wait_for_status("stopped");
    assert!(case.must_fail(&["kill", case.id()]).contains("not running"));
    assert!(
        case.must_fail(&["start", case.id()])
            .contains("it is stopped")
    );
    case.must(&["delete", case.id()]);
    assert!(case.is_gone());
    assert!(
        case.must_fail(&["state", case.id()])
            .contains("does not exist")
    );
    case.must(&["delete", "--force", case.id()]);
}

#[test]
fn an_id_is_unique_and_a_created_container_can_be_deleted() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo never > /mark");
    assert!(case.create().0);
    let pid = case.read("pid");
    let (second, said) = case.create();
    assert!(!second && said.contains("exists"), "{said}");
    assert_eq!(case.state()["pid"].to_string(), pid);
    case.must(&["delete", case.id()]);
    assert!(case.is_gone());
    assert!(!case.path("rootfs/mark").exists());
}

#[test]
fn a_changed_configuration_does_not_change_a_container() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("echo before; sleep 1000");
    assert!(case.create().0);
    case.config["process"]["args"] = serde_json::json!(["echo", "after"]);
    case.write();
    case.must(&["start", case.id()]);
    wait_until("output", TIMEOUT, || case.read("out") == "before\n");
}

#[test]
fn run_forwards_signals() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("trap 'exit 9' TERM; echo up > /mark; while :; do sleep 0.1; done");
    case.write();
    let mut run = case
        .program()
        .args(["run", "--bundle"])
        .arg(case.path(""))
        .arg(case.id())
        .spawn()
        .unwrap();
    wait_until("the program", TIMEOUT, || case.path("rootfs/mark").exists());
    let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(9));
    assert!(case.is_gone());
}

#[test]
fn a_paused_container_makes_no_progress() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    case.start();
    case.must(&["pause", case.id()]);
    assert_eq!(case.state()["status"], "paused");
    assert!(
        case.must_fail(&["pause", case.id()])
            .contains("it is paused")
    );
    assert!(
        case.must_fail(&["exec", case.id(), "true"])
            .contains("it is paused")
    );
    case.must(&["resume", case.id()]);
    assert_eq!(case.state()["status"], "running");
    let before = case.read("out").len();
    wait_until("more output", TIMEOUT, || case.read("out").len() > before);
    case.must(&["pause", case.id()]);
    case.must(&["delete", "--force", case.id()]);
    assert!(case.is_gone());
}

#[test]
fn list_ps_and_stats() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    assert_eq!(case.must(&["list", "--quiet"]), "");
    case.start();
    assert_eq!(case.must(&["list", "--quiet"]).trim(), case.id());
    let listed: serde_json::Value =
        serde_json::from_str(&case.must(&["list", "--format", "json"])).unwrap();
    assert_eq!(listed[0]["status"], "running");
    assert!(case.must(&["list"]).contains(case.id()));
    let pids: Vec<i32> =
        serde_json::from_str(&case.must(&["ps", "-f", "json", case.id()])).unwrap();
    assert!(
        pids.contains(&case.read("pid").parse().unwrap()),
        "{pids:?}"
    );
    let events: serde_json::Value =
        serde_json::from_str(&case.must(&["events", "--stats", case.id()])).unwrap();
    assert_eq!(events["type"], "stats");
    assert_eq!(events["data"]["pids"]["limit"], 512);
    assert!(events["data"]["memory"]["usage"]["usage"].as_u64() > Some(0));
}

#[test]
fn events_report_stats_and_oom_kills() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(
        "echo up; while ! test -e /go; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=512M count=1; exit 3",
    );
    case.config["linux"]["resources"]["memory"] =
        serde_json::json!({"limit": 64 << 20, "swap": 64 << 20});
    case.start();
    let mut events = case
        .program()
        .args(["events", "--interval", "100ms", case.id()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    let mut next = || -> Option<serde_json::Value> {
        Some(serde_json::from_str(&lines.next()?.unwrap()).unwrap())
    };
    for _ in 0..2 {
        let event = next().unwrap();
        assert_eq!(
            (&event["type"], &event["id"]),
            (&"stats".into(), &case.id().into())
        );
    }
    std::fs::write(case.path("rootfs/go"), "").unwrap();
    let rest: Vec<_> = std::iter::from_fn(next).collect();
    assert!(rest.iter().any(|event| event["type"] == "oom"), "{rest:?}");
    assert!(events.wait().unwrap().success());
    assert!(
        case.must_fail(&["events", case.id()])
            .contains("not running")
    );
}

#[test]
fn no_pivot_enters_the_root() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("cat /proc/self/mountinfo; ls /; echo $$; chroot / ls /sbin/init");
    case.config["process"]["capabilities"] = serde_json::json!({"bounding": ["CAP_SYS_CHROOT"], "permitted": ["CAP_SYS_CHROOT"], "effective": ["CAP_SYS_CHROOT"]});
    case.write();
    let bundle = case.path("");
    let options = ["--rootless", "true", "run", "--no-pivot", "--bundle"];
    let output = case
        .program()
        .args(options)
        .arg(bundle)
        .arg(case.id())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("\nbin\n") && said.contains("\n1\n"),
        "{output:?}"
    );
    assert!(!said.contains("/sbin/init"), "{said}");
    // Only the mount of the host's root remains, beneath the new one.
    let places = |wanted: &str| {
        let all = said.lines().filter_map(|line| line.split(' ').nth(4));
        all.filter(|place| *place == wanted).count()
    };
    assert_eq!(
        (places("/proc"), places("/dev"), places("/sys")),
        (1, 1, 1),
        "{said}"
    );
    assert!(case.is_gone());
}

#[test]
fn the_version_has_runcs_format() {
    if !needs(&NEEDS) {
        return;
    }
    let said = Case::new("").must(&["--version"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("tucano_oci version "), "{said}");
    assert!(lines[1].starts_with("spec: 1."), "{said}");
}

#[test]
fn bundles_of_runc_spec_run() {
    if !needs(&[ROOT, tool("busybox"), tool("runc")]) {
        return;
    }
    let mut case = Case::new("");
    std::fs::remove_file(case.path("config.json")).unwrap();
    let made = Command::new("runc")
        .args(["spec", "--bundle"])
        .arg(case.path(""))
        .status()
        .unwrap();
    assert!(made.success());
    case.config = serde_json::from_str(&case.read("config.json")).unwrap();
    case.config["process"]["terminal"] = false.into();
    case.config["process"]["args"] =
        serde_json::json!(["sh", "-c", "echo $$; echo x 2>/dev/null > /file || echo ro"]);
    let output = case.run();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\nro\n",
        "{output:?}"
    );
}

#[test]
fn a_container_without_a_process_is_created_and_not_started() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("");
    case.config.as_object_mut().unwrap().remove("process");
    let created = case.create();
    assert!(created.0, "{created:?}");
    assert_eq!(case.state()["status"], "created");
    let said = case.must_fail(&["start", case.id()]);
    assert!(said.contains("no `process`"), "{said}");
    assert_eq!(case.state()["status"], "created");
    // The waiting process has no privileges.
    let pid = case.state()["pid"].as_i64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let effective = status.lines().find(|line| line.starts_with("CapBnd:"));
    assert_eq!(effective, Some("CapBnd:\t0000000000000000"));
    case.must(&["delete", case.id()]);
    assert!(case.is_gone());
    let run = case.run();
    assert_eq!(run.status.code(), Some(1));
    assert!(case.is_gone());
}

#[test]
fn signal_zero_asks_whether_it_runs() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    case.must(&["kill", case.id(), "0"]);
    // The first process of a pid namespace ignores what it has no handler for.
    case.must(&["kill", case.id(), "SIGRTMIN+3"]);
    case.must(&["kill", case.id(), "KILL"]);
    case.wait_for_status("stopped");
    assert!(
        case.must_fail(&["kill", case.id(), "0"])
            .contains("not running")
    );
}

/// A caller that waits for the end of a pipe would wait for the start.
#[test]
fn a_created_container_holds_no_descriptor_of_its_caller() {
    use std::io::Read;
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("true");
    case.write();
    let (mut read, write) = std::io::pipe().unwrap();
    let inherited = write.try_clone().unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let status = case
        .program()
        .args(["create", "--bundle"])
        .arg(case.path(""))
        .arg(case.id())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    drop((write, inherited));
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
    assert_eq!(case.state()["status"], "created");
}

#[test]
fn the_callers_cpu_affinity_does_not_pass_on() {
    let all = std::thread::available_parallelism().unwrap().get();
    if !needs(&[NEEDS[0], NEEDS[1], tool("taskset")]) || all < 2 {
        return;
    }
    let case = Case::new("nproc; echo up; sleep 1000");
    case.write();
    let program = case.program();
    let mut pinned = std::process::Command::new("taskset");
    pinned
        .args(["-c", "0"])
        .arg(program.get_program())
        .args(program.get_args());
    let out = std::fs::File::create(case.path("out")).unwrap();
    pinned
        .args(["run", "--detach", "--bundle"])
        .arg(case.path(""))
        .arg(case.id());
    assert!(pinned.stdout(out).status().unwrap().success());
    wait_until("its output", TIMEOUT, || case.read("out").contains("up"));
    assert_eq!(case.read("out"), format!("{all}\nup\n"));
}

#[test]
fn a_log_file_that_cannot_be_written_is_an_error() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("true");
    let output = case
        .program()
        .args(["--log", "/nowhere/log", "list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/log"));
}

/// Of cgroup v1, where frozen processes do not even die.
#[test]
fn a_container_whose_process_is_frozen_elsewhere_is_deleted() {
    let top = std::path::Path::new("/sys/fs/cgroup/freezer");
    if !needs(&NEEDS) || !top.join("cgroup.procs").exists() {
        return;
    }
    let case = Case::new("echo up; sleep 1000");
    case.start();
    let pid = case.read("pid");
    let elsewhere = top.join(format!("{}-elsewhere", case.id()));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("cgroup.procs"), &pid).unwrap();
    fs::write(elsewhere.join("freezer.state"), "FROZEN").unwrap();
    wait_until("the process to be frozen", TIMEOUT, || {
        fs::read_to_string(elsewhere.join("freezer.state"))
            .unwrap()
            .trim()
            == "FROZEN"
    });
    case.must(&["delete", "--force", case.id()]);
    // Its parent may not have waited for it yet.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("(zombie)"), "{status}");
    assert!(case.is_gone());
    fs::remove_dir(&elsewhere).unwrap();
}

#[test]
fn a_rootless_configuration_runs() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("");
    fs::remove_file(case.path("config.json")).unwrap();
    let bundle = case.path("");
    case.must(&["spec", "--rootless", "--bundle", bundle.to_str().unwrap()]);
    case.config = serde_json::from_slice(&fs::read(case.path("config.json")).unwrap()).unwrap();
    case.config["process"]["terminal"] = false.into();
    let script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/net";
    case.config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.first(), Some(&"0"), "{output:?}");
    let map: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(map, ["0", "0", "1"], "{output:?}");
    let network = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(lines[2], network.to_str().unwrap());
}
