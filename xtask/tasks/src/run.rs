//! Running programs, with this crate's errors.

use std::process::Command;

pub(crate) use xtask::run::{Tool, cargo, find_program, programs, workspace};

/// Prints what is done, does it, and fails if it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    Ok(xtask::run::step(what, command)?)
}
