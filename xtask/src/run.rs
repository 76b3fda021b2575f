//! Running programs, and saying which.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// The workspace's root directory.
pub(crate) fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Cargo itself, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Says what is done, does it, and fails as it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("xtask: {what}");
    let program = command.get_program().display().to_string();
    let status = command
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if status.success() {
        return Ok(());
    }
    bail!("{what} failed: {program} ended with {status}");
}

/// A program that cargo installs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// The one that is installed where there is none.
    pub(crate) version: &'static str,
}

impl Tool {
    /// The system's, or one of the workspace's own.
    pub(crate) fn find_or_install(self) -> anyhow::Result<PathBuf> {
        let tools = workspace().join("target/tools");
        let own = tools.join("bin").join(self.name);
        if let Some(program) =
            find_program(self.name).or_else(|| own.is_file().then(|| own.clone()))
        {
            return Ok(program);
        }
        let mut install = cargo();
        install
            .args(["install", self.name, "--locked"])
            .args(["--version", self.version, "--root"])
            .arg(&tools);
        let what = format!("installing {} into target/tools", self.name);
        step(&what, &mut install)?;
        Ok(own)
    }
}

/// Where a program of the PATH, or of the system's usual directories, is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let directories = env::split_paths(&path).chain(system);
    directories
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}
