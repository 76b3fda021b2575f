//! The parent of a host's init. It creates the namespaces, because only a child can be the first process of a new pid namespace,
//! and reports that child's pid outside.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, ExitCode},
};

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use tucano_vhost::settings::PID;

/// `host <settings>`.
pub(crate) fn start(own_path: &OsStr, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    unshare(
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )
    .context("cannot create namespaces")?;
    let mut init = Command::new(own_path)
        .arg("init")
        .args(arguments)
        .spawn()
        .context("cannot start the host's init")?;
    super::report(&format!("{PID}{}", init.id()))?;
    init.wait().context("cannot wait for the host's init")?;
    Ok(ExitCode::SUCCESS)
}
