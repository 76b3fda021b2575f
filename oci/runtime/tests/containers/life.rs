//! How containers exit, what survives whom, and what remains.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tucano_oci_runtime::{
    cgroup::Cgroup,
    supervisor::{self, Error, Running, Status},
};
use tucano_testkit::{ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, program};

fn supervisor_pid(home: &Path) -> i32 {
    let record = fs::read_to_string(home.join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    i32::try_from(record["supervisor"]["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty()
        || stat.contains(") Z ")
        || test_kill_process(Pid::from_raw(pid).unwrap()).is_err()
}

/// Private dirty memory of a process.
fn dirty_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Private_Dirty:"));
    let number = rest.unwrap().trim_end_matches(" kB").trim();
    number.parse().unwrap()
}

fn found_running(case: &Case) -> Running {
    match supervisor::find(&case.home()).unwrap() {
        Status::Running(running) => running,
        other => panic!("{other:?}"),
    }
}

fn assert_nothing_remains(cgroup: &Cgroup, directory: &Path) {
    for (_, directory) in &cgroup.directories {
        assert!(!directory.exists(), "{directory:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "{mounts}");
}

/// Private memory only: supervisors share their code. A large specification needs far more, which is released.
#[test]
fn a_supervisor_takes_less_than_a_mebibyte() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["wait-after", "up"]);
    let variable = |number| format!("NUMBER_{number}={}", "x".repeat(100));
    case.sandbox.env.extend((0..10_000).map(variable));
    let running = case.start();
    let pid = supervisor_pid(&case.home());
    wait_until("the supervisor is small", TIMEOUT, || dirty_kib(pid) < 1024);
    supervisor::signal(&running, 9).unwrap();
    case.wait_for_exit();
}

#[test]
fn exit_codes_and_signals_are_kept() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    for code in [0, 1, 42] {
        let (exit, _) = Case::new(&["exit", &code.to_string()]).run();
        assert_eq!((exit.code, exit.signal), (Some(code), None));
        assert!(exit.at_ms > 1_600_000_000_000);
    }
    let case = Case::new(&["wait-after", "up"]);
    let running = case.start();
    wait_until("its output", TIMEOUT, || case.stdout().contains("up"));
    supervisor::signal(&running, 9).unwrap();
    let exit = case.wait_for_exit();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    wait_until("the end to be told", TIMEOUT, || {
        matches!(supervisor::signal(&running, 9), Err(Error::Ended))
    });
}

#[test]
fn the_supervisor_exits_after_recording_the_exit_status() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let running = case.start();
    supervisor::signal(&running, 9).unwrap();
    let mut ended = [rustix::event::PollFd::new(
        &running.supervisor,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut ended, None).unwrap();
    assert!(matches!(
        supervisor::find(&case.home()).unwrap(),
        Status::Exited(_)
    ));
    assert_nothing_remains(&case.cgroup(), case.directory.path());
}

#[test]
fn a_container_dies_with_its_supervisor_and_is_lost() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    let running = case.start();
    kill(supervisor_pid(&case.home()));
    wait_until("the container's death", TIMEOUT, || is_gone(running.pid));
    wait_until("the loss to be told", TIMEOUT, || {
        matches!(supervisor::find(&case.home()).unwrap(), Status::Lost)
    });
    let cgroup = case.cgroup();
    cgroup.destroy().unwrap();
    cgroup.destroy().unwrap();
    assert_nothing_remains(&cgroup, case.directory.path());
}

/// Helper of the next test, which runs it in another process and kills that.
#[test]
fn helper_that_starts_a_container_and_waits() {
    let Some(home) = std::env::var_os("TUCANO_RUNTIME_TEST_HOME") else {
        return;
    };
    let launch = fs::read(PathBuf::from(home).join("wanted.json")).unwrap();
    drop(supervisor::start(&program(), &serde_json::from_slice(&launch).unwrap()).unwrap());
    loop {
        nix::unistd::pause();
    }
}

