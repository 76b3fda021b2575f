//! A guest: a kernel of its own over this machine's files, with cgroup v2 and nothing but what its init set up.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tucano_testkit::{Need, ROOT, tool};
use tucano_tests::images::workspace;

use crate::emulated::{self, Files};

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

/// What a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// User-mode Linux: a process of this machine. Boots in no time, computes fast, and calls the system slowly.
    UserMode,
    /// Debian's, on an emulated machine: slower, but with all that Debian's kernels have.
    Emulated,
}

/// A guest to be.
pub(crate) struct Guest {
    kernel: Kernel,
    /// Below the workspace, for the guest has a /tmp of its own.
    directory: TempDir,
    /// Words of its kernel's command line: `word=value`, none with a space.
    words: Vec<String>,
}

impl Guest {
    /// One on User-mode Linux that runs a script of this directory, and ends with it.
    pub(crate) fn new(script: &str) -> Self {
        Self::of(Kernel::UserMode, script)
    }

    /// The same on an emulated machine with Debian's kernel.
    pub(crate) fn emulated(script: &str) -> Self {
        Self::of(Kernel::Emulated, script)
    }

    fn of(kernel: Kernel, script: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("guest-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let words = [
            ("begin", here().join("init.sh")),
            ("task", here().join(script)),
            ("workspace", workspace().to_owned()),
        ];
        Self {
            kernel,
            directory,
            words: words
                .iter()
                .map(|(name, path)| format!("{name}={}", path.display()))
                .collect(),
        }
    }

    /// Something more for the script to read from /proc/cmdline.
    pub(crate) fn word(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.words.push(format!("{name}={value}"));
        self
    }

    /// Boots it and waits for its end: the script's exit code, if it ended in time, and all that it wrote.
    pub(crate) fn run(self, patience: Duration) -> (Option<i32>, String) {
        let disk = self.directory.path().join("disk");
        make_disk(&disk, None);
        // It ends the kernel and every process of it, which are processes here, even where the kernel hangs.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", &patience.as_secs().to_string()]);
        let _files = match self.kernel {
            Kernel::UserMode => {
                self.add_user_mode(&mut command, &disk);
                None
            }
            Kernel::Emulated => {
                let files = Files::share(self.directory.path());
                emulated::add(&mut command, self.directory.path(), &disk, &self.words);
                Some(files)
            }
        };
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let exit = text
            .lines()
            .find_map(|line| line.strip_prefix("guest-exit="))
            .and_then(|code| code.parse().ok());
        (exit, text)
    }

    fn add_user_mode(&self, command: &mut Command, disk: &Path) {
        command
            .args(["linux.uml", "mem=1024M", "quiet"])
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", here().join("init.sh").display()))
            .arg(format!("ubd0={}", disk.display()))
            .arg(format!("uml_dir={}/", self.directory.path().display()))
            .args(["umid=guest", "con=null", "con0=fd:0,fd:1"])
            .arg("modules=/usr/lib/uml/modules")
            .args(&self.words);
    }
}

/// A file with a file system, of these files.
pub(crate) fn make_disk(path: &Path, files: Option<&Path>) {
    let file = std::fs::File::create_new(path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let mut format = Command::new("mkfs.ext4");
    format.args(["-q", "-F"]);
    if let Some(files) = files {
        format.arg("-d").arg(files);
    }
    let status = format.arg(path).status().unwrap();
    assert!(status.success(), "mkfs.ext4: {status}");
}

pub(crate) fn here() -> PathBuf {
    workspace().join("tests/guests")
}
