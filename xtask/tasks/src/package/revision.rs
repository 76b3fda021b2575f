//! Packages of an earlier revision, from which upgrades are tested. They are built as they were then: by that revision's own
//! `cargo xtask package`, in a copy of its files.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use crate::run::{cargo, step, workspace};

/// Writes the packages of `revision` into `target/packages/previous`.
pub(super) fn package(revision: &str, profile: &str) -> anyhow::Result<()> {
    let directory = workspace().join("target/packages");
    let source = directory.join("revision");
    remove(&source)?;
    fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
    extract(revision, &source)?;
    // Cargo merges the configurations of the copy and of this project, around it: of two kinds of alias that fails.
    remove(&source.join(".cargo"))?;
    // What was built of it before, and the tools, are used again.
    for (name, target) in [("target", "revision-target"), ("target/tools", "../tools")] {
        let original = directory.join(target);
        fs::create_dir_all(&original)?;
        let link = source.join(name);
        if !link.exists() {
            symlink(&original, &link)
                .with_context(|| format!("cannot create {}", link.display()))?;
        }
    }
    let mut package = cargo();
    package
        .current_dir(&source)
        .args(["run", "--locked", "--package", "xtask", "--"])
        .args(["package", "--profile", profile]);
    step(&format!("packages of {revision}"), &mut package)?;
    let output = directory.join("previous");
    remove(&output)?;
    fs::rename(source.join("target/packages").join(profile), &output)
        .with_context(|| format!("there are no packages of {revision}"))?;
    super::tell(&output)
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The files of a revision, from git.
fn extract(revision: &str, directory: &Path) -> anyhow::Result<()> {
    let mut archive = Command::new("git")
        .current_dir(workspace())
        .args(["archive", "--format=tar", revision])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let Some(files) = archive.stdout.take() else {
        bail!("git archive has no output");
    };
    let unpacked = Command::new("tar")
        .args(["--extract", "--directory"])
        .arg(directory)
        .stdin(files)
        .status()
        .context("cannot run tar")?;
    ensure!(
        archive.wait()?.success() && unpacked.success(),
        "git has no revision {revision}: a shallow clone lacks it (git fetch --unshallow)"
    );
    Ok(())
}