#[test]
fn a_container_outlives_its_starter_and_is_adopted() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["wait-after", "up"]);
    fs::create_dir(case.home()).unwrap();
    let launch = serde_json::to_vec(&case.launch()).unwrap();
    fs::write(case.home().join("wanted.json"), launch).unwrap();
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::helper_that_starts_a_container_and_waits"])
        .env("TUCANO_RUNTIME_TEST_HOME", case.home())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the container", TIMEOUT, || case.stdout().contains("up"));
    starter.kill().unwrap();
    starter.wait().unwrap();
    let running = found_running(&case);
    assert!(!is_gone(running.pid));
    assert!(matches!(case.try_start(), Err(Error::Running(_))));
    supervisor::signal(&running, 9).unwrap();
    assert_eq!(case.wait_for_exit().signal, Some(9));
}

#[test]
fn children_end_with_the_first_process() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["leave-child"]);
    let (exit, _) = case.run();
    assert_eq!(exit.code, Some(0));
    assert_nothing_remains(&case.cgroup(), case.directory.path());
}

#[test]
fn a_state_directory_can_be_reused() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["exit", "3"]);
    assert!(matches!(
        supervisor::find(&case.home()).unwrap(),
        Status::NeverStarted
    ));
    assert_eq!(case.run().0.code, Some(3));
    let mut launch = case.launch();
    let mut process = launch.spec.process().clone().unwrap();
    process.set_args(Some(vec!["/inmate".into(), "exit".into(), "4".into()]));
    launch.spec.set_process(Some(process));
    case.start_to_end(&launch);
    wait_until(
        "the second exit",
        TIMEOUT,
        || matches!(supervisor::find(&case.home()).unwrap(), Status::Exited(exit) if exit.code == Some(4)),
    );
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let script = "#!/no/interpreter\n";
    for (program, text, expected) in [
        ("/missing", None, "no such program in the image"),
        ("also-missing", None, "no such program in the image"),
        ("/etc/passwd", None, "not executable"),
        ("/text", Some("hello"), "wrong architecture"),
        ("/script", Some(script), "interpreter"),
    ] {
        let mut case = Case::new(&[]);
        if let Some(text) = text {
            use std::os::unix::fs::PermissionsExt;
            let path = case.layer().join(&program[1..]);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        case.sandbox.args = vec![program.into()];
        let error = case.try_start().unwrap_err();
        assert!(
            matches!(&error, Error::Step { step, .. } if step == "program"),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(
            supervisor::find(&case.home()).unwrap(),
            Status::NeverStarted
        ));
        assert_eq!(Cgroup::of(&case.home()).unwrap(), None);
        tucano_oci_runtime::cgroup::remove_parent(&case.sandbox.cgroup).unwrap();
        assert_no_cgroup(&case);
    }
}

fn assert_no_cgroup(case: &Case) {
    let name = Path::new(&case.sandbox.cgroup).parent().unwrap();
    let again = Case::new(&["exit", "0"]);
    again.run();
    for (_, directory) in &again.cgroup().directories {
        let own = directory.parent().unwrap().parent().unwrap();
        assert!(!own.join(name).join("box").exists(), "{own:?}");
    }
}

#[test]
fn an_unknown_user_is_an_error() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["exit", "0"]);
    case.user = Some("nobody-here".into());
    let error = case.try_start().unwrap_err();
    assert!(error.to_string().contains("nobody-here"), "{error}");
}

#[test]
fn a_missing_network_namespace_is_an_error() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["exit", "0"]);
    case.sandbox.network = Some("/proc/1/fd/99999".into());
    let error = case.try_start().unwrap_err();
    assert!(error.to_string().contains("99999"), "{error}");
}

#[test]
fn the_hosts_network_is_not_changed_by_a_sysctl() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = fs::read_to_string(path).unwrap();
    let mut case = Case::new(&["exit", "0"]);
    case.sandbox.network = Some(format!("/proc/{}/ns/net", std::process::id()).into());
    let error = case.try_start().unwrap_err();
    assert!(
        error.to_string().contains("would change the host"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(path).unwrap(), before);
}

/// It is executed for each container (docs/decisions/0077).
#[test]
fn the_program_needs_no_dynamic_linker() {
    if !needs(&[tool("cc")]) {
        return;
    }
    let mut compiler = std::process::Command::new("cc");
    let found = compiler.arg("-print-file-name=libc.a").output().unwrap();
    // It has a directory where there is one: Fedora's glibc-static has it.
    if !found.stdout.starts_with(b"/") {
        return;
    }
    let program = fs::read(program()).unwrap();
    let interpreter: &[u8] = b"/ld-linux";
    let mut windows = program.windows(interpreter.len());
    assert!(!windows.any(|window| window == interpreter));
}
