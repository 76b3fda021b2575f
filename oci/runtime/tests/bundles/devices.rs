//! Network devices that move into the container.

use std::process::{Command, Output};

use serde_json::json;
use tucano_testkit::{Need, ROOT, needs, programs, tool};

use crate::harness::Case;

const NEEDS: [Need; 4] = [ROOT, tool("busybox"), tool("unshare"), tool("ip")];

/// Shows the container's devices and addresses, and ends the list.
const SHOW: &str = "busybox ip -o addr; busybox ip -o link; echo end";

/// Runs the bundle in a network namespace of the test's own, which has the devices `host1` and `host2`, and lists the
/// devices that are left there after it.
fn run(case: &Case) -> Output {
    case.write();
    let script = "set -e
        ip link add host1 type veth peer name host2
        ip address add 10.123.0.5/24 brd 10.123.0.255 dev host1
        ip address add fd00:123::5/64 dev host1 nodad
        ip address add 169.254.9.9/16 scope link dev host1
        ip link set host1 up
        \"$@\" || echo failed
        ip -o link";
    Command::new("unshare")
        .args(["--net", "sh", "-c", script, "sh"])
        .arg(programs().join("tucano_oci"))
        .arg("--root")
        .arg(case.path("state"))
        .args(["run", "--bundle"])
        .arg(case.path(""))
        .arg(case.id())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_device_moves_with_its_addresses_and_a_new_name() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(SHOW);
    case.config["linux"]["netDevices"] = json!({ "host1": { "name": "eth0" } });
    let output = run(&case);
    let said = text(&output.stdout);
    let (inside, outside) = said.split_once("end\n").expect("the container's output");
    for part in [
        "eth0",
        "10.123.0.5/24 brd 10.123.0.255",
        "fd00:123::5/64",
        ",UP",
    ] {
        assert!(inside.contains(part), "{part}: {output:?}");
    }
    assert!(!inside.contains("169.254.9.9"), "{said}");
    assert!(!inside.contains("host1"), "{said}");
    // A pair of virtual devices ends with the container's namespace.
    assert!(!outside.contains("host1"), "{said}");
}

#[test]
fn a_device_keeps_its_name_by_default() {
    if !needs(&NEEDS) {
        return;
    }
    let mut case = Case::new(SHOW);
    case.config["linux"]["netDevices"] = json!({ "host2": {} });
    let output = run(&case);
    let said = text(&output.stdout);
    let (inside, _) = said.split_once("end\n").expect("the container's output");
    assert!(inside.contains("host2"), "{output:?}");
}

#[test]
fn devices_that_cannot_move_are_refused() {
    if !needs(&NEEDS) {
        return;
    }
    for (devices, reason) in [
        (json!({ "none": {} }), "linux.netDevices: none"),
        (
            json!({ "host1": { "name": "lo" } }),
            "has a device \"lo\" already",
        ),
        (
            json!({ "host1": { "name": "a/b" } }),
            "\"a/b\" is not the name of a device",
        ),
        (
            json!({ "host1": { "name": "eth0" }, "none": {} }),
            "linux.netDevices: none",
        ),
        (
            json!({ "host1": { "name": "eth0" }, "host2": { "name": "eth0" } }),
            "two devices",
        ),
    ] {
        let mut case = Case::new("echo it runs");
        case.config["linux"]["netDevices"] = devices;
        let output = run(&case);
        let said = text(&output.stdout);
        assert!(said.contains("failed"), "{output:?}");
        // Quotes in a message are escaped in the log.
        let reported = text(&output.stderr).replace("\\\"", "\"");
        assert!(reported.contains(reason), "{reason}: {output:?}");
        assert!(!said.contains("it runs"), "{output:?}");
        // The devices stay where they were.
        assert!(said.contains("host1") && said.contains("host2"), "{said}");
    }
}

#[test]
fn devices_need_a_network_namespace_of_the_container() {
    if !needs(&NEEDS) {
        return;
    }
    for path in [None, Some("/proc/self/ns/net")] {
        let mut case = Case::new("echo it runs");
        case.config["linux"]["netDevices"] = json!({ "host1": {} });
        let all = case.config["linux"]["namespaces"].as_array_mut().unwrap();
        all.retain(|namespace| namespace["type"] != "network");
        all.extend(path.map(|path| json!({ "type": "network", "path": path })));
        let output = run(&case);
        let said = text(&output.stderr);
        assert!(said.contains("linux.netDevices"), "{output:?}");
        assert!(said.contains("network namespace"), "{output:?}");
        assert!(!text(&output.stdout).contains("it runs"), "{output:?}");
    }
}
