//! The container runtime's systemd cgroup driver, on machines with systemd: cgroup v2, and v1 beside it.

use std::fs;

use tempfile::TempDir;
use tucano_testkit::{find_tool, needs, programs, tool};
use tucano_tests::{
    images::workspace,
    machines::{MACHINES, Machine, Machines},
};

/// A machine that has what `systemd.sh` needs.
struct Node {
    machine: Machine,
    /// Machines see the workspace alone.
    files: TempDir,
}

impl Node {
    fn boot(machines: &Machines, words: &[&str]) -> Self {
        let files = tempfile::Builder::new()
            .prefix("systemd-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        fs::copy(find_tool("busybox").unwrap(), files.path().join("busybox")).unwrap();
        let [machine] = machines.boot_with(words, ["node"]);
        Self { machine, files }
    }

    /// Runs a step, which must write lines that contain these.
    fn step(&self, step: &str, lines: &[&str]) -> String {
        let inside = |path: &std::path::Path| {
            let below = path.strip_prefix(workspace()).unwrap();
            format!("/workspace/{}", below.display())
        };
        let runtime = inside(&programs().join("tucano_oci"));
        let busybox = inside(&self.files.path().join("busybox"));
        let text = self.machine.ok(&format!(
            "RUNTIME={runtime} BUSYBOX={busybox} /workspace/tests/guests/systemd.sh {step}"
        ));
        for line in lines {
            let is_there = text.lines().any(|other| other.contains(line));
            assert!(is_there, "{step}: {line:?} is missing in {text}");
        }
        text
    }
}

fn can_run() -> bool {
    needs(&MACHINES) && needs(&[tool("busybox")])
}

#[test]
fn systemd_makes_limits_and_ends_the_scopes_of_containers() {
    if !can_run() {
        return;
    }
    let node = Node::boot(&Machines::new(), &[]);
    let text = node.step(
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
            "devices: cat: can't open '/dev/box': Operation not permitted",
            "exec: 0::/",
            "listed: 0",
            "MemoryMax=100663296",
            "100663296 30",
            r#"stats: ["stats",30,100663296]"#,
            "paused: paused",
            "left: 0, failed: 0",
        ],
    );
    let times = |line: &str| text.lines().filter(|other| *other == line).count();
    // Before systemd was reloaded, and afterwards.
    assert_eq!(times("limits: 67108864 50 50000 100000"), 2, "{text}");
    // After the update, and after the one that was refused.
    assert_eq!(times("TasksMax=30"), 2, "{text}");

    node.step(
        "ends",
        &[
            "hog: 137, failed: 0",
            "plain: 0::/system.slice/tucano_oci-plain.scope/container",
            "stopped: stopped",
            "boxes: 0",
        ],
    );
    node.step(
        "refused",
        &[
            "is not of the form",
            "no program: refused",
            "systemd refused StartTransientUnit: Unit oci-taken.scope",
            "taken: active, 1",
            "boxes: 0",
        ],
    );
    node.step(
        "bus",
        &["by the bus: 0::/system.slice/oci-bus.scope/container"],
    );
}

#[test]
fn the_same_on_cgroup_v1() {
    if !can_run() {
        return;
    }
    // Newer ones have no v1.
    let machines = Machines::of("bookworm");
    let node = Node::boot(&machines, &["systemd.unified_cgroup_hierarchy=0"]);
    let text = node.step(
        "hybrid",
        &[
            "CPUQuotaPerSecUSec=500ms",
            "MemoryLimit=67108864",
            "TasksMax=50",
            "devices: cat: can't open '/dev/box': Operation not permitted",
            "less: 67108864 50 20000, 20000",
            "more: 67108864 50 80000, 80000",
            "left: 0, failed: 0",
        ],
    );
    let limits = |line: &&str| *line == "limits: 67108864 50 50000";
    assert_eq!(text.lines().filter(limits).count(), 2, "{text}");
}
