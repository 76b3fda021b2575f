//! Attacks on the runtime's writes to procfs.

use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tucano_testkit::{needs, tool};

use crate::{
    harness::{Case, NEEDS},
    outside::{Outside, add_mount, bind},
};

/// CVE-2025-52881, CVE-2019-19921: a naive runtime writes sysctls, labels and scores by their paths inside the container, where a
/// volume lies over `/proc` whose files are links to what the attacker wants written (`/proc/sys/kernel/core_pattern` of the
/// host, say), or swallow what was meant to confine it.
#[test]
fn procfs_writes_reach_the_kernel_only() {
    if !needs(&NEEDS) {
        return;
    }
    let script = "cat /real/sys/net/ipv4/ip_unprivileged_port_start /real/self/oom_score_adj; exec sleep 1000";
    let mut case = Case::new(script);
    let outside = Outside::of(&case);
    let fake = case.path("fake");
    for place in [
        "self/attr",
        "self/fd",
        "thread-self/attr",
        "sys/net/ipv4",
        "1",
    ] {
        fs::create_dir_all(fake.join(place)).unwrap();
    }
    for file in [
        "self/attr/exec",
        "self/attr/keycreate",
        "self/oom_score_adj",
        "self/setgroups",
        "self/uid_map",
        "thread-self/attr/exec",
        "sys/net/ipv4/ip_unprivileged_port_start",
        "1/oom_score_adj",
    ] {
        symlink(outside.file(), fake.join(file)).unwrap();
    }
    add_mount(
        &mut case,
        json!({"destination": "/real", "type": "proc", "source": "proc"}),
    );
    add_mount(&mut case, bind(&fake, "/proc"));
    case.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    case.config["process"]["oomScoreAdj"] = 321.into();
    case.start();
    assert_eq!(case.read("out"), "77\n321\n");
    let score = case.must(&["exec", case.id(), "cat", "/real/self/oom_score_adj"]);
    assert_eq!(score, "321\n");
    outside.assert_untouched();
}

/// The same through a mount namespace that is joined, whose `/proc` is what its owner made of it. A naive runtime joins it first and
/// writes afterwards.
#[test]
fn a_joined_mount_namespaces_procfs_is_never_written() {
    if !needs(&[&NEEDS[..], &[tool("unshare"), tool("mount")]].concat()) {
        return;
    }
    let mut case = Case::new("cat /proc/self/oom_score_adj; exec sleep 1000");
    let outside = Outside::of(&case);
    let fake = case.path("fake");
    for file in [
        "self/oom_score_adj",
        "sys/net/ipv4/ip_unprivileged_port_start",
    ] {
        let file = fake.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        symlink(outside.file(), file).unwrap();
    }
    // A network namespace that differs from the host's.
    fs::create_dir(fake.join("self/ns")).unwrap();
    fs::write(fake.join("self/ns/net"), "").unwrap();
    let owner = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!(
            "mount --bind {} /proc && echo && exec sleep 1000",
            fake.display()
        ))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut owner = Owner(owner);
    owner
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .unwrap();
    let path = format!("/proc/{}/ns/mnt", owner.0.id());
    for namespace in case.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "mount" {
            namespace["path"] = path.clone().into();
        }
    }
    case.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    case.config["process"]["oomScoreAdj"] = 321.into();
    case.start();
    assert_eq!(case.read("out"), "321\n");
    outside.assert_untouched();
}

struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
