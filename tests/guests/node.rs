//! A whole node on kernels with cgroup v2: one that lacks nftables' families, pressure information and a controller, and one
//! that has all of it.

use std::time::Duration;

use tucano_testkit::{needs, programs, tool};
use tucano_tests::images;

use crate::{
    emulated::EMULATED,
    guest::{GUEST, Guest},
};

/// System calls are slow in a guest.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn a_node_without_nftables_pressure_and_a_controller_runs_services() {
    let tools = ["curl", "ip", "iptables-legacy", "jq", "nsenter"].map(tool);
    if !needs(&GUEST) || !needs(&tools) {
        return;
    }
    let (exit, output) = Guest::new("node.sh")
        .word("directory", programs().display())
        .word("cgroup_disable", "io")
        .word("image", images::sample("hello").display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    let lines = [
        "logged: 1",
        "note: nftables does not work on this node: ports are forwarded by iptables-legacy, and services with `needs` are not run here",
        "note: the cgroup controller io is missing: disk I/O of processes is not measured",
        "note: the kernel provides no pressure information (PSI)",
        "hello from service=hello revision=1 process=hello-1 node=w1",
        "hello from service=hello revision=1 process=hello-2 node=w1",
        "memory.max: 67108864",
        "memory.swap.max: 0",
        "cpu.max: 50000 100000",
        "pids.max: 77",
        "devices: Operation not permitted",
        "jumps: 1",
        "kept from: 1",
        "left: 0",
        "all is well",
    ];
    assert_lines(&output, &lines);
}

#[test]
fn a_node_with_every_kernel_feature_reports_nothing_missing() {
    let tools = ["curl", "ip", "jq", "mkfs.ext4", "nft"].map(tool);
    if !needs(&GUEST) || !needs(&EMULATED) || !needs(&tools) {
        return;
    }
    let (exit, output) = Guest::emulated("full.sh")
        .word("directory", programs().display())
        .word("image", images::sample("hello").display())
        .run(PATIENCE);
    assert_eq!(exit, Some(0), "{output}");
    let lines = [
        "told: 0",
        "hello from service=hello revision=1 process=hello-1 node=w1",
        "hello from service=hello revision=1 process=hello-2 node=w1",
        "memory.max: 67108864",
        "memory.swap.max: 0",
        "cpu.max: 50000 100000",
        "pids.max: 77",
        "devices: Operation not permitted",
        "pressure: 1",
        "mapped: 1",
        "forwarded: 2",
        "left: 0",
        "all is well",
    ];
    assert_lines(&output, &lines);
}

pub(crate) fn assert_lines(output: &str, lines: &[&str]) {
    for line in lines {
        let is_there = output.lines().any(|other| other == *line);
        assert!(is_there, "{line:?} is missing in {output}");
    }
}
