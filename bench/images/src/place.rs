//! A fresh ext4 in a file. Creating files after many were removed is slow on some file systems: so nothing is removed
//! between turns, and the whole file goes at the end. The mount is in a namespace of its own: it ends with the program.

use std::{
    cell::Cell,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Of the sparse file: room for all turns.
const BYTES: u64 = 48 << 30;

/// The mounted file system.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// What is removed in the end.
    file: PathBuf,
    number: Cell<u32>,
}

/// Starts this program again, with the same arguments, where nobody else sees its mounts.
pub(crate) fn in_own_namespace() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can mount: run as root"
    );
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("measure")
        .exec();
    bail!("cannot start unshare: {error}")
}

impl Place {
    pub(crate) fn mount(work: &Path) -> Result<Self> {
        let file = work.join(format!("tucano-bench-{}.ext4", std::process::id()));
        File::create_new(&file)
            .and_then(|it| it.set_len(BYTES))
            .with_context(|| format!("cannot make {}", file.display()))?;
        let place = Self {
            root: PathBuf::from("/mnt"),
            file,
            number: Cell::new(0),
        };
        // -o loop frees its device by itself when the mount is gone.
        run(Command::new("mkfs.ext4").arg("-q").arg(&place.file))?;
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .args([&place.file, &place.root]))?;
        Ok(place)
    }

    /// An empty directory.
    pub(crate) fn new_directory(&self, name: &str) -> Result<PathBuf> {
        self.number.set(self.number.get() + 1);
        let path = self
            .root
            .join(format!("{}-{}", self.number.get(), name.replace(' ', "-")));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes out what earlier turns have left, so that nobody pays for another.
    pub(crate) fn settle(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            eprintln!("bench: cannot remove {}: {error}", self.file.display());
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
