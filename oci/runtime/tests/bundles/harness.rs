//! A busybox bundle and its container, which is deleted when the test ends.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tucano_testkit::{Need, ROOT, find_tool, programs, tool, wait_until};

/// Time limit; only reached if something is broken.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Requirements of every test here.
pub(crate) const NEEDS: [Need; 2] = [ROOT, tool("busybox")];

/// Programs of busybox that tests use.
const APPLETS: [&str; 19] = [
    "sh", "sleep", "echo", "cat", "ls", "id", "true", "stat", "tty", "mount", "test", "ps",
    "readlink", "nproc", "mkdir", "stty", "dd", "chroot", "grep",
];

/// A bundle with a state directory of its own.
pub(crate) struct Case {
    pub(crate) directory: tempfile::TempDir,
    /// The configuration, written before the container is created.
    pub(crate) config: Value,
    id: String,
}

impl Case {
    /// A bundle that runs a shell script.
    pub(crate) fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tucano-bundle-")
            .tempdir()
            .unwrap();
        make_rootfs(&directory.path().join("rootfs"));
        let id = directory.path().file_name().unwrap();
        let id = id.to_str().unwrap().to_owned();
        let mut case = Self {
            config: Value::Null,
            directory,
            id,
        };
        let output = case.tucano(&["spec", "--bundle", case.path("").to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        case.config = serde_json::from_slice(&fs::read(case.path("config.json")).unwrap()).unwrap();
        // Empty: below this process's cgroup, named by the container's id.
        case.config["linux"]["cgroupsPath"] = "".into();
        case.config["process"]["args"] = json!(["sh", "-c", script]);
        case.config["process"]["terminal"] = false.into();
        case
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with its state below the bundle.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(programs().join("tucano_oci"));
        command.arg("--root").arg(self.path("state"));
        command
    }

    pub(crate) fn tucano(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).output().unwrap()
    }

    /// Runs a command on the container; it must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.tucano(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command on the container; it must fail. Returns its stderr.
    pub(crate) fn must_fail(&self, arguments: &[&str]) -> String {
        let output = self.tucano(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Writes the configuration.
    pub(crate) fn write(&self) -> &Self {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        self
    }

    pub(crate) fn run(&self) -> Output {
        self.write();
        self.program()
            .args(["run", "--bundle"])
            .arg(self.path(""))
            .arg(&self.id)
            .output()
            .unwrap()
    }

    /// Creates the container with its output in the file `out`. Returns whether that succeeded, and stderr.
    pub(crate) fn create(&self) -> (bool, String) {
        self.write();
        let out = || fs::File::create(self.path("out")).unwrap();
        let status = self
            .program()
            .args(["create", "--bundle"])
            .arg(self.path(""))
            .arg("--pid-file")
            .arg(self.path("pid"))
            .arg(&self.id)
            .stdin(std::process::Stdio::null())
            .stdout(out())
            .stderr(fs::File::create(self.path("err")).unwrap())
            .status()
            .unwrap();
        (status.success(), self.read("err"))
    }

    /// Creates it, starts it, and waits until it has written something.
    pub(crate) fn start(&self) {
        let created = self.create();
        assert!(created.0, "{created:?}");
        self.must(&["start", &self.id]);
        wait_until("the program's output", TIMEOUT, || {
            !self.read("out").is_empty()
        });
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.must(&["state", &self.id])).unwrap()
    }

    pub(crate) fn wait_for_status(&self, status: &str) {
        wait_until(status, TIMEOUT, || self.state()["status"] == status);
    }

    /// Whether neither state nor cgroup remains.
    pub(crate) fn is_gone(&self) -> bool {
        !self.path("state").join(&self.id).exists() && self.cgroups().is_empty()
    }

    /// Its cgroups, wherever hierarchies are mounted.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for controller in ["", "memory", "pids", "cpu", "cpuset", "freezer", "devices"] {
            search(
                &Path::new("/sys/fs/cgroup").join(controller),
                &self.id,
                3,
                &mut found,
            );
        }
        found
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.tucano(&["delete", "--force", &self.id]);
    }
}

fn search(place: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(place)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if depth > 0 {
            search(&entry.path(), name, depth - 1, found);
        }
    }
}

/// A root file system of a static busybox.
pub(crate) fn make_rootfs(place: &Path) {
    fs::create_dir_all(place.join("bin")).unwrap();
    fs::create_dir_all(place.join("etc")).unwrap();
    let busybox = find_tool("busybox").unwrap();
    fs::copy(busybox, place.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", place.join("bin").join(applet)).unwrap();
    }
    fs::write(
        place.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:\n",
    )
    .unwrap();
}
