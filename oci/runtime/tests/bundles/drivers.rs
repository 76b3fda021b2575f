//! Callers of runc, on this runtime.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tucano_testkit::{Need, ROOT, needs, programs, tool, wait_until};

use crate::harness::{TIMEOUT, make_rootfs};

const NEEDS: [Need; 4] = [ROOT, tool("busybox"), tool("podman"), tool("conmon")];

/// Podman with private storage and a busybox image.
struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tucano-podman-")
            .tempdir()
            .unwrap();
        make_rootfs(&directory.path().join("rootfs"));
        let podman = Self { directory };
        let archive = podman.path("rootfs.tar");
        let packed = Command::new("tar")
            .args(["-cf", &archive, "-C", &podman.path("rootfs"), "."])
            .status()
            .unwrap();
        assert!(packed.success());
        fs::write(podman.path("containers.conf"), "[containers]\n[engine]\n").unwrap();
        podman.must(&["import", &archive, "localhost/box"]);
        podman
    }

    fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn podman(&self, arguments: &[&str]) -> Output {
        let runtime = programs().join("tucano_oci");
        Command::new("podman")
            .args(["--root", &self.path("root"), "--runroot", &self.path("run")])
            .args(["--tmpdir", &self.path("tmp"), "--events-backend", "file"])
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--runtime", runtime.to_str().unwrap()])
            .args(arguments)
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env("XDG_RUNTIME_DIR", self.path("xdg"))
            .output()
            .unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.podman(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `podman run` with a limit of open files that every machine supports.
    fn run(&self, arguments: &[&str]) -> Output {
        let parent = self.cgroup_parent();
        let mut all = vec!["run", "--network", "none", "--cgroup-parent", &parent];
        all.extend(["--ulimit", "nofile=256:256", "--ulimit", "nproc=512:512"]);
        all.extend(arguments);
        self.podman(&all)
    }

    fn cgroup_parent(&self) -> String {
        let name = self.directory.path().file_name().unwrap();
        format!("/{}", name.to_str().unwrap())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.podman(&["rm", "--all", "--force", "--time", "0"]);
        // Podman leaves the parent and the cgroup of its monitors, the last of which may still be exiting. Only this test's
        // own parent is looked at: its name is unique.
        let parent = self.cgroup_parent();
        let hierarchies = || {
            fs::read_dir("/sys/fs/cgroup")
                .into_iter()
                .flatten()
                .flatten()
        };
        let own = || {
            hierarchies()
                .map(|hierarchy| hierarchy.path())
                .chain(["/sys/fs/cgroup".into()])
                .map(|hierarchy| hierarchy.join(parent.trim_start_matches('/')))
        };
        wait_until(
            &format!("the cgroup {parent} of podman's containers to be empty"),
            TIMEOUT,
            || own().all(|place| is_removed(&place)),
        );
    }
}

/// Removes a cgroup with those below it.
fn is_removed(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        is_removed(&entry.path());
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

#[test]
fn podman_runs_containers() {
    if !needs(&NEEDS) {
        return;
    }
    let podman = Podman::new();
    let script =
        "id -u; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; exit 5";
    let run = podman.run(&[
        "--rm",
        "--user",
        "33",
        "--pids-limit",
        "20",
        "--memory",
        "64m",
        "localhost/box",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(run.status.code(), Some(5), "{run:?}");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "33\n20\n");
    let terminal = podman.run(&["--rm", "--tty", "localhost/box", "tty"]);
    assert_eq!(
        String::from_utf8_lossy(&terminal.stdout).trim(),
        "/dev/pts/0"
    );
    let missing = podman.run(&["--rm", "localhost/box", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
}

#[test]
fn podman_lives_with_containers() {
    if !needs(&NEEDS) {
        return;
    }
    let podman = Podman::new();
    let run = podman.run(&[
        "--detach",
        "--name",
        "web",
        "localhost/box",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    assert!(run.status.success(), "{run:?}");
    let said = podman.podman(&["exec", "--env", "A=b", "web", "sh", "-c", "echo $A; exit 6"]);
    assert_eq!(said.status.code(), Some(6), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "b\n");
    let terminal = podman.podman(&["exec", "--tty", "web", "tty"]);
    assert_eq!(
        String::from_utf8_lossy(&terminal.stdout).trim(),
        "/dev/pts/0"
    );
    podman.must(&["pause", "web"]);
    assert_eq!(
        podman.must(&["inspect", "--format", "{{.State.Status}}", "web"]),
        "paused"
    );
    podman.must(&["unpause", "web"]);
    podman.must(&["stop", "--time", "50", "web"]);
    assert_eq!(
        podman.must(&["inspect", "--format", "{{.State.ExitCode}}", "web"]),
        "4"
    );
    podman.must(&["start", "web"]);
    podman.must(&["rm", "--force", "--time", "0", "web"]);
    assert_eq!(podman.must(&["ps", "--all", "--quiet"]), "");
}
