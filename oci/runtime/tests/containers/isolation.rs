//! What a container sees and can do.

use std::fs;

use tucano_testkit::{ROOT, needs, tool};

use super::harness::{Case, field, host_file};

#[test]
fn it_has_no_privilege_at_all() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (exit, status) = Case::new(&["cat", "/proc/self/status"]).run();
    assert_eq!(exit.code, Some(0), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "Seccomp"), "2");
    assert_eq!(field(&status, "Pid"), "1");
    assert_eq!(
        field(&status, "SigIgn"),
        "0000000000001000",
        "SIGPIPE, by the inmate's own runtime"
    );
    assert_eq!(field(&status, "SigBlk"), "0000000000000000");
}

#[test]
fn every_namespace_is_its_own() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let kinds = ["pid", "mnt", "uts", "ipc", "net", "cgroup"];
    let paths = kinds.map(|kind| format!("/proc/self/ns/{kind}"));
    let mut arguments = vec!["links"];
    arguments.extend(paths.iter().map(String::as_str));
    let (_, inside) = Case::new(&arguments).run();
    assert_eq!(inside.lines().count(), kinds.len(), "{inside}");
    for (path, inside) in paths.iter().zip(inside.lines()) {
        let outside = format!("{:?}", fs::read_link(path).unwrap());
        assert!(inside.contains(':'), "{inside}");
        assert_ne!(inside, outside, "{path}");
    }
}

#[test]
fn it_sees_its_own_processes_files_and_descriptors_only() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, processes) = Case::new(&["ls", "/proc"]).run();
    let pids: Vec<_> = processes
        .split_whitespace()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    assert_eq!(pids, ["1"]);
    let (_, root) = Case::new(&["ls", "/"]).run();
    assert!(!root.contains("home") && root.contains("inmate"), "{root}");
    let (_, descriptors) = Case::new(&["fds"]).run();
    // The fourth descriptor is that of the listing.
    assert_eq!(descriptors.trim(), "0 1 2 3");
    let (_, mounts) = Case::new(&["cat", "/proc/self/mounts"]).run();
    assert!(
        !mounts.contains("/dev/vda") && !mounts.contains("ext4"),
        "{mounts}"
    );
}

#[test]
fn only_default_devices_exist() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, devices) = Case::new(&["ls", "/dev"]).run();
    assert_eq!(
        devices.trim(),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let (_, written) = Case::new(&["write", "/dev/null", "x"]).run();
    assert_eq!(written.trim(), "written");
    let (_, written) = Case::new(&["write", "/dev/stdout", "through the link"]).run();
    assert!(written.contains("through the link"), "{written}");
}

#[test]
fn sensitive_paths_are_masked() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    // Which of these exist depends on the kernel; each existing one must be empty.
    let masked = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/interrupts",
        "/proc/timer_list",
        "/proc/kallsyms",
        "/proc/iomem",
        "/proc/config.gz",
    ];
    let present: Vec<_> = masked
        .iter()
        .filter(|path| fs::exists(path).unwrap())
        .collect();
    assert!(!present.is_empty());
    for path in present {
        let (_, content) = Case::new(&["cat", path]).run();
        assert_eq!(content.trim(), "", "{path}");
    }
    assert_eq!(Case::new(&["ls", "/sys/firmware"]).run().1.trim(), "");
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/fs/cgroup/pids/pids.max",
    ] {
        let (_, outcome) = Case::new(&["write", path, "x"]).run();
        assert!(outcome.contains("error: "), "{path}: {outcome}");
    }
}

#[test]
fn the_system_calls_of_an_attack_are_refused() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, outcome) = Case::new(&["calls"]).run();
    for (call, result) in outcome.lines().filter_map(|line| line.split_once(": ")) {
        let expected = match call {
            "af-inet" => "Ok(())",
            "mknod" if tucano_oci_runtime::features::has_landlock() => "Err(EACCES)",
            _ => "Err(EPERM)",
        };
        assert_eq!(result, expected, "{call}");
    }
    assert_eq!(outcome.lines().count(), 13, "{outcome}");
}

#[test]
fn the_sandbox_parameters_are_applied() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (_, name) = Case::new(&["cat", "/proc/sys/kernel/hostname"]).run();
    assert_eq!(name.trim(), "cell");
    let (_, greeting) = Case::new(&["env", "GREETING"]).run();
    assert_eq!(greeting.trim(), "hello");
    let mut elsewhere = Case::new(&["cwd"]);
    elsewhere.sandbox.cwd = "/not/there/yet".into();
    assert_eq!(elsewhere.run().1.trim(), "\"/not/there/yet\"");
    let (_, limits) = Case::new(&["cat", "/proc/self/limits"]).run();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    assert!(core.contains(" 0  "), "{core}");
}

#[test]
fn it_listens_on_a_low_port_without_privilege() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["listen", "80"]);
    case.user = Some("web".into());
    let (_, outcome) = case.run();
    assert!(outcome.contains("0.0.0.0:80"), "{outcome}");
}

#[test]
fn it_runs_as_the_images_user() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["cat", "/proc/self/status"]);
    case.user = Some("web".into());
    let (_, status) = case.run();
    assert_eq!(field(&status, "Uid"), "33\t33\t33\t33");
    assert_eq!(field(&status, "Gid"), "34\t34\t34\t34");
    assert_eq!(field(&status, "Groups"), "50");
    let mut case = Case::new(&["env", "HOME"]);
    case.user = Some("web".into());
    assert_eq!(case.run().1.trim(), "/srv");
    let mut case = Case::new(&["write", "/dev/stdout", "mine too"]);
    case.user = Some("web".into());
    assert!(case.run().1.contains("mine too"));
}

#[test]
fn layers_are_never_written_to() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["write", "/etc/passwd", "gone"]);
    let before = fs::read(case.layer().join("etc/passwd")).unwrap();
    assert_eq!(case.run().1.trim(), "written");
    assert_eq!(fs::read(case.layer().join("etc/passwd")).unwrap(), before);
    assert_eq!(
        fs::read(case.home().join("upper/etc/passwd")).unwrap(),
        b"gone"
    );
}

#[test]
fn upper_layers_hide_lower_ones() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let case = Case::new(&["cat", "/etc/motd"]);
    let second = case.directory.path().join("second,with:odd name");
    fs::create_dir_all(second.join("etc")).unwrap();
    fs::write(case.layer().join("etc/motd"), "lower").unwrap();
    fs::write(second.join("etc/motd"), "upper").unwrap();
    let mut launch = case.launch();
    launch.rootfs = tucano_oci_runtime::launch::Rootfs::Overlay {
        layers: vec![case.layer(), second],
        writable: Vec::new(),
        images: Vec::new(),
    };
    case.start_to_end(&launch);
    case.wait_for_exit();
    assert_eq!(case.stdout().trim(), "upper");
}

#[test]
fn files_of_the_host_are_shown_read_only() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let mut case = Case::new(&["cat", "/etc/hosts"]);
    let hosts = case.directory.path().join("hosts");
    fs::write(&hosts, "10.0.0.1 ctl\n").unwrap();
    case.sandbox.files = vec![host_file(hosts.clone(), "/etc/hosts")];
    assert_eq!(case.run().1.trim(), "10.0.0.1 ctl");
    let mut case = Case::new(&["write", "/etc/hosts", "x"]);
    case.sandbox.files = vec![host_file(hosts.clone(), "/etc/hosts")];
    assert!(case.run().1.contains("Read-only"), "{}", case.stdout());
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "10.0.0.1 ctl\n");
}
