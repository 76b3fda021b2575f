//! Installing what is missing, on Debian and its kin.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    packages::{self, Package, Purpose},
    run::{find_program, step},
};

/// Asked by packages before they start their services (Debian's policy-rc.d interface).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// "Action forbidden by policy".
const DENY_ALL: &str = "#!/bin/sh\nexit 101\n";

/// Installs what is missing for a purpose; says nothing when nothing is.
pub(crate) fn install(purpose: Purpose) -> anyhow::Result<()> {
    let missing = packages::missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: this needs packages that are not installed:");
    for package in &missing {
        eprintln!("  {:<18} {}", package.name, package.reason);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if find_program("apt-get").is_none() {
        bail!(
            "install by hand what gives {}: there is no apt-get here",
            names.join(", ")
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "run it as root, or first: apt-get install {}",
            names.join(" ")
        );
    }
    let policy =
        Policy::put(Path::new(POLICY)).context("cannot keep services from being started")?;
    step("updating the lists of packages", apt().arg("update"))?;
    step(
        "installing them",
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&names),
    )?;
    policy.lift()?;
    verify(&missing)
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // A mirror that fails once is no reason to give up.
    command
        .args(["--quiet=2", "-o", "Acquire::Retries=3"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn verify(installed: &[Package]) -> anyhow::Result<()> {
    match installed.iter().find(|package| !package.is_there()) {
        Some(package) => bail!(
            "{} was installed, but what it is needed for is not there",
            package.name
        ),
        None => Ok(()),
    }
}

/// While it stands, packages that are installed start no service. One that stood before stays.
#[derive(Debug)]
struct Policy(Option<PathBuf>);

impl Policy {
    fn put(path: &Path) -> io::Result<Self> {
        if path.exists() {
            return Ok(Self(None));
        }
        fs::write(path, DENY_ALL)?;
        let policy = Self(Some(path.to_owned()));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(policy)
    }

    fn lift(mut self) -> anyhow::Result<()> {
        match self.0.take() {
            Some(path) => {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Policy {
    /// When a step failed, that failure is what is told.
    fn drop(&mut self) {
        self.0.take().and_then(|path| fs::remove_file(path).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_stands_only_meanwhile_and_a_foreign_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy-rc.d");
        let policy = Policy::put(&path).unwrap();
        assert_eq!(Command::new(&path).status().unwrap().code(), Some(101));
        policy.lift().unwrap();
        assert!(!path.exists());
        drop(Policy::put(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        Policy::put(&path).unwrap().lift().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }
}
