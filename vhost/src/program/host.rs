//! The parent of a host's init: it makes the namespaces, because only a child can be the first process in a new pid
//! namespace, and tells which pid that child has outside.

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
    .context("cannot make namespaces")?;
    let mut init = Command::new(own_path)
        .arg("init")
        .args(arguments)
        .spawn()
        .context("cannot start the host's init")?;
    super::say(&format!("{PID}{}", init.id()))?;
    init.wait().context("cannot wait for the host's init")?;
    Ok(ExitCode::SUCCESS)
}
