//! A fresh ext4 in a file, for every turn. Creating files after many were removed is slow on some file systems: so nothing
//! is ever removed but the whole file. The mounts are in a namespace of their own: they end with the program.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Of the sparse file: room for a turn.
const BYTES: u64 = 16 << 30;

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// What is removed in the end.
    file: PathBuf,
}

/// Starts this program again, with the same arguments, where nobody else sees its mounts, nor, if asked for, its
/// network.
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

impl Place {
    /// Makes and mounts one; two of the same name are never there at once.
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
        // -o loop frees its device by itself when the mount is gone.
        run(Command::new("mkfs.ext4").arg("-q").arg(&place.file))?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .args([&place.file, &place.root]))?;
        // Nobody pays for what earlier turns have left.
        rustix::fs::sync();
        Ok(place)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for Place {
    /// With whatever is mounted within.
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

/// Runs a command; its output is for when it fails.
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
