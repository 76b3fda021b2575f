//! Compiles the static programs.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::SAMPLES;

const PACKAGE: &str = "tucano_image_programs";
const PROFILE: &str = "image";

/// Compiles every sample program, statically linked, and returns the directory they are in. Works
/// without network once the dependencies were fetched.
///
/// # Errors
/// If rustc or cargo is missing or fails: cargo's own message is on stderr.
pub fn build_programs(workspace_root: &Path) -> Result<PathBuf> {
    build(workspace_root, &SAMPLES)
}

/// The same for some of the programs.
pub(crate) fn build(workspace_root: &Path, names: &[&str]) -> Result<PathBuf> {
    let root = workspace_root
        .canonicalize()
        .with_context(|| format!("no workspace at {}", workspace_root.display()))?;
    let target = host_triple()?;
    let target_dir = root.join("target/images-build");
    let build = |offline: bool| cargo_build(&root, &target, &target_dir, names, offline);
    // Only dependencies that are not in the local cache justify going online.
    if !build(true)? && !build(false)? {
        bail!("cargo could not build {PACKAGE}; its message is above");
    }
    Ok(target_dir.join(target).join(PROFILE))
}

fn cargo_build(
    root: &Path,
    target: &str,
    target_dir: &Path,
    names: &[&str],
    offline: bool,
) -> Result<bool> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--package", PACKAGE])
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .args(["--profile", PROFILE, "--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(root))
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null());
    // What cargo tells a program that it runs about that program's package is not for build scripts of others.
    for (name, _) in env::vars_os() {
        let is_about_caller =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_about_caller) {
            cargo.env_remove(name);
        }
    }
    if offline {
        cargo.arg("--offline");
    }
    Ok(cargo
        .status()
        .context("cannot run cargo: is Rust installed?")?
        .success())
}

/// Static, so that an image needs no system libraries; paths of this machine are kept out of the
/// programs, so that two checkouts give the same bytes. Separated by 0x1f, as cargo wants it.
fn rust_flags(root: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let remapped = cargo_home.iter().map(|home| (home.as_path(), "/cargo"));
    for (from, to) in remapped.chain([(root, "/tucano")]) {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

/// The machine that rustc builds for by itself, such as `x86_64-unknown-linux-gnu`. It is named on
/// cargo's command line so that the flags reach the programs only, not build scripts.
fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc: is Rust installed?")?;
    ensure!(
        output.status.success(),
        "rustc -vV failed with {}",
        output.status
    );
    let text = String::from_utf8(output.stdout).context("rustc -vV is not text")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
