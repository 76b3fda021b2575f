//! A fresh ext4 in a file for every run. Creating files after many were removed is slow on some file systems, so only
//! whole files are removed. The mounts are in a private namespace and vanish with the program.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Size of the sparse file: enough for one run.
const BYTES: u64 = 16 << 30;

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    /// Removed at the end.
    file: PathBuf,
}

/// Executes this program again with the same arguments in a private mount namespace and, if requested, a private
/// network namespace.
pub(crate) fn in_own_namespace(with_network: bool) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can mount: run as root"
    );
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .args(with_network.then_some("--net"))
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("measure")
        .exec();
    bail!("cannot start unshare: {error}")
}

impl Workspace {
    /// Creates and mounts a file system. Names must be unique at any time.
    pub(crate) fn mount(work: &Path, name: &str) -> Result<Self> {
        let unique = format!("tucano-bench-{}-{name}", std::process::id());
        let place = Self {
            file: work.join(format!("{unique}.ext4")),
            root: work.join(unique),
        };
        File::create_new(&place.file)
            .and_then(|it| it.set_len(BYTES))
            .with_context(|| format!("cannot make {}", place.file.display()))?;
        fs::create_dir(&place.root)
            .with_context(|| format!("cannot make {}", place.root.display()))?;
        // `-o loop` frees its device when the mount is gone.
        run(Command::new("mkfs.ext4").arg("-q").arg(&place.file))?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .args([&place.file, &place.root]))?;
        // Flush the writes of earlier runs.
        rustix::fs::sync();
        Ok(place)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for Workspace {
    /// Including everything that is mounted inside.
    fn drop(&mut self) {
        let unmounted = run(Command::new("umount")
            .args(["--recursive", "--lazy"])
            .arg(&self.root));
        let removed = fs::remove_dir(&self.root).and_then(|()| fs::remove_file(&self.file));
        if let Err(error) = unmounted.and(removed.map_err(Into::into)) {
            eprintln!("bench: cannot remove {}: {error}", self.root.display());
        }
    }
}

/// Runs a command; its output is part of the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, talk.trim());
    }
    Ok(())
}
