//! Installing what is missing, on Debian and its kin.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Context, Error, Result},
    packages::Package,
    run::{find_program, is_root, step},
};

/// Asked by packages before they start their services (Debian's policy-rc.d interface).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// "Action forbidden by policy".
const DENY_ALL: &str = "#!/bin/sh\nexit 101\n";

/// Installs these packages; prints nothing where there are none.
///
/// # Errors
/// If they cannot be installed: without root or apt-get, the message is the command to run first.
pub fn install(missing: &[Package]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: these packages are missing:");
    for package in missing {
        eprintln!("  {:<18} {}", package.name, package.reason);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if find_program("apt-get").is_none() {
        return Err(Error::new(format!(
            "there is no apt-get here: install the equivalents of {} by hand",
            names.join(", ")
        )));
    }
    if !is_root() {
        return Err(Error::new(format!(
            "only root can install them; run this as root, or first: apt-get install {}",
            names.join(" ")
        )));
    }
    let policy = Policy::put(Path::new(POLICY)).context(|| format!("cannot write {POLICY}"))?;
    step("updating the lists of packages", apt().arg("update"))?;
    step(
        "installing them (apt-get; a minute or more)",
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&names),
    )?;
    policy.remove()?;
    verify(missing)
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // A mirror that fails once is no reason to give up.
    command
        .args(["--quiet=2", "-o", "Acquire::Retries=3"])
        .args(["-o", "Dpkg::Use-Pty=0"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn verify(installed: &[Package]) -> Result<()> {
    match installed.iter().find(|package| !package.is_there()) {
        Some(package) => Err(Error::new(format!(
            "{} was installed, but its program or file is not there",
            package.name
        ))),
        None => Ok(()),
    }
}

/// While it exists, packages that are installed start no service. One that existed before stays.
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

    fn remove(mut self) -> Result<()> {
        match self.0.take() {
            Some(path) => {
                fs::remove_file(&path).context(|| format!("cannot remove {}", path.display()))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Policy {
    /// After a failed step: that failure is reported, not this one's.
    fn drop(&mut self) {
        self.0.take().and_then(|path| fs::remove_file(path).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_removed_and_a_foreign_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy-rc.d");
        let policy = Policy::put(&path).unwrap();
        assert_eq!(Command::new(&path).status().unwrap().code(), Some(101));
        policy.remove().unwrap();
        assert!(!path.exists());
        drop(Policy::put(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        Policy::put(&path).unwrap().remove().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }
}
