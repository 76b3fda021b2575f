//! A guest: a User-mode Linux kernel of its own over this machine's files, with cgroup v2 and nothing but what its init set up.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tucano_testkit::{Need, ROOT, tool};
use tucano_tests::images::workspace;

/// What every guest needs of the machine.
pub(crate) const GUEST: [Need; 6] = [
    ROOT,
    tool("linux.uml"),
    tool("modprobe"),
    tool("busybox"),
    tool("mkfs.ext4"),
    tool("timeout"),
];

/// Size of the guest's disk, which takes only what is written of it.
const DISK_BYTES: u64 = 4 << 30;

/// A guest to be.
pub(crate) struct Guest {
    /// Below the workspace, for the guest has a /tmp of its own.
    directory: TempDir,
    /// Words of its kernel's command line: `word=value`, none with a space.
    words: Vec<String>,
}

impl Guest {
    /// One that runs a script of this directory, and ends with it.
    pub(crate) fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("guest-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let task = here().join(script);
        Self {
            directory,
            words: vec![
                format!("task={}", task.display()),
                format!("workspace={}", workspace().display()),
            ],
        }
    }

    /// Something more for the script to read from /proc/cmdline.
    pub(crate) fn word(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.words.push(format!("{name}={value}"));
        self
    }

    /// Boots it and waits for its end: the script's exit code, if it ended in time, and all that it wrote.
    pub(crate) fn run(self, patience: Duration) -> (Option<i32>, String) {
        let disk = self.make_disk();
        // It ends the kernel and every process of it, which are processes here, even where the kernel hangs.
        let output = Command::new("timeout")
            .args(["--kill-after=10", &patience.as_secs().to_string()])
            .args(["linux.uml", "mem=1024M", "quiet"])
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", here().join("init.sh").display()))
            .arg(format!("ubd0={}", disk.display()))
            .arg(format!("uml_dir={}/", self.directory.path().display()))
            .args(["umid=guest", "con=null", "con0=fd:0,fd:1"])
            .args(&self.words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let exit = text
            .lines()
            .find_map(|line| line.strip_prefix("guest-exit="))
            .and_then(|code| code.parse().ok());
        (exit, text)
    }

    fn make_disk(&self) -> PathBuf {
        let path = self.directory.path().join("disk");
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        let status = Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "mkfs.ext4: {status}");
        path
    }
}

fn here() -> PathBuf {
    workspace().join("tests/guests")
}
