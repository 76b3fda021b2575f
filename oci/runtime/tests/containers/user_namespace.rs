//! Containers with user namespaces.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
};

use tucano_oci_runtime::supervisor::user_namespaces_work;
use tucano_testkit::{Need, ROOT, needs, tool, wait_until};

use super::harness::{Case, TIMEOUT, field, program};

const BASE: u32 = 700_000;

fn case(arguments: &[&str]) -> Option<Case> {
    if !needs(&[ROOT, tool("ldd"), Need::Exists("/proc/self/ns/user")]) {
        return None;
    }
    let mut case = Case::new(arguments);
    assert!(user_namespaces_work(&program(), case.directory.path()));
    case.sandbox.user_namespace = Some(BASE);
    Some(case)
}

#[test]
fn its_root_is_nobody_outside() {
    let Some(case) = case(&["wait-after", "up"]) else {
        return;
    };
    let running = case.start();
    wait_until("its output", TIMEOUT, || case.stdout().contains("up"));
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    assert_eq!(
        field(&status, "Uid"),
        format!("{BASE}\t{BASE}\t{BASE}\t{BASE}")
    );
    assert_eq!(field(&status, "CapBnd"), "0000000000000000");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(namespace(&running.pid.to_string()), namespace("self"));
}

#[test]
fn files_belong_to_its_root_inside_and_to_the_hosts_outside() {
    let Some(case) = case(&["owner", "/etc/passwd"]) else {
        return;
    };
    let (exit, owner) = case.run();
    assert_eq!((exit.code, owner.trim()), (Some(0), "0:0"));
    let Some(case) = self::case(&["write", "/made", "x"]) else {
        return;
    };
    assert_eq!(case.run().1.trim(), "written");
    assert_eq!(
        fs::metadata(case.home().join("upper/made")).unwrap().uid(),
        0
    );
    assert!(!case.layer().join("made").exists());
}

#[test]
fn writes_go_to_the_upper_layer() {
    let Some(case) = case(&["write", "/srv/mine", "new"]) else {
        return;
    };
    let mut case = case;
    fs::create_dir(case.layer().join("srv")).unwrap();
    fs::write(case.layer().join("srv/mine"), "old").unwrap();
    for name in ["srv", "srv/mine"] {
        chown(case.layer().join(name), Some(33), Some(34)).unwrap();
    }
    case.user = Some("web".into());
    let (_, outcome) = case.run();
    assert_eq!(outcome.trim(), "written");
    assert_eq!(
        fs::read_to_string(case.layer().join("srv/mine")).unwrap(),
        "old"
    );
    let copy = case.home().join("upper/srv/mine");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "new");
    assert_eq!(fs::metadata(&copy).unwrap().uid(), 33);
}

#[test]
fn devices_and_shared_memory_work_in_it() {
    let Some(case) = case(&["write", "/dev/shm/x", "x"]) else {
        return;
    };
    assert_eq!(case.run().1.trim(), "written");
    for (path, expected) in [("/dev/null", "written"), ("/dev/stdout", "through")] {
        let Some(case) = self::case(&["write", path, "through"]) else {
            return;
        };
        let (_, outcome) = case.run();
        assert!(outcome.contains(expected), "{path}: {outcome}");
    }
    let Some(case) = self::case(&["owner", "/dev/null"]) else {
        return;
    };
    assert_eq!(case.run().1.trim(), "0:0");
}

#[test]
fn it_cannot_administer_its_namespaces() {
    let Some(case) = case(&["calls"]) else {
        return;
    };
    let (_, outcome) = case.run();
    let refused = outcome
        .lines()
        .filter(|line| line.contains(": Err("))
        .count();
    assert_eq!(refused, 12, "{outcome}");
}

#[test]
fn commands_join_its_user_namespace() {
    let Some(case) = case(&["wait-after", "up"]) else {
        return;
    };
    drop(case.start());
    assert_eq!(case.exec(&["/inmate", "exit", "5"]).unwrap(), 5);
    let output = std::process::Command::new(program())
        .arg("exec-in")
        .arg(case.home())
        .args(["--", "/inmate", "cat", "/proc/self/uid_map"])
        .output()
        .unwrap();
    let map = String::from_utf8(output.stdout).unwrap();
    let map: Vec<_> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "700000", "65536"]);
}

#[test]
fn an_unmapped_user_is_an_error() {
    let Some(mut case) = case(&["exit", "0"]) else {
        return;
    };
    case.user = Some("65536".into());
    let error = case.try_start().unwrap_err();
    assert!(
        error.to_string().contains("outside of the user namespace"),
        "{error}"
    );
}

#[test]
fn a_missing_directory_cannot_be_id_mapped() {
    if !needs(&[ROOT]) {
        return;
    }
    assert!(!user_namespaces_work(
        &program(),
        std::path::Path::new("/proc")
    ));
}

/// What a container uses of the kernel's limits by user is charged to the owner of its user namespace, too.
#[test]
fn its_user_namespace_is_its_own_users() {
    if !needs(&[tucano_testkit::tool("python3")]) {
        return;
    }
    let Some(case) = case(&["wait"]) else {
        return;
    };
    let running = case.start();
    // ioctl_ns(2): NS_GET_OWNER_UID.
    let script = "import array, fcntl, sys
owner = array.array('I', [0])
fcntl.ioctl(open(sys.argv[1]), 0xb704, owner)
print(owner[0])";
    let namespace = format!("/proc/{}/ns/user", running.pid);
    let python = std::process::Command::new("python3")
        .args(["-c", script, &namespace])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&python.stdout).trim(),
        BASE.to_string(),
        "{python:?}"
    );
}
