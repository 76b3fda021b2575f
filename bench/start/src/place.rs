//! Private mount and network namespaces of the benchmark, and a directory that is removed at the end.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// A directory for the benchmark's files.
#[derive(Debug)]
pub(crate) struct Workspace(PathBuf);

/// Hides a cgroup2 hierarchy without controllers, beside which crun does not run, from every contender. Brings up
/// loopback.
const PREPARE: &str = "if mountpoint -q /sys/fs/cgroup/unified; then\n\
                           umount -l /sys/fs/cgroup/unified; mount -t tmpfs tmpfs /sys/fs/cgroup/unified\n\
                       fi\n\
                       ip link set lo up\n\
                       exec \"$@\"";

/// Executes this program again with the same arguments in private mount and network namespaces.
pub(crate) fn in_own_namespaces() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can start containers: run as root"
    );
    let error = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh", "-ec"])
        .args([PREPARE, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("measure")
        .exec();
    bail!("cannot start unshare: {error}")
}

impl Workspace {
    /// Creates the directory.
    pub(crate) fn make(work: &Path) -> Result<Self> {
        let path = work.join(format!("tucano-bench-start-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let place = Self(path);
        // A mount point, so that everything mounted below it can be unmounted at once.
        run(Command::new("mount")
            .arg("--bind")
            .args([&place.0, &place.0]))?;
        Ok(place)
    }

    /// A tmpfs, as runtimes usually have for their state.
    pub(crate) fn in_memory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory(name)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&path))?;
        Ok(path)
    }

    /// A subdirectory, created if missing.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    /// Including everything that is mounted inside, and processes left by a failure.
    fn drop(&mut self) {
        let ended = crate::bundle::remove_cgroups();
        let mut unmount = Command::new("umount");
        let unmounted = run(unmount.args(["--recursive", "--lazy"]).arg(&self.0));
        let removed = fs::remove_dir_all(&self.0).map_err(Into::into);
        if let Err(error) = ended.and(unmounted).and(removed) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Compiles one of the benchmark's C programs statically.
pub(crate) fn compile(source: &str, to: &Path) -> Result<()> {
    let written = to.with_extension("c");
    fs::write(&written, source)?;
    let mut cc = Command::new("cc");
    run(cc
        .args(["-O2", "-Wall", "-static", "-o"])
        .args([to, &written]))
}

/// Runs a command; its output is part of the error.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let talk = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", talk.trim());
    Ok(())
}
