//! Namespaces: joined by path, shared with the host, and time namespaces.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tucano_testkit::{Need, ROOT, needs, tool, wait_until};

use crate::harness::{Case, NEEDS, TIMEOUT};

const WITH_UNSHARE: [Need; 3] = [ROOT, tool("busybox"), tool("unshare")];

/// Sets the path of a namespace, which is added if missing.
fn join(case: &mut Case, kind: &str, path: &str) {
    let all = case.config["linux"]["namespaces"].as_array_mut().unwrap();
    all.retain(|namespace| namespace["type"] != kind);
    all.push(json!({"type": kind, "path": path}));
}

/// A namespace link of a process.
fn link_of(pid: u32, name: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn the_namespaces_of_another_container_are_joined_by_path() {
    if !needs(&NEEDS) {
        return;
    }
    let first = Case::new("echo up; sleep 1000");
    first.start();
    let pid: u32 = first.read("pid").parse().unwrap();
    let kinds = [
        ("pid", "pid"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("network", "net"),
        ("cgroup", "cgroup"),
    ];
    let mut second =
        Case::new("for n in pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done");
    for (kind, name) in kinds {
        join(&mut second, kind, &format!("/proc/{pid}/ns/{name}"));
    }
    let output = second.run();
    let expected: Vec<String> = kinds.iter().map(|(_, name)| link_of(pid, name)).collect();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{output:?}");
    assert!(second.is_gone());
    // Its exit does not end the container whose pid namespace it joined.
    assert_eq!(first.state()["status"], "running");
}

#[test]
fn a_user_namespace_is_joined_with_its_mappings() {
    if !needs(&NEEDS) {
        return;
    }
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
    let mut first = Case::new("echo up; sleep 1000");
    first.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    first.config["linux"]["uidMappings"] = map.clone();
    first.config["linux"]["gidMappings"] = map.clone();
    make_readable(&first);
    first.start();
    let path = format!("/proc/{}/ns/user", first.read("pid"));
    let script = "readlink /proc/self/ns/user; cat /proc/self/uid_map; echo up; sleep 1000";
    let mut second = Case::new(script);
    make_readable(&second);
    join(&mut second, "user", &path);
    second.start();
    wait_until("output", TIMEOUT, || second.read("out").ends_with("up\n"));
    let said = second.read("out");
    let pid: u32 = first.read("pid").parse().unwrap();
    assert!(said.starts_with(&link_of(pid, "user")), "{said}");
    assert!(said.contains("200000"), "{said}");
    let joined = second.must(&["exec", second.id(), "readlink", "/proc/self/ns/user"]);
    assert_eq!(joined.trim(), link_of(pid, "user"));
    let mut third = Case::new("true");
    join(&mut third, "user", &path);
    third.config["linux"]["uidMappings"] =
        json!([{"containerID": 0, "hostID": 300_000, "size": 1000}]);
    third.config["linux"]["gidMappings"] = map;
    let (created, said) = third.create();
    assert!(!created && said.contains("uidMappings"), "{said}");
}

/// The root of a user namespace has no privileges on the host.
fn make_readable(case: &Case) {
    use std::os::unix::fs::PermissionsExt;
    for name in ["", "rootfs"] {
        fs::set_permissions(case.path(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
}

/// A process in a private mount namespace, killed at the end of the test.
struct Holder(Child);

impl Holder {
    fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("echo up; exec sleep 1000")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut holder = Self(child);
        let mut ready = [0; 3];
        let out = holder.0.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut ready).unwrap();
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_mount_namespace_is_joined() {
    if !needs(&WITH_UNSHARE) {
        return;
    }
    let holder = Holder::new();
    let mut case = Case::new("readlink /proc/self/ns/mnt; ls /bin/busybox");
    join(
        &mut case,
        "mount",
        &format!("/proc/{}/ns/mnt", holder.0.id()),
    );
    let output = case.run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("{}\n/bin/busybox\n", link_of(holder.0.id(), "mnt"));
    assert_eq!(said, expected, "{output:?}");
}

#[test]
fn a_namespace_path_of_another_kind_is_refused() {
    if !needs(&NEEDS) {
        return;
    }
    for (kind, path) in [
        ("ipc", "/proc/self/ns/uts"),
        ("pid", "/proc/self/ns/net"),
        ("user", "/proc/self/ns/net"),
        ("network", "/no/such/namespace"),
    ] {
        let mut case = Case::new("true");
        join(&mut case, kind, path);
        let (created, said) = case.create();
        assert!(!created, "{kind} {path}");
        assert!(case.is_gone(), "{said}");
    }
}

#[test]
fn without_a_pid_namespace_the_container_shares_the_hosts() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new("sleep 1000 & echo $$; wait");
    case.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "pid");
    case.start();
    assert_eq!(case.read("out").trim(), case.read("pid"));
    let all: Vec<i32> = serde_json::from_str(&case.must(&["ps", "-f", "json", case.id()])).unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
    case.must(&["kill", case.id(), "KILL"]);
    case.wait_for_status("stopped");
    // No pid namespace ends with the init process: deleting the container kills the second process.
    case.must(&["delete", case.id()]);
    assert!(case.is_gone());
    for pid in all {
        wait_until("its end", TIMEOUT, || !is_alive(pid));
    }
}

/// Whether it exists and is no zombie.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn a_time_namespace_has_clocks_of_its_own() {
    if !needs(&NEEDS) {
        return;
    }
    const SHIFT_SECONDS: u64 = 100_000_000;
    let mut case = Case::new("cat /proc/uptime; sleep 1000");
    case.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "time"}));
    case.config["linux"]["timeOffsets"] = json!({
        "boottime": {"secs": SHIFT_SECONDS, "nanosecs": 5}, "monotonic": {"secs": 7},
    });
    case.start();
    let uptime = |text: &str| -> u64 { text.split('.').next().unwrap().parse().unwrap() };
    assert!(uptime(&case.read("out")) >= SHIFT_SECONDS);
    let joined = case.must(&["exec", case.id(), "cat", "/proc/uptime"]);
    assert!(uptime(&joined) >= SHIFT_SECONDS);
    let pid: u32 = case.read("pid").parse().unwrap();
    let mut second = Case::new("cat /proc/uptime");
    join(&mut second, "time", &format!("/proc/{pid}/ns/time"));
    let output = second.run();
    assert!(uptime(&String::from_utf8_lossy(&output.stdout)) >= SHIFT_SECONDS);
    let host = fs::read_to_string("/proc/uptime").unwrap();
    assert!(uptime(&host) < SHIFT_SECONDS);
    let wrong = refusal(json!({"realtime": {"secs": 1}}));
    assert!(wrong.contains("realtime"), "{wrong}");
}

fn refusal(offsets: Value) -> String {
    let mut case = Case::new("true");
    case.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "time"}));
    case.config["linux"]["timeOffsets"] = offsets;
    let (created, said) = case.create();
    assert!(!created);
    said
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    if !needs(&NEEDS) {
        return;
    }
    let case = Case::new("cat /sys/class/net/lo/flags");
    // IFF_UP and IFF_LOOPBACK.
    assert_eq!(String::from_utf8_lossy(&case.run().stdout), "0x9\n");
}
