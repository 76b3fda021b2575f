//! Holds the network namespace of a switch, in which the creator sets the bridge up.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use tucano_vhost::settings::{PID, READY};

/// `switch <dies with creator>`.
pub(crate) fn hold(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let dies_with_creator = arguments.first().is_none_or(|flag| flag != "false");
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
    super::report(&format!("{PID}{}", std::process::id()))?;
    super::report(READY)?;
    while !super::wait_for_creator(dies_with_creator, None)? {}
    Ok(ExitCode::SUCCESS)
}
