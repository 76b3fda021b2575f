//! Running programs, and saying which.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Context, Error, Result};

/// The workspace's root directory.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo puts programs of the `dev` profile: this one is there too.
pub fn programs() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let directory = own.parent().unwrap_or(Path::new("")).to_owned();
    match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(&directory).to_owned(),
        Some(_) => directory,
        None => workspace().join("target/debug"),
    }
}

/// Cargo itself, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    forget_own_package(&mut command);
    command
}

/// Removes what cargo tells a program that it runs about that program's package: ring's build script, for one, reads it too, and
/// would be run again whenever `cargo build` and `cargo xtask` alternate.
fn forget_own_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_about_own_package) {
            command.env_remove(name);
        }
    }
}

fn is_about_own_package(variable: &str) -> bool {
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ]
    .iter()
    .any(|prefix| variable.starts_with(prefix))
}

/// Prints what is done, does it, and fails if it fails.
///
/// # Errors
/// If the program cannot be run, or does not end well.
pub fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("xtask: {what}");
    let program = command.get_program().display().to_string();
    let status = command
        .status()
        .context(|| format!("cannot run {program}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{what} failed: {program} ended with {status}"
    )))
}

/// Whether this program runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program that cargo installs.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Of the crate and of the program.
    pub name: &'static str,
    /// The version to install where the machine has none.
    pub version: &'static str,
    /// More arguments for `cargo install`.
    pub arguments: &'static [&'static str],
}

impl Tool {
    /// The system's, or one of the workspace's own.
    ///
    /// # Errors
    /// If cargo cannot install it.
    pub fn find_or_install(self) -> Result<PathBuf> {
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
            .args(self.arguments)
            .args(["--version", self.version, "--root"])
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        let what = format!("installing {} into target/tools", self.name);
        step(&what, &mut install)?;
        Ok(own)
    }
}

/// Where a program of the PATH, or of the system's usual directories, is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let directories = env::split_paths(&path).chain(system);
    directories
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests;
