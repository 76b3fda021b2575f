//! Docker and containerd on this runtime: a private daemon in private network and mount namespaces.

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tucano_testkit::{Need, ROOT, needs, programs, tool, wait_until};

use crate::harness::{TIMEOUT, make_rootfs};

const NEEDS: [Need; 7] = [
    ROOT,
    tool("busybox"),
    tool("dockerd"),
    tool("docker"),
    tool("ctr"),
    tool("unshare"),
    tool("script"),
];

/// A private daemon and a busybox image.
struct Docker {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Docker {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tucano-docker-")
            .tempdir()
            .unwrap();
        let path = |name: &str| directory.path().join(name);
        make_rootfs(&path("rootfs"));
        fs::write(path("daemon.json"), "{}").unwrap();
        let runtime = programs().join("tucano_oci");
        let log = fs::File::create(path("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "dockerd"])
            .args(["--bridge", "none", "--iptables=false", "--ip-masq=false"])
            .args(["--storage-driver", "vfs", "--default-runtime", "tucano"])
            .arg(format!("--add-runtime=tucano={}", runtime.display()))
            .arg(format!("--host=unix://{}", path("socket").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--config-file")
            .arg(path("daemon.json"))
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self { directory, daemon };
        wait_until("the daemon", TIMEOUT, || {
            docker.docker(&["info"]).status.success()
        });
        let archive = docker.path("rootfs.tar");
        let mut pack = Command::new("tar");
        pack.args(["-cf", &archive, "-C", &docker.path("rootfs"), "."]);
        assert!(pack.status().unwrap().success());
        docker.must(&["import", &archive, "box"]);
        docker
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.path("socket")))
            .env("DOCKER_CONFIG", self.path("config"));
        command
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `docker run` with a limit of open files that every machine supports.
    fn run(&self, arguments: &[&str]) -> Output {
        let parent = format!("/{}", self.name());
        let mut all = vec!["run", "--network", "none", "--cgroup-parent", &parent];
        all.extend(["--ulimit", "nofile=256:256"]);
        all.extend(arguments);
        self.docker(&all)
    }

    fn name(&self) -> &str {
        self.directory.path().file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.docker(&["ps", "--all", "--quiet"]).stdout;
        for id in String::from_utf8_lossy(&all).lines() {
            self.docker(&["rm", "--force", id]);
        }
        let pid = Pid::from_raw(self.daemon.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.daemon.wait().unwrap();
        // Docker does not remove the parent cgroup.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            fs::remove_dir(hierarchy.path().join(self.name())).ok();
        }
        fs::remove_dir(format!("/sys/fs/cgroup/{}", self.name())).ok();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn docker_and_containerd_run_containers() {
    if !needs(&NEEDS) {
        return;
    }
    let docker = Docker::new();
    let limits =
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; id -u; exit 5";
    let run = docker.run(&[
        "--rm",
        "--user",
        "33",
        "--memory",
        "64m",
        "--pids-limit",
        "20",
        "box",
        "sh",
        "-c",
        limits,
    ]);
    assert_eq!(run.status.code(), Some(5), "{run:?}");
    assert_eq!(said(&run), "20\n33");
    let strict = docker.run(&[
        "--rm",
        "--read-only",
        "--tmpfs",
        "/run",
        "--cap-drop",
        "all",
        "--security-opt",
        "no-new-privileges",
        "box",
        "sh",
        "-c",
        "echo x > /run/file && cat /run/file /proc/self/status",
    ]);
    assert!(
        said(&strict).contains("CapEff:\t0000000000000000"),
        "{strict:?}"
    );
    let terminal = docker.run(&["--rm", "--tty", "box", "tty"]);
    assert_eq!(said(&terminal), "/dev/pts/0");
    let missing = docker.run(&["--rm", "box", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    let greedy = "dd if=/dev/zero of=/dev/null bs=512M count=1";
    let killed = docker.run(&[
        "--memory",
        "32m",
        "--memory-swap",
        "32m",
        "--name",
        "greedy",
        "box",
        "sh",
        "-c",
        greedy,
    ]);
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    containerd_runs(&docker);
}

/// Docker loads a profile, names it in each configuration, and stops containers as the profile permits.
#[test]
#[ignore = "tests/guests runs it, on a kernel with AppArmor"]
fn containers_have_dockers_profile() {
    let active = Need::Exists("/sys/kernel/security/apparmor/profiles");
    if !needs(&[&NEEDS[..], &[active, tool("apparmor_parser")]].concat()) {
        return;
    }
    let docker = Docker::new();
    let current = "/proc/self/attr/current";
    let script = format!("cat {current}; trap 'exit 4' TERM; while :; do sleep 0.1; done");
    let run = docker.run(&["--detach", "--name", "web", "box", "sh", "-c", &script]);
    assert!(run.status.success(), "{run:?}");
    let exec = docker.must(&["exec", "web", "cat", current]);
    assert_eq!(exec, "docker-default (enforce)");
    let none = ["--rm", "--security-opt", "apparmor=unconfined"];
    let open = docker.run(&[&none[..], &["box", "cat", current]].concat());
    assert_eq!(said(&open), "unconfined", "{open:?}");
    docker.must(&["stop", "--time", "50", "web"]);
    let code = docker.must(&["inspect", "--format", "{{.State.ExitCode}}", "web"]);
    assert_eq!(code, "4");
    assert_eq!(docker.must(&["logs", "web"]), "docker-default (enforce)");
}

/// `ctr` over the containerd that the daemon has started.
fn containerd_runs(docker: &Docker) {
    docker.must(&["save", "--output", &docker.path("box.tar"), "box"]);
    let ctr = |arguments: &[&str]| {
        Command::new("ctr")
            .args(["--address", &docker.path("exec/containerd/containerd.sock")])
            .args(["--namespace", docker.name()])
            .args(arguments)
            .output()
            .unwrap()
    };
    let taken = ctr(&["image", "import", &docker.path("box.tar")]);
    assert!(taken.status.success(), "{taken:?}");
    let runtime = programs().join("tucano_oci");
    let run = ctr(&[
        "run",
        "--rm",
        "--runc-binary",
        runtime.to_str().unwrap(),
        "docker.io/library/box:latest",
        "cell",
        "sh",
        "-c",
        "echo $$; exit 3",
    ]);
    assert_eq!(
        (run.status.code(), said(&run)),
        (Some(3), "1".into()),
        "{run:?}"
    );
}

#[test]
fn docker_lives_with_containers() {
    if !needs(&NEEDS) {
        return;
    }
    let docker = Docker::new();
    let run = docker.run(&[
        "--detach",
        "--name",
        "web",
        "--health-cmd",
        "test -e /healthy",
        "--health-interval",
        "1s",
        "box",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    assert!(run.status.success(), "{run:?}");
    let inspect = |what: &str| docker.must(&["inspect", "--format", what, "web"]);
    let exec = docker.docker(&["exec", "--env", "A=b", "web", "sh", "-c", "echo $A; exit 6"]);
    assert_eq!(
        (exec.status.code(), said(&exec)),
        (Some(6), "b".into()),
        "{exec:?}"
    );
    // An interactive terminal, which `docker exec -it` requires.
    let interactive = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--command",
            "docker exec -it web tty",
            "/dev/null",
        ])
        .env("DOCKER_HOST", format!("unix://{}", docker.path("socket")))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(said(&interactive).contains("/dev/pts/0"), "{interactive:?}");
    docker.must(&["exec", "web", "sh", "-c", ": > /healthy"]);
    wait_until("health", TIMEOUT, || {
        inspect("{{.State.Health.Status}}") == "healthy"
    });
    docker.must(&["pause", "web"]);
    assert_eq!(inspect("{{.State.Status}}"), "paused");
    docker.must(&["unpause", "web"]);
    docker.must(&["update", "--memory", "32m", "--memory-swap", "32m", "web"]);
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    assert_eq!(
        docker.must(&["exec", "web", "sh", "-c", limit]),
        (32 << 20).to_string()
    );
    docker.must(&["stop", "--time", "50", "web"]);
    assert_eq!(inspect("{{.State.ExitCode}}"), "4");
    assert_eq!(docker.must(&["logs", "web"]), "up");
    docker.must(&["start", "web"]);
    docker.must(&["rm", "--force", "web"]);
    assert_eq!(docker.must(&["ps", "--all", "--quiet"]), "");
}
