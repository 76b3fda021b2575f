//! The container runtime's systemd cgroup driver, on a machine with systemd and cgroup v2.

use std::fs;

use tucano_testkit::{find_tool, needs, programs, tool};
use tucano_tests::{
    images::workspace,
    machines::{MACHINES, Machines},
};

#[test]
fn containers_are_in_scopes_that_systemd_makes_limits_and_ends() {
    if !needs(&MACHINES) || !needs(&[tool("busybox")]) {
        return;
    }
    // Machines see the workspace alone.
    let files = tempfile::Builder::new()
        .prefix("systemd-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let busybox = files.path().join("busybox");
    fs::copy(find_tool("busybox").unwrap(), &busybox).unwrap();
    let inside = |path: &std::path::Path| {
        let below = path.strip_prefix(workspace()).unwrap();
        format!("/workspace/{}", below.display())
    };
    let (runtime, busybox) = (inside(&programs().join("tucano_oci")), inside(&busybox));
    let machines = Machines::new();
    let [node] = machines.boot(["node"]);
    let step = |step: &str, lines: &[&str]| {
        let text = node.ok(&format!(
            "RUNTIME={runtime} BUSYBOX={busybox} /workspace/tests/guests/systemd.sh {step}"
        ));
        for line in lines {
            let is_there = text.lines().any(|other| other.contains(line));
            assert!(is_there, "{step}: {line:?} is missing in {text}");
        }
        text
    };

    let limits = |memory: u64, pids: u64| {
        let own = "/sys/fs/cgroup/a.slice/a-b.slice/oci-box.scope/container";
        format!(
            "==> {own}/memory.max <== {memory} ==> {own}/pids.max <== {pids} ==> {own}/cpu.max <== 50000 100000"
        )
    };
    let text = step(
        "life",
        &[
            "inside: 0::/",
            "outside: 0::/a.slice/a-b.slice/oci-box.scope/container",
            "ActiveState=active",
            "CPUQuotaPerSecUSec=500ms",
            "CPUWeight=20",
            "Delegate=yes",
            "Description=OCI container box",
            "MemoryMax=67108864",
            "Slice=a-b.slice",
            "TasksMax=50",
            "devices: cat: can't open '/dev/shm/m': Operation not permitted",
            "exec: 0::/, 2",
            "MemoryMax=100663296",
            "100663296 30",
            r#"stats: ["stats",30,100663296]"#,
            "paused: paused",
            "left: 0, failed: 0",
        ],
    );
    let unchanged = limits(67_108_864, 50);
    let times = |line: &str| text.lines().filter(|other| *other == line).count();
    assert_eq!(times(&unchanged), 2, "{text}");
    // After the update, and after the one that was refused.
    assert_eq!(times("TasksMax=30"), 2, "{text}");

    step(
        "ends",
        &[
            "hog: 137, failed: 0",
            "plain: 0::/system.slice/tucano_oci-plain.scope/container",
            "stopped: stopped",
            "boxes: 0",
        ],
    );
    step(
        "refused",
        &[
            r#"the cgroup path "/a/b" is not of the form "slice:prefix:name""#,
            "no program: refused",
            "systemd refused StartTransientUnit: Unit oci-taken.scope",
            "taken: active, 1",
            "boxes: 0",
        ],
    );
    step(
        "bus",
        &["by the bus: 0::/system.slice/oci-bus.scope/container"],
    );
}
